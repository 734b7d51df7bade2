"""Keeping dead weights dead while anybody's loop trains the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets.handle import Handle
from tombola.tickets.kept_words import KeptWords, zero
from tombola.tickets.mask import Mask
from tombola.tickets.optimizers import Optimizers, Stepper, after_each_step, state_of, steppers_of
from tombola.tickets.sharding import check_not_flat, check_same, own_part, reshard
from tombola.tickets.step_guard import StepGuard
from tombola.tickets.tensor_names import parameters_of
from tombola.tickets.tensors import check_fits
from tombola.tickets.ticket import Dead, Ticket
from tombola.tickets.torch_private import gradient_hooks, steps_in_backward

Words = Mapping[nn.Parameter, KeptWords]


class AttachWarning(UserWarning):
    """A mask cannot follow some of the optimizer's state, which was left as it is."""


def attach(what: Mask | Ticket, model: nn.Module, optimizer: Optimizers = None, *, dead: Dead | None = None) -> Handle:
    """Keep a mask's dead weights exactly zero, and a ticket's held parameters where they are, while you train.

    Dead weights and their optimizer state become zero at once. Dead gradients become zero as soon as they are
    accumulated, so that clipping, closures and double-step optimizers see the sparse problem. After each
    `optimizer.step`, weights and every state tensor of the parameter's shape are zeroed again; optimizers of torch that
    keep zeros at zero are spared that pass until somebody else writes to a weight, a gradient or the state. Held
    parameters keep the values that they have when the ticket is attached; a position that is both dead and held is
    zero. Layers that are frozen now may be trained later. The model's class, parameters and state_dict keys stay the
    same. A copy of the model and the optimizer is a plain one, to which the mask must be attached again.

    Args:
        what: the mask, or the ticket whose mask and held parameters are kept.
        model: the network that the mask was made for, however wrapped or spread over processes (DDP, FSDP2,
            torch.compile); changed in place. Distribute it first: each process then keeps its part of the mask.
        optimizer: what trains it, or all of several in a list or a dictionary; wrapped ones too, as those of accelerate
            and Fabric, Lookahead and SAM. Without one, only gradients are zeroed while you train, so that momentum from
            before and weight decay can move dead weights.
        dead: what becomes of dead weights: they are zero (`zero`); or only kept weights train (`frozen`), as in sparse
            fine-tuning, and all else, parameters outside the mask too, stays at the values that it has now. None takes
            what the ticket says, and zero for a mask.

    Returns:
        A handle to detach with, which is also a context manager.

    Raises:
        TombolaError: if the model is another architecture or is wrapped in FSDP of the first kind, if the processes
            that train it were given different masks, or if an optimizer runs inside backward or holds none of the
            masked parameters.

    Examples:
        >>> import torch
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> with attach(Mask.of({"weight": torch.tensor([[True, False]])}), model, optimizer):
        ...     model(torch.ones(1, 2)).sum().backward()
        ...     optimizer.step()
        >>> model.weight.grad.tolist()
        [[1.0, 0.0]]
        >>> model.weight[0, 1].item()
        0.0
    """
    mask, held = (what.mask, what.held) if isinstance(what, Ticket) else (what, ())
    dead = dead or (what.dead if isinstance(what, Ticket) else "zero")
    if dead not in ("zero", "frozen"):
        raise TombolaError(f"dead is {dead!r}; give 'zero' or 'frozen'")
    check_not_flat(model)
    check_same(model, f"{mask.digest} {held} {dead}", "mask")
    parameters, steppers = parameters_of(model, remove_duplicate=False), steppers_of(optimizer)
    check_fits(mask, parameters)
    _check_trainable(parameters)
    if missing := [name for name in held if name not in parameters]:
        raise TombolaError(
            f"the ticket holds '{missing[0]}', which this model does not have; use the model it was found on"
        )
    _check_steppers(steppers, parameters, {*mask, *held})
    masked = {parameter: KeptWords(kept) for parameter, kept in _kept_of(mask, parameters).items()}
    still = [p for name, p in parameters.items() if name in held or (dead == "frozen" and p not in masked)]
    start = {parameter: own_part(parameter).clone() for parameter in still}
    levels = list({id(level): level for stepper in steppers for level in stepper.levels}.values())

    def settle(words_of: Words, values: Mapping[nn.Parameter, Tensor], stepped: Sequence[Any]) -> None:
        for parameter, value in values.items():
            own_part(parameter).copy_(value)
        # After what is held, so that what is dead and held is zero.
        pairs = [words.in_words(parameter) for parameter, words in words_of.items()]
        for parameter, words in words_of.items():
            for level in stepped:
                for state in state_of(level, parameter).values():
                    if isinstance(state, Tensor) and state.shape == parameter.shape and state.ndim:
                        pairs.append(words.in_words(state))
        zero(pairs)
        for parameter, words in words_of.items() if dead == "frozen" else ():  # after state, which may share its memory
            words.thaw(parameter)

    def after(stepper: Stepper, guard: StepGuard | None) -> Callable[[Any], None]:
        """Settle what this optimizer holds: of what another trains, the backward pass may yet come, as in a GAN."""
        size, words_of, values = -1, {}, {}

        def settle_own(stepped: Any) -> None:
            nonlocal size, words_of, values
            if size != stepper.size:  # at the first step, and when parameters were added since
                size, holds = stepper.size, stepper.parameters
                words_of = {parameter: words for parameter, words in masked.items() if parameter in holds}
                values = {parameter: value for parameter, value in start.items() if parameter in holds}
            elif guard is not None:
                verdict = guard.verdict()
                if verdict == "look":
                    _warn_of_moved(words_of, mask, parameters)
                elif verdict == "untouched":
                    guard.stepped()
                    return
            settle(words_of, values, [stepped])
            if guard is not None:
                guard.settled(words_of, values)

        return settle_own

    def freeze() -> None:
        for parameter, words in masked.items() if dead == "frozen" else ():
            words.freeze(parameter)

    def follow(other: Mask) -> None:
        check_same(model, other.digest, "mask")
        reshard(model.modules())
        for parameter, kept in _kept_of(other, parameters).items():
            masked[parameter].keep(kept)
            if parameter.grad is not None:
                masked[parameter].zero_dead(parameter.grad)
        freeze()
        settle(masked, start, levels)

    def keep_dense(dense: bool) -> None:
        for words in masked.values():
            words.dense_gradients = dense

    def look_back() -> None:
        reshard(model.modules())
        present = set(model.parameters())
        if replaced := [name for name in mask if parameters[name] not in present]:
            warnings.warn(
                f"'{replaced[0]}' of the model is another parameter now than the mask was attached to, as after "
                "fully_shard or load_state_dict(assign=True), and its dead weights were not kept zero since; attach "
                "the mask after that",
                AttachWarning,
                stacklevel=4,
            )
        elif dead == "zero" and (moved := [name for name in mask if masked[parameters[name]].lives(parameters[name])]):
            warnings.warn(
                f"dead weights of '{moved[0]}' are not zero as the mask is detached: something moved them after the "
                "last step of the optimizers that were given, as another optimizer, a hook or load_state_dict; give "
                "all optimizers, and attach the mask after what else changes weights",
                AttachWarning,
                stacklevel=4,
            )

    freeze()
    settle(masked, start, levels)
    removers = [look_back, *(_on_gradient(parameter, words) for parameter, words in masked.items())]
    removers += [_on_gradient(parameter, _drop_gradient) for parameter in start]
    for stepper in steppers:
        guard = None
        if dead == "zero" and len(stepper.levels) == 1 and StepGuard.serves(stepper.levels[0], (*masked, *start)):
            guard = StepGuard(stepper.levels[0])
            removers += guard.removers
        removers += [after_each_step(level, after(stepper, guard)) for level in stepper.levels]
    for level in levels:
        # An optimizer makes its state in its first step, so that one without state is looked at after that.
        if any(state_of(level, parameter) for parameter in masked):
            _warn_of_factored_state(level, masked)
        else:
            removers.append(_after_first_step(level, lambda stepped: _warn_of_factored_state(stepped, masked, True)))
    return Handle(mask, follow, keep_dense, removers)


def _kept_of(mask: Mask, parameters: Mapping[str, nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """What a mask keeps of each parameter; of a tied one, what the mask keeps under each of its names."""
    kept: dict[nn.Parameter, Tensor] = {}
    for name in mask:
        parameter, positions = parameters[name], mask[name]
        kept[parameter] = kept[parameter] & positions if parameter in kept else positions
    return kept


def _on_gradient(parameter: nn.Parameter, hook: Callable[[Tensor], None]) -> Callable[[], None]:
    """Run a hook whenever the parameter's gradient is ready; of a frozen one, once it trains."""
    trains = parameter.requires_grad
    if not (trains or parameter.is_floating_point()):
        return lambda: None  # integers never have a gradient
    parameter.requires_grad_(True)  # torch takes no hook of what needs no gradient, and keeps it once it has it
    removable = parameter.register_post_accumulate_grad_hook(hook)
    parameter.requires_grad_(trains)
    return removable.remove


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _check_trainable(parameters: dict[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        if parameter.is_inference():
            raise TombolaError(f"'{name}' was made in inference mode, in which nothing can be trained; make it outside")
        hooks = gradient_hooks(parameter)
        foreign = [hook for hook in hooks if not isinstance(hook, KeptWords) and hook is not _drop_gradient]
        if foreign or steps_in_backward(parameter):
            raise TombolaError(
                f"'{name}' already has a hook that runs when its gradient is ready, as optimizers fused into backward "
                "have; attach the mask first, or step the optimizer after backward"
            )


def _check_steppers(
    steppers: Collection[Stepper], parameters: Mapping[str, nn.Parameter], covered: Collection[str]
) -> None:
    """Refuse an optimizer that has nothing to do with the mask, and name what no optimizer holds."""
    trained = {name for name in covered if parameters[name].requires_grad}
    somewhere: set[nn.Parameter] = set()
    for stepper in steppers:
        holds = stepper.parameters
        if holds.isdisjoint(parameters.values()):
            raise TombolaError(f"{stepper.called} holds none of this model's parameters; make it from its parameters()")
        if trained and holds.isdisjoint(parameters[name] for name in covered):
            raise TombolaError(
                f"{stepper.called} holds nothing that the mask covers, as '{min(trained)}'; give the one that trains "
                "it, and leave this one out"
            )
        somewhere |= holds
    unheld = [name for name in parameters if name in trained and parameters[name] not in somewhere]
    if steppers and unheld:
        which = f"'{unheld[0]}' is" if len(unheld) == 1 else f"'{unheld[0]}' and {len(unheld) - 1} more are"
        warnings.warn(
            f"{which} masked and in none of the given optimizers; another one that trains them can revive their dead "
            "weights, so give all optimizers, as [one, other]",
            AttachWarning,
            stacklevel=3,
        )


def _warn_of_moved(words_of: Words, mask: Mask, parameters: Mapping[str, nn.Parameter]) -> None:
    """Warn of weights that died and moved between two looks, which no optimizer that keeps zeros has done."""
    for name in mask:
        words = words_of.get(parameters[name])
        if words is not None and words.lives(parameters[name]):
            warnings.warn(
                f"dead weights of '{name}' were not zero any more: something wrote to its .data outside the optimizer; "
                "they are zero again, and for some steps they took part in training",
                AttachWarning,
                stacklevel=4,
            )


def _after_first_step(level: Any, action: Callable[[Any], None]) -> Callable[[], None]:
    """Call `action` once, after the optimizer's next step; returned is what takes that back."""
    due = [action]

    def once(stepped: Any) -> None:
        while due:
            due.pop()(stepped)

    return after_each_step(level, once)


def _warn_of_factored_state(level: Any, masked: Iterable[nn.Parameter], fresh: bool = False) -> None:
    """Warn of state with another shape than its parameter's.

    State that a step under the mask made (fresh) saw dead gradients as zero: only a smaller one, which mixes dead and
    live positions, is worth a warning.
    """
    for parameter in masked:
        for key, state in state_of(level, parameter).items():
            tensors = [t for t in (state if isinstance(state, list | tuple) else [state]) if isinstance(t, Tensor)]
            sizes = [t.numel() for t in tensors if t.numel() > 1 and t.shape != parameter.shape]
            if any(not fresh or size < parameter.numel() for size in sizes):
                warnings.warn(
                    f"the optimizer's '{key}' does not have its parameter's shape and is left as it is",
                    AttachWarning,
                    stacklevel=3,
                )
                return
