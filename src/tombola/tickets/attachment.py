"""Keeping dead weights dead while anybody's loop trains the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import TombolaError
from tombola.tickets.mask import Mask
from tombola.tickets.sharding import check_not_flat, check_same, layout_of, own_part, part_like, reshard
from tombola.tickets.tensor_names import parameters_of
from tombola.tickets.tensors import check_fits
from tombola.tickets.ticket import Ticket
from tombola.tickets.torch_private import gradient_hooks, steps_in_backward

WORD_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class AttachWarning(UserWarning):
    """A mask cannot follow some of the optimizer's state, which was left as it is."""


class KeptWords:
    """One parameter's mask as machine words: all bits 1 where a position is kept, all 0 where it is dead.

    A bitwise AND with them assigns +0.0 to what is dead, NaN and −0.0 included, at the speed of a multiplication. An
    instance is also the hook that does so to its parameter's gradient.

    Args:
        kept: True = kept, of the parameter's shape.
    """

    def __init__(self, kept: Tensor) -> None:
        self.keep(kept)
        self.dense_gradients = False

    def keep(self, kept: Tensor) -> None:
        """Follow this mask from here on: True = kept."""
        self.kept = kept
        self._words: dict[tuple[Any, ...], Tensor] = {}

    def zero_dead(self, tensor: Tensor) -> None:
        """Write 0.0 to each dead position of a real tensor of the parameter's shape."""
        part = own_part(tensor)
        key = (part.dtype, part.device, part.stride(), layout_of(tensor))
        words = self._words.get(key)
        if words is None:  # of the tensor's own layout, so that the AND runs over contiguous memory
            words = torch.empty_like(part, dtype=WORD_TYPES[part.element_size()], requires_grad=False)
            self._words[key] = words.copy_(part_like(self.kept, tensor)).neg_()  # −1 is the word whose bits are all 1
        part.view(words.dtype).bitwise_and_(words)

    def __call__(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        if gradient.layout != torch.strided:
            raise TombolaError("a masked parameter got a sparse gradient; make its layer with sparse=False")
        if not self.dense_gradients:
            self.zero_dead(gradient)


class Handle:
    """A mask attached to a model, as `attach` gives it.

    It is a context manager: its end, like `detach()`, removes every hook and leaves a plain module.

    Args:
        mask: the mask that is kept; afterwards the attribute that says which one it is.
        masked: by parameter what zeroes its dead positions.
        follow: changes the attached mask to another.
        removers: each removes one hook.

    Examples:
        >>> model = nn.Linear(2, 1)
        >>> handle = attach(Mask.of({"weight": torch.tensor([[True, False]])}), model)
        >>> handle.exchange(Mask.of({"weight": torch.tensor([[False, True]])}))
        >>> (model.weight != 0).any().item()  # the first weight died now, the second starts from 0
        False
        >>> handle.detach()
    """

    def __init__(
        self,
        mask: Mask,
        masked: Mapping[nn.Parameter, KeptWords],
        follow: Callable[[Mask], None],
        removers: list[Callable[[], None]],
    ) -> None:
        self.mask = mask
        self._masked = masked
        self._follow = follow
        self._removers = removers

    def exchange(self, mask: Mask) -> None:
        """Keep another mask of the same parameters from here on.

        What dies with it is zeroed at once: weights, gradients and optimizer state. What comes alive starts at zero.

        Args:
            mask: covers the same parameters as the mask before.

        Raises:
            TombolaError: if it covers other parameters.
        """
        if mask.shapes != self.mask.shapes:
            raise TombolaError("the new mask covers other parameters; exchange the attached mask for one of its shapes")
        self._follow(mask)
        self.mask = mask

    @contextmanager
    def dense_gradients(self) -> Generator[None]:
        """Inside, backward keeps the gradients of dead weights too, for a method that looks where to grow."""
        for words in self._masked.values():
            words.dense_gradients = True
        try:
            yield
        finally:
            for words in self._masked.values():
                words.dense_gradients = False

    def also(self, remover: Callable[[], None]) -> None:
        """Call `remover`, too, when the mask is detached."""
        self._removers.append(remover)

    def detach(self) -> None:
        """Remove every hook; the weights stay as they are."""
        while self._removers:
            self._removers.pop()()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.detach()


def attach(what: Mask | Ticket, model: nn.Module, optimizer: Optimizer | None = None) -> Handle:
    """Keep a mask's dead weights exactly zero, and a ticket's held parameters where they are, while you train.

    Dead weights and their optimizer state become zero at once. Dead gradients become zero as soon as they are
    accumulated, so that clipping, closures and double-step optimizers see the sparse problem. After each
    `optimizer.step`, weights and every state tensor of the parameter's shape are zeroed again. Held parameters keep the
    values that they have when the ticket is attached; a position that is both dead and held is zero. The model's class,
    parameters and state_dict keys stay the same.

    Args:
        what: the mask, or the ticket whose mask and held parameters are kept.
        model: the network that the mask was made for, however wrapped or spread over processes (DDP, FSDP2,
            torch.compile); changed in place. Distribute it first: each process then keeps its part of the mask.
        optimizer: what trains it. Without one, only gradients are zeroed while you train, so that momentum from before
            and weight decay can move dead weights.

    Returns:
        A handle to detach with, which is also a context manager.

    Raises:
        TombolaError: if the model is another architecture or is wrapped in FSDP of the first kind, if the processes
            that train it were given different masks, or if the optimizer runs inside backward or holds none of the
            model's parameters.

    Examples:
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
    check_not_flat(model)
    check_same(model, f"{mask.digest} {held}", "mask")
    parameters = parameters_of(model, remove_duplicate=False)
    check_fits(mask, parameters)
    _refuse_unfit(parameters, optimizer)
    masked = {parameter: KeptWords(kept) for parameter, kept in _kept_of(mask, parameters).items()}
    if missing := [name for name in held if name not in parameters]:
        raise TombolaError(
            f"the ticket holds '{missing[0]}', which this model does not have; use the model it was found on"
        )
    frozen = {parameters[name]: own_part(parameters[name]).clone() for name in held}

    def guard(stepped: Optimizer | None = None, *_: object) -> None:
        states = stepped.state if stepped is not None else {}
        for parameter, value in frozen.items():
            own_part(parameter).copy_(value)
        for parameter, words in masked.items():  # after what is held, so that what is dead and held is zero
            words.zero_dead(parameter)
            for state in states.get(parameter, {}).values():
                if isinstance(state, Tensor) and state.shape == parameter.shape and state.ndim:
                    words.zero_dead(state)

    def follow(other: Mask) -> None:
        check_same(model, other.digest, "mask")
        reshard(model)
        for parameter, kept in _kept_of(other, parameters).items():
            masked[parameter].keep(kept)
            if parameter.grad is not None:
                masked[parameter].zero_dead(parameter.grad)
        guard(optimizer)

    guard(optimizer)
    removers = [
        parameter.register_post_accumulate_grad_hook(words).remove
        for parameter, words in masked.items()
        if parameter.requires_grad
    ]
    removers += [p.register_post_accumulate_grad_hook(_drop_gradient).remove for p in frozen if p.requires_grad]
    if optimizer is not None:
        removers.append(optimizer.register_step_post_hook(guard).remove)
        # An optimizer makes its state in its first step, so that one without state is looked at after that.
        if any(optimizer.state.get(parameter) for parameter in masked):
            _warn_of_factored_state(optimizer, masked)
        else:
            removers.append(
                _after_first_step(optimizer, lambda: _warn_of_factored_state(optimizer, masked, fresh=True))
            )
    return Handle(mask, masked, follow, removers)


def _kept_of(mask: Mask, parameters: Mapping[str, nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """What a mask keeps of each parameter; of a tied one, what the mask keeps under each of its names."""
    kept: dict[nn.Parameter, Tensor] = {}
    for name in mask:
        parameter, positions = parameters[name], mask[name]
        kept[parameter] = kept[parameter] & positions if parameter in kept else positions
    return kept


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _refuse_unfit(parameters: dict[str, nn.Parameter], optimizer: Optimizer | None) -> None:
    for name, parameter in parameters.items():
        hooks = gradient_hooks(parameter)
        foreign = [hook for hook in hooks if not isinstance(hook, KeptWords) and hook is not _drop_gradient]
        if foreign or steps_in_backward(parameter):
            raise TombolaError(
                f"'{name}' already has a hook that runs when its gradient is ready, as optimizers fused into backward "
                "have; attach the mask first, or step the optimizer after backward"
            )
    if optimizer is not None:
        in_model = set(parameters.values())
        if not any(p in in_model for group in optimizer.param_groups for p in group["params"]):
            raise TombolaError("the optimizer holds none of this model's parameters; make it from model.parameters()")


def _after_first_step(optimizer: Optimizer, action: Callable[[], None]) -> Callable[[], None]:
    """Call `action` once, after the optimizer's next step; returned is what takes that back."""
    due = [action]

    def once(*_: object) -> None:
        while due:
            due.pop()()

    return optimizer.register_step_post_hook(once).remove


def _warn_of_factored_state(
    optimizer: Optimizer, masked: dict[nn.Parameter, KeptWords], *, fresh: bool = False
) -> None:
    """Warn of state with another shape than its parameter's.

    State that a step under the mask made (fresh) saw dead gradients as zero: only a smaller one, which mixes dead and
    live positions, is worth a warning.
    """
    for parameter in masked:
        for key, state in optimizer.state.get(parameter, {}).items():
            tensors = [t for t in (state if isinstance(state, list | tuple) else [state]) if isinstance(t, Tensor)]
            sizes = [t.numel() for t in tensors if t.numel() > 1 and t.shape != parameter.shape]
            if any(not fresh or size < parameter.numel() for size in sizes):
                warnings.warn(
                    f"the optimizer's '{key}' does not have its parameter's shape and is left as it is",
                    AttachWarning,
                    stacklevel=3,
                )
                return
