"""Masks on networks that two processes train together: dead stays dead, and the training is the one-process one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel as DDP

from processes import in_two_processes
from tombola import Mask, Ticket, TombolaError, attach
from tombola.structure import prunable
from tombola.tickets import Seed, parameters_of, unwrapped, whole

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not in this build")


class Net(nn.Module):
    """No batch norm, no dropout, and sides that two processes cannot share evenly."""

    inputs = (1, 5, 5)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.hidden, self.head = nn.Conv2d(1, 5, 3), nn.Linear(45, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.head(self.hidden(self.conv(x).relu().flatten(1)).relu())


class Even(nn.Module):
    """Two layers whose sides are even, since neither FSDP2 along dimension 1 nor tensor parallelism takes others."""

    inputs = (10,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(10, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.hidden(x).relu())


def mask_of(model: nn.Module, share: float = 0.5, seed: int = 5) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask.of({n: torch.rand(p.shape, generator=generator) < share for n, p in prunable(model).items()})


def batch(model: nn.Module, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, *unwrapped(model).inputs, generator=generator, dtype=torch.float64)
    return inputs.to(next(model.parameters()).dtype), torch.arange(8) % 3


def share_of(tensor: torch.Tensor, replicas: int) -> torch.Tensor:
    """What this rank sees of a batch."""
    return tensor.chunk(replicas)[dist.get_rank()] if replicas > 1 else tensor


def assert_dead(mask: Mask, parameters, optimizer) -> None:
    for name in mask:
        for tensor in (parameters[name], parameters[name].grad, *optimizer.state[parameters[name]].values()):
            if tensor is not None and tensor.ndim == parameters[name].ndim:
                dead = whole(tensor)[~mask[name]]
                assert not dead.any(), name
                assert not dead.signbit().any(), name


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def trained(model: nn.Module, make, replicas: int, part_of=lambda model, last: nullcontext(), wrap=lambda model: model):
    """Values and state after training with accumulation, clipping, an exchanged mask, held parameters and momentum.

    Args:
        model: the network.
        make: makes the optimizer.
        replicas: how many ranks share the batches.
        part_of: a context for each of the passes that one step accumulates.
        wrap: around the network once the mask is attached.
    """
    optimizer = make(model.parameters())
    mask, other = mask_of(model), mask_of(model, seed=6)
    ticket = Ticket(mask, Seed(0, ""), held=("head.bias",))
    for step in range(2):  # so that there are gradients and state to be zeroed
        x, y = batch(model, step)
        F.cross_entropy(model(share_of(x, replicas)), share_of(y, replicas)).backward()
        optimizer.step()
    optimizer.zero_grad()
    held = whole(parameters_of(model)["head.bias"]).clone()
    with attach(ticket, model, optimizer) as handle:
        model = wrap(model)
        parameters = parameters_of(model)
        assert_dead(mask, parameters, optimizer)
        for step in range(4):
            if step == 2:
                with torch.no_grad():
                    model(share_of(batch(model, 9)[0], replicas))  # FSDP2 leaves parameters gathered after this
                handle.exchange(other)
                assert_dead(mask & other, parameters, optimizer)
            optimizer.zero_grad()
            for part in range(2):
                x, y = batch(model, 10 * step + part)
                with part_of(model, part == 1):
                    F.cross_entropy(model(share_of(x, replicas)), share_of(y, replicas)).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.02)
            assert float(whole(norm)) > 0.02
            optimizer.step()
            assert_dead(handle.mask, parameters, optimizer)
        assert torch.equal(whole(parameters["head.bias"]), held)
        grown = {name: whole(parameters[name])[(other - mask)[name]] for name in mask}
        assert all(values.any() for values in grown.values())
        states = {
            f"{name} {key}": whole(state).clone()
            for name, parameter in parameters.items()
            if name != "head.bias"  # whose gradient is None in one process, and 0 in DDP
            for key, state in optimizer.state[parameter].items()
        }
        return {"norm": whole(norm)} | {name: whole(p).clone() for name, p in parameters.items()} | states


def assert_close(case: str, one, other) -> None:
    assert one.keys() == other.keys(), case
    for name, values in one.items():
        assert torch.allclose(values, other[name], rtol=1e-9, atol=1e-12), f"{case}: {name}"


def by_layer(model: nn.Module, **settings) -> nn.Module:
    for child in model.children():
        fully_shard(child, **settings)
    return fully_shard(model, **settings)


def mesh(*sizes: int):
    return init_device_mesh("cpu", sizes, mesh_dim_names=("a", "b")[: len(sizes)])


def synced_last(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    if isinstance(model, DDP):
        return nullcontext() if last else model.no_sync()
    model.set_requires_gradient_sync(last)
    return nullcontext()


def in_parallel(model: nn.Module) -> nn.Module:
    return parallelize_module(model, mesh(2), {"hidden": ColwiseParallel(), "head": RowwiseParallel()})


def in_parallel_and_sharded(model: nn.Module) -> nn.Module:
    both = mesh(1, 2)
    parallelize_module(model, both["b"], {"hidden": ColwiseParallel(), "head": RowwiseParallel()})
    return fully_shard(model, mesh=both["a"])


SHARDED = {
    "whole": (Net, fully_shard, 2),
    "by layer": (Net, by_layer, 2),
    "not resharded": (Net, lambda model: by_layer(model, reshard_after_forward=False), 2),
    "hybrid, copies": (Net, lambda model: fully_shard(model, mesh=mesh(2, 1)), 2),
    "hybrid, parts": (Net, lambda model: fully_shard(model, mesh=mesh(1, 2)), 2),
    "dimension 1": (Even, lambda model: fully_shard(model, shard_placement_fn=lambda p: Shard(p.ndim - 1)), 2),
    "tensor parallel": (Even, in_parallel, 1),
    "tensor parallel and sharded": (Even, in_parallel_and_sharded, 1),
}


WRAPS = {
    "DDP": DDP,
    "whole": fully_shard,
    "by layer": by_layer,
    "hybrid": lambda model: fully_shard(model, mesh=mesh(2, 1)),
}
REPLICATED = {
    "plain": {},
    "bucket view": {"gradient_as_bucket_view": True},
    "static graph": {"static_graph": True},
    "unused parameters": {"find_unused_parameters": True},
}


def sharded_networks(names: list[str], makes: list[str]) -> None:
    for make in makes:
        optimizer = {"sgd": sgd, "adamw": adamw}[make]
        expected = {kind: trained(kind().double(), optimizer, 1) for kind in (Net, Even)}
        for name in names:
            kind, shard, replicas = SHARDED[name]
            parts = {"part_of": synced_last} if name == "by layer" else {}
            values = trained(shard(kind().double()), optimizer, replicas, **parts)
            assert_close(f"{name}, {make}", values, expected[kind])


def replicated_networks(names: list[str]) -> None:
    expected = trained(Net().double(), adamw, 1)
    for name in names:
        for parts in ({}, {"part_of": synced_last}):
            model = DDP(Net().double(), **REPLICATED[name])
            assert_close(name, trained(model, adamw, 2, **parts), expected)
    late = trained(Net().double(), adamw, 1, wrap=DDP)  # each rank sees all batches
    assert_close("wrapped after it was attached", late, expected)


def compiled_network() -> None:
    values = trained(torch.compile(DDP(Net().double()), backend="eager"), adamw, 2)
    assert_close("compiled", values, trained(Net().double(), adamw, 1))


def mixed_precision() -> None:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for make in (sgd, adamw):
        for resharded in (True, False):
            values = trained(by_layer(Net(), mp_policy=policy, reshard_after_forward=resharded), make, 2)
            assert all(tensor.isfinite().all() for tensor in values.values())


def different_masks() -> None:
    rank = dist.get_rank()
    for wrap in WRAPS.values():
        model = wrap(Net())
        with pytest.raises(TombolaError, match="rank 1 was given another mask than rank 0; choose it on one rank"):
            attach(mask_of(model, seed=rank), model)
        held = ("head.bias",) if rank else ()
        with pytest.raises(TombolaError, match="rank 1 was given another mask"):
            attach(Ticket(mask_of(model), Seed(0, ""), held=held), model)
        with pytest.raises(TombolaError, match="rank 1 was given another mask"):  # and not that it does not fit there
            attach(mask_of(model) if rank else mask_of(Even()), model)
        with attach(mask_of(model), model) as handle:
            with pytest.raises(TombolaError, match="rank 1 was given another mask"):
                handle.exchange(mask_of(model, seed=rank))
            assert handle.mask == mask_of(model)


@pytest.mark.slow
def test_sharded_networks_train_as_one_process_does(tmp_path):
    in_two_processes(sharded_networks, tmp_path, list(SHARDED), ["sgd", "adamw"])


@pytest.mark.slow
def test_replicated_networks_train_as_one_process_does(tmp_path):
    in_two_processes(replicated_networks, tmp_path, list(REPLICATED))


@pytest.mark.slow
@pytest.mark.parametrize("body", [mixed_precision, compiled_network, different_masks])
def test_dead_stays_dead_in_two_processes(body, tmp_path):
    in_two_processes(body, tmp_path)
