"""What `attach` gives: it changes the attached mask, and ends it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from tombola.errors import TombolaError
from tombola.tickets.mask import Mask


class Handle:
    """A mask attached to a model, as `attach` gives it.

    It is a context manager: its end, like `detach()`, removes every hook and leaves a plain module.

    Args:
        mask: the mask that is kept; afterwards the attribute that says which one it is.
        follow: changes the attached mask to another.
        keep_dense: whether gradients of dead weights are left as they are from here on.
        removers: each removes one hook.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from tombola import Mask, attach
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
        follow: Callable[[Mask], None],
        keep_dense: Callable[[bool], None],
        removers: list[Callable[[], None]],
    ) -> None:
        self.mask = mask
        self._follow = follow
        self._keep_dense = keep_dense
        self._removers = removers

    def exchange(self, mask: Mask) -> None:
        """Keep another mask of the same parameters from here on.

        What dies with it is zeroed at once: weights, gradients and optimizer state. What comes alive starts at zero.
        Where dead weights are frozen, both stay at their present values.

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
        self._keep_dense(True)
        try:
            yield
        finally:
            self._keep_dense(False)

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
