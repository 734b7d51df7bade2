"""What torch wraps networks in. Of these classes' private names, this file alone knows."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tombola.tickets.torch_private import children_of


class Wrapper(NamedTuple):
    """A class that stands around a network and adds nothing to what it computes.

    where, called: the module that has it, and its name there; child: what it calls the network inside; tensors: those
    of its own; transparent: whether it only changes how the network is run, and passes its attributes on, so that a
    copy can do without it.
    """

    where: str
    called: str
    child: str
    tensors: tuple[str, ...] = ()
    transparent: bool = False


WRAPPERS = (
    Wrapper("torch.nn.parallel", "DataParallel", "module"),
    Wrapper("torch.nn.parallel", "DistributedDataParallel", "module"),
    Wrapper("torch.optim.swa_utils", "AveragedModel", "module", tensors=("n_averaged",)),
    Wrapper("torch._dynamo", "OptimizedModule", "_orig_mod", transparent=True),
    Wrapper(
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper",
        "ActivationWrapper",
        "_checkpoint_wrapped_module",
        transparent=True,
    ),
    Wrapper("torch.distributed.fsdp", "FullyShardedDataParallel", "_fsdp_wrapped_module"),
)


class Known(dict[type, Wrapper | None]):
    """By the type of a module which wrapper it is, if any; a class derived from a wrapper is one."""

    def __missing__(self, kind: type) -> Wrapper | None:
        self[kind] = next((own for base in kind.__mro__[1:] if (own := self.get(base))), None)
        return self[kind]


def loaded() -> Known:
    """The wrappers' classes that exist by now; of what is not imported there can be no object, and imports are slow."""
    found = ((getattr(sys.modules.get(own.where), own.called, None), own) for own in WRAPPERS)
    return Known((kind, own) for kind, own in found if kind is not None)


def wrapper_of(module: nn.Module, known: Known) -> Wrapper | None:
    """What this module is, if it is a wrapper."""
    own = known[type(module)]
    return own if own is not None and own.child in children_of(module) else None


def unwrapped(module: nn.Module) -> nn.Module:
    """What is inside the wrappers around a module; itself where there are none."""
    return _inside(module, loaded())


def bare(model: nn.Module) -> nn.Module:
    """The model with its transparent wrappers taken away at every depth, in place: do it to a copy."""
    known = Known((kind, own) for kind, own in loaded().items() if own is not None and own.transparent)
    for module in list(model.modules()):
        for name, child in children_of(module).items():
            if child is not None:
                children_of(module)[name] = _inside(child, known)
    return _inside(model, known)


def eager() -> AbstractContextManager[object]:
    """Inside, compiled networks run as they are written: seen by hooks, differentiable twice, equal to the plain."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def is_sharded(module: nn.Module) -> bool:
    """Whether a module is one of FSDP, whose parameters are elsewhere in part."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = (getattr(fsdp, name, None) for name in ("FullyShardedDataParallel", "FSDPModule"))
    return isinstance(module, tuple(kind for kind in kinds if kind is not None))


def is_distributed(parameter: Tensor) -> bool:
    """Whether a tensor is spread over processes, as FSDP2 leaves parameters."""
    return type(parameter).__name__ == "DTensor" or hasattr(parameter, "placements")


def _inside(module: nn.Module, known: Known) -> nn.Module:
    while (own := wrapper_of(module, known)) is not None:
        inner = children_of(module)[own.child]
        assert inner is not None
        module = inner
    return module
