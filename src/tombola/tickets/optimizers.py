"""The optimizers that train a network: one or several, however wrapped, and what shall run after their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.tickets.torch_private import runs_step_hooks

Optimizers = Any
"""An optimizer, a wrapper around one, or several of either in a list, a tuple or a dictionary; None is none."""


@dataclass(frozen=True, eq=False)
class Stepper:
    """One optimizer that a user gives, with what is wrapped in it.

    Args:
        called: how a message calls it.
        levels: it itself, then what it wraps, at any depth. Those of torch, which do the steps, come last.
    """

    called: str
    levels: tuple[Any, ...]

    @property
    def inner(self) -> list[Optimizer]:
        """The optimizers of torch that do the steps: those that wrap no other."""
        return [level for level in self.levels if isinstance(level, Optimizer) and not any(_inside(level))]

    @property
    def parameters(self) -> set[nn.Parameter]:
        """What its groups hold now."""
        return {parameter for group in self._groups for parameter in group["params"]}

    @property
    def size(self) -> int:
        """How many parameters its groups list now."""
        return sum(len(group["params"]) for group in self._groups)

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return [group for level in self.levels for group in getattr(level, "param_groups", ())]


def steppers_of(given: Optimizers) -> list[Stepper]:
    """Each of the optimizers that were given, with what it wraps.

    Args:
        given: see `Optimizers`.

    Raises:
        TombolaError: if something among them is no optimizer of torch and wraps none.

    Examples:
        >>> import torch
        >>> sgd = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> [stepper.called for stepper in steppers_of({"critic": sgd})]
        ["the optimizer 'critic' (SGD)"]
    """
    if given is None:
        return []
    if hasattr(given, "step") or not isinstance(given, Iterable):
        return [_stepper(given, f"the optimizer ({type(given).__name__})")]
    named = given if isinstance(given, Mapping) else dict(enumerate(given, start=1))
    if not named:
        raise TombolaError("there is no optimizer among those given; leave the argument out to attach without one")
    return [_stepper(one, f"the optimizer {key!r} ({type(one).__name__})") for key, one in named.items()]


def state_of(level: Any, parameter: Tensor) -> Mapping[str, Any]:
    """What an optimizer, or a wrapper with state of its own, keeps for a parameter."""
    states = getattr(level, "state", None)
    state = states.get(parameter) if isinstance(states, Mapping) else None
    return state if isinstance(state, Mapping) else {}


def after_each_step(level: Any, action: Callable[[Any], None]) -> Callable[[], None]:
    """Call `action(level)` after each step of an optimizer or a wrapper; returned is what ends that."""
    if runs_step_hooks(level):
        return level.register_step_post_hook(lambda stepped, *_: action(stepped)).remove
    return _around_step(level, action)


def _around_step(wrapper: Any, action: Callable[[Any], None]) -> Callable[[], None]:
    """As `after_each_step`, for a wrapper whose `step` does not run torch's hooks: on this object, not on its class."""
    own: Any = getattr(wrapper, "__dict__", {}).get("step")
    active = True

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:  # self may be a copy of the wrapper, which steps itself
        if getattr(own, "__self__", None) is wrapper:
            result = own.__func__(self, *args, **kwargs)
        else:
            result = type(self).step(self, *args, **kwargs) if own is None else own(*args, **kwargs)
        if active:
            action(self)
        return result

    def remove() -> None:
        nonlocal active
        active = False
        if vars(wrapper).get("step") is not hooked:  # somebody wrapped it again since, as a scheduler does
            return
        if own is None:
            del wrapper.step
        else:
            wrapper.step = own

    if not (hasattr(wrapper, "step") and hasattr(wrapper, "__dict__")):
        return lambda: None  # such as a wrapper of slots: what it wraps is looked at
    if own is not None:
        update_wrapper(step, getattr(own, "__func__", own))  # a scheduler finds the mark that it left there
    hooked = MethodType(step, wrapper)
    wrapper.step = hooked
    return remove


def _stepper(given: Any, called: str) -> Stepper:
    levels: list[Any] = []
    to_visit = [given]
    while to_visit:
        level = to_visit.pop(0)
        if not any(level is visited for visited in levels):
            levels.append(level)
            to_visit += _inside(level)
    stepper = Stepper(called, tuple(levels))
    if not stepper.inner:
        raise TombolaError(
            f"{called} is no torch.optim.Optimizer and holds none in an attribute; give the torch optimizer that steps "
            "the parameters"
        )
    return stepper


def _inside(level: Any) -> Iterator[Any]:
    """The optimizers among an object's attributes, those in lists and dictionaries too."""
    slots = (getattr(level, name, None) for name in getattr(type(level), "__slots__", ()))
    for value in (*getattr(level, "__dict__", {}).values(), *slots):
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else (value,)
        yield from (part for part in parts if _steps(part))


def _steps(value: Any) -> bool:
    """Whether a value looks like an optimizer: it steps, and zeroes gradients."""
    kind = type(value)  # asked of its class, since an object may pass everything on to what it wraps
    return isinstance(value, Optimizer) or all(callable(getattr(kind, name, None)) for name in ("step", "zero_grad"))
