"""Trying many scalings of one layer's channels on the same batch, computing what comes before the layer only once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tombola.scores import Forward, Inputs, batch_size
from tombola.structure import Site, in_mode
from tombola.tickets import eager, modules_of, recomputable
from tombola.training import pick

AT_ONCE = 1024
"""Samples that go through the network together, at most: as many candidates as make them."""


class PrefixCache:
    """A network in evaluation mode whose channels are multiplied at some sites, candidate by candidate.

    A module that has finished before the first site returns its stored output and computes nothing. That holds for
    modules that are called once and give a tensor with one row for each sample.

    Args:
        model: the network.
        sites: where channels are multiplied.
        forward: how to call the model on inputs.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], forward: Forward) -> None:
        self._model, self._forward = model, forward
        modules = modules_of(model)
        self._sites = {modules[site.module]: site for site in sites}
        self._factors: Tensor | None = None

    @contextmanager
    def ready(self) -> Generator[PrefixCache]:
        """Hook the network, so that it can be tried inside; afterwards it is as it was."""
        with ExitStack() as hooks, torch.no_grad(), eager(), recomputable():
            for module, site in self._sites.items():
                if site.entering:
                    hooks.enter_context(module.register_forward_pre_hook(self._multiply_inputs))
                else:
                    hooks.enter_context(module.register_forward_hook(self._multiply_output))
            hooks.enter_context(in_mode(self._model, "eval"))
            yield self

    def call(self, inputs: Inputs, factors: Tensor | None = None) -> Any:
        """The network's outputs, with its channels multiplied by one factor for each unit; as they are without
        factors.
        """
        self._factors = None if factors is None else factors[None]
        return self._forward(self._model, inputs)

    def outputs(self, inputs: Inputs, candidates: Tensor) -> Generator[Any]:
        """The network's outputs for each row of factors (candidates, units), one after another."""
        size = batch_size((inputs, None))
        finished = self._outputs_before_sites(inputs)
        for chunk in candidates.split(max(1, AT_ONCE // size)):
            repeated = torch.arange(size).repeat(len(chunk))
            self._factors = chunk
            with _stored_outputs(finished, repeated):
                together = self._forward(self._model, pick(inputs, repeated))
            for index in range(len(chunk)):
                yield pick(together, slice(index * size, (index + 1) * size))

    def _multiply_inputs(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._factors is None:
            return args
        return self._sites[module].multiply(args[0], self._factors, module), *args[1:]

    def _multiply_output(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output if self._factors is None else self._sites[module].multiply(output, self._factors, module)

    def _outputs_before_sites(self, inputs: Inputs) -> dict[nn.Module, Tensor]:
        """The outputs of the outermost modules that finish before the first site is reached."""
        size, reached = batch_size((inputs, None)), False
        finished: dict[nn.Module, Tensor] = {}
        calls: Counter[nn.Module] = Counter()

        def begins(module: nn.Module, args: Any) -> None:
            nonlocal reached
            calls.update([module])
            reached |= module in self._sites and self._sites[module].entering

        def ends(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal reached
            if not reached and isinstance(output, Tensor) and output.ndim > 0 and len(output) == size:
                for inside in module.modules():
                    finished.pop(inside, None)
                finished[module] = output.clone()  # Cloned, since a later module may work in place.
            reached |= module in self._sites

        with ExitStack() as hooks:
            for module in self._model.modules():
                hooks.enter_context(module.register_forward_pre_hook(begins))
                hooks.enter_context(module.register_forward_hook(ends))
            self.call(inputs)
        return {module: output for module, output in finished.items() if calls[module] == 1}


@contextmanager
def _stored_outputs(finished: dict[nn.Module, Tensor], rows: Tensor) -> Generator[None]:
    """Inside, modules return rows of their stored outputs."""

    def returning(output: Tensor) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: output[rows.to(output.device)]

    # In the instance's __dict__, where something else, as a wrapper, may have put a forward of its own before.
    own_forwards = {module: module.__dict__.get("forward") for module in finished}
    for module, output in finished.items():
        module.forward = returning(output)
    try:
        yield
    finally:
        for module, forward in own_forwards.items():
            del module.forward
            if forward is not None:
                module.forward = forward
