"""A task's own optimizer and schedule: what its two factories are, and what they may give."""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tombola.errors import TombolaError
from tombola.nested import leaves_of
from tombola.training.random_generators import GENERATORS, generator_state, put_generator_state
from tombola.training.source_code import package_of

OptimizerFactory = Callable[[nn.Module], Optimizer]
"""Makes the optimizer of a network."""
SchedulerFactory = Callable[[Optimizer, int], LRScheduler]
"""Makes the schedule of an optimizer for so many steps."""

PLAIN = {Tensor, nn.Parameter, torch.dtype, torch.device, torch.Size, str, bytes, int, float, bool, type(None)}
NESTS = {dict, OrderedDict, Counter, list, tuple}
"""What a checkpoint holds, at any depth; not what derives from these, as NumPy's numbers do."""


@dataclass(frozen=True)
class ByEpoch:
    """A scheduler's factory whose scheduler moves on once an epoch, and not once a step.

    Args:
        make: makes the scheduler of an optimizer for so many epochs.

    Examples:
        >>> from dataclasses import replace
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> halving = ByEpoch(lambda optimizer, epochs: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5))
        >>> result = tb.train(replace(toy_task(epochs=3), scheduler=halving))
        >>> [row["lr"] for row in result.history]
        [0.05, 0.025, 0.0125]
    """

    make: SchedulerFactory

    def __call__(self, optimizer: Optimizer, epochs: int) -> LRScheduler:
        return self.make(optimizer, epochs)


def own(task: Any, name: str) -> Any:
    """A task's own `optimizer` or `scheduler`; None if it has none.

    Raises:
        TombolaError: if it is something that cannot be called.
    """
    factory = getattr(task, name, None)
    if factory is not None:
        check_factory(name, factory)
    return factory


def check_factory(name: str, factory: Any) -> None:
    """TombolaError unless this is a factory of a task's `optimizer` or `scheduler`."""
    example = "lambda model: torch.optim.SGD(model.parameters(), lr=0.1)"
    if name == "scheduler":
        example = "lambda optimizer, steps: CosineAnnealingLR(optimizer, steps)"
    called = factory.make if isinstance(factory, ByEpoch) else factory
    made = called.func if isinstance(called, partial) else called
    if not callable(factory) or isinstance(factory, Optimizer | LRScheduler):
        raise TombolaError(
            f"the task's {name} is {_named(factory)}, but each network needs one of its own; give a function that "
            f"makes it, as {name}={example}"
        )
    if isinstance(made, type) and issubclass(made, Optimizer | LRScheduler):
        raise TombolaError(
            f"the task's {name} is the class {made.__name__}, whose arguments are others than those of a factory; give "
            f"a function, as {name}={example}"
        )
    arguments = (None,) if name == "optimizer" else (None, 1)
    try:
        inspect.signature(called).bind(*arguments)
    except ValueError:  # a callable written in C may not say what it accepts
        return
    except TypeError as error:
        wanted = "the network" if name == "optimizer" else "the optimizer and how often it steps"
        by_epoch = "" if name == "optimizer" else "; one that steps once an epoch is tb.training.ByEpoch(…)"
        raise TombolaError(
            f"the task's {name} cannot be called with {wanted} ({error}); give {name}={example}{by_epoch}"
        ) from error


def make_own_optimizer(factory: OptimizerFactory, model: nn.Module) -> Optimizer:
    """The task's own optimizer of a network.

    Raises:
        TombolaError: if it is none, needs a closure, or moves anything but this network.
    """
    optimizer = factory(model)
    if not isinstance(optimizer, Optimizer):
        raise TombolaError(f"the task's optimizer gave {_named(optimizer)}; it must return one torch.optim.Optimizer")
    try:
        inspect.signature(optimizer.step).bind()
    except TypeError as error:
        raise TombolaError(
            f"{type(optimizer).__name__} needs a closure in each step, which Tombola's loop does not give; take "
            "another optimizer, or train in your own loop under tb.attach"
        ) from error
    own_parameters = {id(p) for p in model.parameters()}
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    if (stranger := next((p for p in moved if id(p) not in own_parameters), None)) is not None:
        raise TombolaError(
            f"the task's optimizer holds a parameter of shape {tuple(stranger.shape)} that is not the network's, and "
            "that no checkpoint would keep; make it from the network that the function is given"
        )
    return optimizer


def make_own_scheduler(factory: SchedulerFactory, optimizer: Optimizer, steps: int) -> LRScheduler:
    """The task's own scheduler of an optimizer; TombolaError if it is none, or another optimizer's."""
    scheduler = factory(optimizer, steps)
    if not isinstance(scheduler, LRScheduler):
        raise TombolaError(
            f"the task's scheduler gave {_named(scheduler)}; it must return a torch.optim.lr_scheduler.LRScheduler"
        )
    if scheduler.optimizer is not optimizer:
        raise TombolaError("the task's scheduler is another optimizer's; make it of the one that the function is given")
    check_kept("scheduler", scheduler.state_dict())
    return scheduler


def beside_state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """What an optimizer of a user's class keeps in attributes of its own and not in `state_dict()`.

    Returns:
        Numbers, texts, tensors and nests of these by the attribute's name, and the states of its random generators.

    Raises:
        TombolaError: if a generator's state cannot be kept.
    """
    if package_of(type(optimizer)) == "torch":
        return {}
    own = {name: value for name, value in vars(optimizer).items() if name not in ("state", "param_groups", "defaults")}
    generators = {name: generator_state(value) for name, value in own.items() if isinstance(value, GENERATORS)}
    check_kept("optimizer", generators)
    values = {name: value for name, value in own.items() if _is_value(value)}
    return {"generators": generators, "values": values}


def put_beside(optimizer: Optimizer, kept: Mapping[str, Any]) -> None:
    """Give an optimizer what `beside_state_dict` gave."""
    for name, state in kept.get("generators", {}).items():
        put_generator_state(getattr(optimizer, name), state)
    for name, value in kept.get("values", {}).items():
        setattr(optimizer, name, value)


def _is_value(value: Any) -> bool:
    trained = any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves_of(value))
    return not trained and _stranger(value) is None


def check_kept(name: str, state: Any) -> None:
    """TombolaError unless a checkpoint can hold the state of a task's optimizer or scheduler."""
    if (stranger := _stranger(state)) is not None:
        raise TombolaError(
            f"the state of the task's {name} holds {_named(stranger)}, which no checkpoint takes; its state_dict() "
            "must give numbers, texts and tensors, in dictionaries and lists"
        )


def _stranger(state: Any) -> Any:
    """The first object in a state that a checkpoint cannot hold; None if there is none."""
    if type(state) in PLAIN:
        return None
    if type(state) not in NESTS:
        return state
    parts = (*state.keys(), *state.values()) if isinstance(state, dict) else state
    return next((found for part in parts if (found := _stranger(part)) is not None), None)


def _named(value: Any) -> str:
    return f"a {type(value).__name__}"
