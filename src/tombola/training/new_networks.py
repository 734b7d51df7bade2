"""Networks as a training begins: new each time, the same of the same seed, and fit for the batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Batch, batch_size

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def check_can_learn(model: nn.Module) -> None:
    """TombolaError if a network's weights have no values, or none of them requires a gradient."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise TombolaError(
            "the task's model is on the device meta, where its weights have no values; make it on the CPU"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TombolaError(
            "nothing in the network requires a gradient, so that nothing can be trained; call "
            "requires_grad_(True) on what shall learn, in the function that makes the network"
        )


def check_new(model: nn.Module, before: nn.Module) -> None:
    """Check that a task's factory makes a new network each time, and the same of the same seed.

    Args:
        model: as the factory gave it the second time.
        before: the network of the same seed that it gave before.

    Raises:
        TombolaError: the two share what training moves, or differ.
    """
    old = _trained_tensors(before).values()
    objects, memory = {id(tensor) for tensor in old}, {_memory_of(tensor) for tensor in old} - {0}
    values = dict(before.named_parameters())
    for name, tensor in _trained_tensors(model).items():
        if id(tensor) in objects or _memory_of(tensor) in memory:
            raise TombolaError(
                f"the task's model gives the same '{name}' each time, so that what one run trains, the next begins "
                "with; make everything anew in that function, or give copy.deepcopy(…) of what it keeps"
            )
    for name, parameter in model.named_parameters():
        own = values.get(name)
        if own is None or own.shape != parameter.shape or not _same(parameter.detach().to(own.device), own.detach()):
            raise TombolaError(
                f"the task's model gives another '{name}' the second time, and the seed is the same; seed what it "
                "draws from; a SupervisedTask seeds torch's, NumPy's and Python's global random states for its factory"
            )


def _trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training moves, by name: parameters, and the statistics of batch norms."""
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, BATCH_NORM)]
    statistics = {f"{name}.{key}".lstrip("."): value for name, norm in norms for key, value in norm.named_buffers()}
    return {**dict(model.named_parameters()), **statistics}


def _memory_of(tensor: Tensor) -> int:
    """Where a tensor's memory on the CPU begins; 0 where it has none."""
    plain = tensor.is_cpu and tensor.layout == torch.strided
    return tensor.untyped_storage().data_ptr() if plain else 0


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers; NaN is the same as NaN."""
    return torch.equal(one, other) or bool(torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all())


def check_single(batch: Batch, model: nn.Module, error: ValueError) -> None:
    """Raise TombolaError if an error is that of batch norm, which cannot train on one sample; else do nothing."""
    if batch_size(batch) == 1 and any(isinstance(module, BATCH_NORM) for module in model.modules()):
        raise TombolaError(
            f"a batch holds one sample, on which batch norm cannot train ({error}); give a batch of at least two, and "
            "leave out a last one that is not full: drop_last=True"
        ) from error
