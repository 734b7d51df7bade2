"""The contract with torch: what of its private parts tickets/torch_private.py rests on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tombola.tickets import torch_private


def changed(part: str, file: str = "tickets/torch_private.py") -> str:
    return f"torch {torch.__version__} has '{part}' otherwise than Tombola's {file} knows it; mend that file"


def test_modules_hold_their_parts_as_they_did():
    module = nn.BatchNorm1d(3)
    module.inner = inner = nn.Linear(2, 2)
    module.nothing = None
    module.register_module("empty", None)
    assert torch_private.children_of(module) == {"inner": inner, "empty": None}, changed("Module._modules")
    torch_private.children_of(module)["inner"] = other = nn.ReLU()
    assert module.inner is other, changed("Module._modules")
    assert [*torch_private.own_parameters(module)] == ["weight", "bias"], changed("Module._parameters")
    statistics = ["running_mean", "running_var", "num_batches_tracked"]
    assert [*torch_private.own_buffers(module)] == statistics, changed("Module._buffers")


def test_changes_in_place_are_counted():
    tensor = torch.ones(2)
    before = torch_private.version_of(tensor)
    assert torch_private.version_of(tensor.add_(1)) != before, changed("Tensor._version")
    assert torch_private.version_of(None) == 0


def test_buffers_outside_checkpoints_are_known():
    module = nn.Module()
    module.register_buffer("lasting", torch.ones(1))
    module.register_buffer("passing", None, persistent=False)
    assert torch_private.transient_buffers(module) == {"passing"}, changed("Module._non_persistent_buffers_set")


def test_reentrant_checkpoints_go_through_what_is_replaced():
    layer, own = nn.Linear(2, 2), torch.utils.checkpoint.CheckpointFunction
    with torch_private.without_reentrance(), torch_private.without_reentrance():
        outputs = torch.utils.checkpoint.checkpoint(layer, torch.ones(1, 2), use_reentrant=True)
    assert torch.autograd.grad(outputs.sum(), layer.weight)[0].any(), changed("utils.checkpoint.CheckpointFunction")
    assert torch.utils.checkpoint.CheckpointFunction is own


@pytest.mark.parametrize("hook", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
def test_hooks_of_modules_are_seen(hook):
    module = nn.Linear(2, 2)
    assert not torch_private.is_hooked(module), changed(f"Module._{hook}s")
    getattr(module, f"register_{hook}")(lambda *_: None)
    assert torch_private.is_hooked(module), changed(f"Module._{hook}s")


def test_hooks_of_gradients_are_seen():
    weight = nn.Parameter(torch.ones(2))
    assert torch_private.gradient_hooks(weight) == [], changed("Tensor._post_accumulate_grad_hooks")

    def hook(_: torch.Tensor) -> None: ...

    weight.register_post_accumulate_grad_hook(hook)
    assert torch_private.gradient_hooks(weight) == [hook], changed("Tensor._post_accumulate_grad_hooks")


def test_an_optimizer_in_backward_is_seen():
    from torch.distributed.optim import _apply_optimizer_in_backward

    weight = nn.Parameter(torch.ones(2))
    assert not torch_private.steps_in_backward(weight)
    _apply_optimizer_in_backward(torch.optim.SGD, [weight], {"lr": 0.1})
    assert torch_private.steps_in_backward(weight), changed("Tensor._in_backward_optimizers")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_storages_have_a_key_of_their_own(device):
    one, other = torch.ones(3, device=device), torch.ones(3, device=device)
    keys = [torch_private.storage_key(own.untyped_storage()) for own in (one, one[1:], other)]
    assert keys[0] == keys[1] != keys[2], changed("UntypedStorage._cdata")


def test_kinds_of_norms_and_dropouts_are_known():
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm2d)
    assert all(issubclass(own, torch_private.NormWithStatistics) for own in norms), changed("_NormBase")
    assert not issubclass(nn.LayerNorm, torch_private.NormWithStatistics), changed("_NormBase")
    drops = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    assert all(issubclass(own, torch_private.Dropout) for own in drops), changed("_DropoutNd")


@pytest.mark.parametrize(
    ("machine", "asked"),
    [("x86_64", "cpu._is_avx512_bf16_supported"), ("aarch64", "ops.mkldnn._is_mkldnn_bf16_supported")],
)
def test_whether_the_processor_has_bf16_is_said(machine, asked, monkeypatch):
    monkeypatch.setattr(torch_private.platform, "machine", lambda: machine)
    assert isinstance(torch_private.cpu_has_bf16(), bool), changed(asked)


def test_bf16_that_an_x86_processor_would_emulate_is_none(monkeypatch):
    monkeypatch.setattr(torch_private.platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not torch_private.cpu_has_bf16()


def test_many_tensors_at_once_are_added_as_scores_expect():
    ones, twos = [torch.ones(2), torch.ones(3)], [torch.full((2,), 2.0), torch.full((3,), 2.0)]
    expected = {
        "_foreach_add": (torch._foreach_add(ones, twos, alpha=3), 7),
        "_foreach_sub": (torch._foreach_sub(ones, twos, alpha=3), -5),
        "_foreach_mul": (torch._foreach_mul(twos, 3), 6),
        "_foreach_add_": (ones, 3),
        "_foreach_addcmul_": (twos, 2 + 9 / 2),
    }
    torch._foreach_add_(ones, twos)
    torch._foreach_addcmul_(twos, ones, ones, 0.5)
    assert expected.keys() == set(torch_private.FOREACH)
    for part, (found, value) in expected.items():
        assert all((own == value).all() for own in found), changed(part)
