"""The classes that torch and Fabric wrap networks in. No other file uses their private names."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import nn

from tombola.tickets.torch_private import children_of


class Wrapper(NamedTuple):
    """A class that stands around a network and adds nothing to what it computes.

    Args:
        where: the module that defines it.
        called: its name there.
        child: its name for the network inside.
        tensors: the names of its own tensors.
        transparent: whether it only changes how the network runs and passes attributes on, so that a copy of the
            network can do without it.
        twin: a second name of its for the network inside; empty where there is none.
    """

    where: str
    called: str
    child: str
    tensors: tuple[str, ...] = ()
    transparent: bool = False
    twin: str = ""


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
    *(
        Wrapper(where, "_FabricModule", "_forward_module", transparent=True, twin="_original_module")
        for where in ("lightning_fabric.wrappers", "lightning.fabric.wrappers")
    ),
)


class Known(dict[type, Wrapper | None]):
    """The wrapper that each type of module is, None for a type that is none; a subclass of a wrapper is one."""

    def __missing__(self, kind: type) -> Wrapper | None:
        self[kind] = next((wrapper for base in kind.__mro__[1:] if (wrapper := self.get(base))), None)
        return self[kind]


def loaded() -> Known:
    """The wrappers whose classes are imported by now."""
    # There can be no object of a class that is not imported, and importing it would be slow.
    classes = ((getattr(sys.modules.get(wrapper.where), wrapper.called, None), wrapper) for wrapper in WRAPPERS)
    return Known((kind, wrapper) for kind, wrapper in classes if kind is not None)


def wrapper_of(module: nn.Module, known: Known) -> Wrapper | None:
    """Which wrapper this module is; None if it is none.

    Args:
        module: the module.
        known: what `loaded` gave.
    """
    wrapper = known[type(module)]
    return wrapper if wrapper is not None and wrapper.child in children_of(module) else None


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside the wrappers around a module; the module itself where there are none."""
    return _inside(module, loaded())


def bare(model: nn.Module) -> nn.Module:
    """The model without its transparent wrappers, at every depth; changes the model, so call it with a copy."""
    known = Known((kind, wrapper) for kind, wrapper in loaded().items() if wrapper is not None and wrapper.transparent)
    for module in list(model.modules()):
        for name, child in children_of(module).items():
            if child is not None:
                children_of(module)[name] = _inside(child, known)
    return _inside(model, known)


def eager() -> AbstractContextManager[object]:
    """Inside, compiled networks run uncompiled.

    Hooks then see every module, gradients can be differentiated again, and results equal the plain network's.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _inside(module: nn.Module, known: Known) -> nn.Module:
    while (wrapper := wrapper_of(module, known)) is not None:
        inner = children_of(module)[wrapper.child]
        assert inner is not None
        module = inner
    return module
