"""Networks that are spread over processes: DDP, FSDP2, and whatever else makes its parameters DTensors.

A DTensor is one tensor of which each process holds a part. What reads values gathers them (`whole`), which all
processes must do together; what writes them writes the part that is here (`own_part`), to which a mask or stored values
contribute the same part (`part_like`), without any communication.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.nested import mapped
from tombola.tickets.wrappers import unwrapped


def is_spread(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which other processes hold parts or copies."""
    # There can be no object of a class that is not imported, and importing it would be slow.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def layout_of(tensor: Any) -> Any:
    """How a tensor is spread: over which mesh of processes, and how; None if it is not."""
    return (tensor.device_mesh, tensor.placements) if is_spread(tensor) else None


def own_part(tensor: Any) -> Tensor:
    """The part of a tensor that this process holds, in the same memory; a tensor that is not spread is its own part."""
    return tensor.detach().to_local() if is_spread(tensor) else tensor.detach()


def part_like(values: Tensor, tensor: Any) -> Tensor:
    """The part of a whole tensor that falls to this process as its part of another tensor does.

    Args:
        values: of the other tensor's shape, the same on all processes.
        tensor: the other tensor.
    """
    if not is_spread(tensor):
        return values
    from torch.distributed.tensor import DTensor, Replicate

    mesh, copies = tensor.device_mesh, [Replicate()] * tensor.device_mesh.ndim
    # A sum over processes that is not yet taken lies whole on each of them.
    placements = [Replicate() if placement.is_partial() else placement for placement in tensor.placements]
    spread = DTensor.from_local(values.to(mesh.device_type), mesh, copies, run_check=False)
    return spread.redistribute(placements=placements).to_local()


def whole(tensor: Any) -> Tensor:
    """The values of a tensor with the parts that other processes hold; all of them must call this together."""
    if not is_spread(tensor):
        return tensor.detach()
    # Parts that are offloaded to the CPU are gathered where the processes talk to each other.
    return tensor.detach().to(tensor.device_mesh.device_type).full_tensor()


def reshard(modules: Iterable[nn.Module]) -> None:
    """Let a network's names lead to the parameters that its optimizer holds; modules: all of the network's.

    Between passes FSDP2 may leave gathered copies of parameters in their places, as a forward pass without a backward
    one does.
    """
    module = sys.modules.get("torch.distributed.fsdp")
    if sharded := getattr(module, "FSDPModule", None):
        for part in modules:
            if isinstance(part, sharded):
                part.reshard()


def check_not_flat(model: nn.Module) -> None:
    """TombolaError if a network is wrapped in FSDP of the first kind."""
    module = sys.modules.get("torch.distributed.fsdp")
    flat = getattr(module, "FullyShardedDataParallel", None)
    if flat is not None and any(isinstance(part, flat) for part in model.modules()):
        raise TombolaError(
            "the model is wrapped in FullyShardedDataParallel, whose flat parameters a mask cannot follow; use "
            "torch.distributed.fsdp.fully_shard, or DDP"
        )


def check_whole(model: nn.Module, what: str) -> None:
    """TombolaError if other processes hold parts of a network, so that it can neither be copied nor called by us alone.

    Args:
        model: the network.
        what: what needs it whole, for the error.
    """
    if name := next((name for name, parameter in model.named_parameters() if is_spread(parameter)), None):
        raise TombolaError(
            f"'{name}' is spread over processes, and {what} needs the whole network: do that before you distribute it, "
            "or with a plain network that has its values, by "
            "tb.tickets.put_values(plain, tb.tickets.tensors_of(model))"
        )


def is_replicated(model: nn.Module) -> bool:
    """Whether DDP stands around a network, so that other processes have copies that see other batches."""
    return _replicas(model) is not None


def own_network(model: nn.Module) -> nn.Module:
    """The network inside DDP, which can be called without the other processes; a model without DDP as it is."""
    return unwrapped(model) if is_replicated(model) else model


def check_same(model: nn.Module, what: str, called: str) -> None:
    """Check that all processes that train a network together were given the same.

    Args:
        model: the network; where it is not distributed, nothing is checked.
        what: the fingerprint of what this process was given.
        called: what that is, for the error.

    Raises:
        TombolaError: on every process, if one was given something else.
    """
    groups = _groups(model)
    if not groups:
        return
    given = {torch.distributed.get_rank(): what}
    for group in groups:  # of a mesh, one dimension after another: then every process knows what all were given
        parts: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(parts, given, group)
        given = {rank: fingerprint for part in parts for rank, fingerprint in part.items()}
    first = min(given)
    other = next((rank for rank in sorted(given) if given[rank] != given[first]), None)
    if other is not None:
        raise TombolaError(
            f"rank {other} was given another {called} than rank {first}; choose it on one rank and send it to the "
            "others, or load one file on all of them"
        )


def batches_of_all(model: nn.Module, batches: Iterable[Any]) -> Iterable[Any]:
    """The batches of all processes that hold a copy of a network, for each of them.

    Args:
        model: the network; where DDP does not stand around it, the batches stay as they are.
        batches: those of this process.

    Returns:
        The first of each process in the order of their ranks, then the second of each, and so on, on the CPU.
    """
    if not is_replicated(model):
        return batches
    gathered = _gathered(model, batches)
    return list(gathered) if isinstance(batches, list) else gathered


def same_on_all(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the first process, for all that hold a copy of a network.

    The same computation may end in other last digits there, as on GPUs, and a batch norm's statistics may differ.
    """
    group = _replicas(model)
    if group is None:
        return dict(tensors)
    first = torch.distributed.get_process_group_ranks(group)[0]
    sent = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    for tensor in sent.values():
        torch.distributed.broadcast(tensor, first, group)
    return sent


def _gathered(model: nn.Module, batches: Iterable[Any]) -> Iterator[Any]:
    group, own = _replicas(model), iter(batches)
    parts: list[Any] = [None] * torch.distributed.get_world_size(group)
    while True:
        # In a list, so that the end of a process's batches is not taken for one.
        torch.distributed.all_gather_object(parts, [_packed(batch) for batch in islice(own, 1)], group)
        if not any(parts):
            return
        for packed in chain.from_iterable(parts):
            yield _unpacked(*packed)


def _packed(batch: Any) -> tuple[Any, list[str]]:
    """A batch on the CPU, and the kind of device of each of its tensors."""
    devices: list[str] = []

    def on_cpu(tensor: Tensor) -> Tensor:
        devices.append(tensor.device.type)
        return tensor.cpu()

    return mapped(batch, on_cpu), devices


def _unpacked(batch: Any, devices: list[str]) -> Any:
    kinds = iter(devices)
    return mapped(batch, lambda tensor: tensor.to(next(kinds)))


def _replicas(model: nn.Module) -> Any:
    """The group of the processes among which DDP stands around a network; None if it does not, or there is only one."""
    wrapped = (part for part in model.modules() if isinstance(part, nn.parallel.DistributedDataParallel))
    return next((part.process_group for part in wrapped if _is_shared(part.process_group)), None)


def _groups(model: nn.Module) -> list[Any]:
    """The groups of more than one process that train a network together."""
    replicas = _replicas(model)
    groups = [] if replicas is None else [replicas]
    layouts = [layout_of(parameter) for parameter in model.parameters()]
    meshes = dict.fromkeys(layout[0] for layout in layouts if layout is not None)
    groups += [group for mesh in meshes if mesh.get_coordinate() is not None for group in mesh.get_all_groups()]
    return [group for group in groups if _is_shared(group)]


def _is_shared(group: Any) -> bool:
    """Whether a group has several processes, which still know of each other."""
    return torch.distributed.is_initialized() and torch.distributed.get_world_size(group) > 1
