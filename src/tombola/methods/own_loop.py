"""What the watches of all methods share: hooks around the steps of the optimizers in anybody's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.scores import Forward, Inputs, suited
from tombola.structure import Probe
from tombola.tickets import Optimizers, steppers_of

Action = Callable[[Tensor | float], None]


def steps_of(optimizer: Optimizers) -> list[Optimizer]:
    """The optimizers of torch that do the steps, each once; where steps are counted, those of the last are."""
    return list(dict.fromkeys(inner for stepper in steppers_of(optimizer) for inner in stepper.inner))


def concerned(optimizer: Optimizers, watched: Iterable[nn.Parameter]) -> list[Any]:
    """Those of the given optimizers, wrapped as they are, that hold a watched parameter.

    Args:
        optimizer: one, a wrapper of one, or several.
        watched: the parameters that a method looks after.

    Raises:
        TombolaError: if none holds any.
    """
    steppers = [one for one in steppers_of(optimizer) if not one.parameters.isdisjoint(watched)]
    if not steppers:
        raise TombolaError("the optimizer holds none of this model's parameters; make it from model.parameters()")
    return [stepper.levels[0] for stepper in steppers]


def probe_on(example: Inputs | None, forward: Forward) -> Probe:
    """What calls a model on an example; TombolaError when it is called and there is none.

    Args:
        example: inputs.
        forward: calls a model on inputs.
    """

    def probe(model: nn.Module) -> Any:
        if example is None:
            raise TombolaError("these units are found by calling the network; give example=, inputs that it takes")
        return forward(model, suited(example, model))

    return probe


def before_each_step(optimizer: Optimizer, action: Action) -> Callable[[], None]:
    """Call `action(scale)` whenever gradients are ready and not yet used; returned is what ends that.

    Only within the step does a closure make gradients, so it is called after each closure then. `scale` is the factor
    on the gradients: fused optimizers under AMP unscale within the step.
    """

    def hook(stepping: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if closure is None:
            scale = getattr(stepping, "grad_scale", None)
            action(1.0 if scale is None else scale)
            return None

        def acting_closure() -> Any:
            loss = closure()
            action(1.0)
            return loss

        return args[:1], {**kwargs, "closure": acting_closure}

    return optimizer.register_step_pre_hook(hook).remove
