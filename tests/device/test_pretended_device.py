"""The device that is not there refuses and allows what CUDA does, so that tests on it can fail."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from pretended_device import NAME, OtherDeviceError, pretended_device


@pytest.fixture(autouse=True)
def device():
    with pretended_device() as device:
        yield device


def there(*values: float) -> torch.Tensor:
    return torch.tensor(values, device=NAME)


@pytest.mark.parametrize(
    "mix",
    [
        lambda: there(1, 2) + torch.ones(2),
        lambda: torch.ones(2) + there(1)[0],
        lambda: torch.zeros(2).add_(there(1, 2)),
        lambda: torch.where(torch.tensor([True, False]), there(1, 2), 0.0),
        lambda: there(1, 2).masked_fill_(torch.tensor([True, False]), 0.0),
        lambda: torch.cat([there(1), torch.ones(1)]),
        lambda: torch.stack([there(1)[0], torch.tensor(1.0)]),
        lambda: torch.ones(2)[there(0, 1).long()],
        lambda: there(1, 2).index_select(0, torch.tensor([0])),
        lambda: there(1, 2).index_put_((torch.tensor([0, 1]),), torch.ones(2)),
        lambda: torch.equal(there(1), torch.ones(1)),
        lambda: nn.Linear(2, 1)(there(1, 2)),
        lambda: torch.rand(2, device=NAME, generator=torch.Generator()),
    ],
)
def test_two_devices_may_not_meet(mix):
    with pytest.raises(OtherDeviceError, match="expected"):
        mix()


def test_what_cuda_allows_is_allowed():
    values = there(1, 2, 3)
    assert (values * torch.tensor(2.0)).tolist() == [2, 4, 6]
    assert values[torch.tensor([True, False, True])].tolist() == [1, 3]
    assert values[torch.tensor([2])].tolist() == [3]
    values[torch.tensor([0])] = 5.0
    values[1] = torch.tensor(7.0)
    assert values.tolist() == [5, 7, 3]
    assert torch.zeros(3).copy_(values).tolist() == [5, 7, 3]
    assert values.sum().item() == 15
    assert values.to("meta").is_meta


def test_values_are_not_read_as_arrays():
    with pytest.raises(RuntimeError, match="numpy"):
        there(1).numpy()
    with pytest.raises(RuntimeError, match="numpy"):
        there(1).__array__()


def test_a_network_trains_there_and_keeps_its_parameters(device):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    weight = model[0].weight
    assert model.to(NAME)[0].weight is weight
    assert isinstance(weight, nn.Parameter)
    optimizer, before = torch.optim.SGD(model.parameters(), lr=0.1), weight.tolist()
    model(there(1.0, 2.0, 3.0, 4.0).view(2, 2)).square().mean().backward()
    optimizer.step()
    assert weight.tolist() != before
    assert weight.grad.device == copy.deepcopy(model)[1].running_mean.device == torch.device(NAME, 0)
    torch.save(model.state_dict(), file := io.BytesIO())
    assert torch.load(io.BytesIO(file.getvalue()), weights_only=True)["0.weight"].tolist() == weight.tolist()


@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda values, mask: values.add_(1), 0),
        (lambda values, mask: torch.where(mask, values, 0.0), 0),
        (lambda values, mask: torch.ones(2).to(NAME, non_blocking=True), 0),
        (lambda values, mask: float(values[0]), 1),
        (lambda values, mask: values.cpu(), 1),
        (lambda values, mask: values[mask], 1),
        (lambda values, mask: torch.ones(2).to(NAME), 1),
        (lambda values, mask: bool(mask.any()), 1),
    ],
)
def test_waits_are_counted(device, work, waits):
    values, mask = there(1, 2), there(1, 0).bool()
    device.waits.clear()
    work(values, mask)
    assert len(device.waits) == waits
