"""Scores of residual blocks: by what the network gives without them, by their place, by chance."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores.evaluation import untouched
from tombola.scores.kinds import BlockScore, Data, Needs
from tombola.scores.types import Scores, forward, probe_of
from tombola.structure import Block, residual_blocks
from tombola.tickets import modules_of

Look = Callable[[Any], Tensor]
"""Calls a network on inputs and gives what a score compares."""


@dataclass(frozen=True)
class RandomBlocks(BlockScore):
    """A uniform random number for each residual block, from the seed, whatever its size."""

    name: ClassVar[str] = "random-blocks"

    def worths(self, model: nn.Module, data: Data) -> Scores:
        generator = torch.Generator().manual_seed(data.seed)
        return {block.name: torch.rand(1, generator=generator) for block in blocks_of(model, data)}


@dataclass(frozen=True)
class FrontToBack(BlockScore):
    """A block's place in the network: the first go first, the baseline that every criterion has to beat."""

    name: ClassVar[str] = "front-to-back"

    def worths(self, model: nn.Module, data: Data) -> Scores:
        return {block.name: torch.tensor([float(place)]) for place, block in enumerate(blocks_of(model, data))}


@dataclass(frozen=True)
class SilencedScore(BlockScore):
    """A score of each block that could go: how what is looked at changes when the block's branch gives zero."""

    batches: int = 4

    needs: ClassVar[Needs] = "data"

    def worths(self, model: nn.Module, data: Data) -> Scores:
        return silenced(model, data, self.looking(model), self.difference)

    def looking(self, model: nn.Module) -> Callable[[Any, Look], Tensor]:
        """What is looked at: a function of inputs and of the network that is called on them."""
        raise NotImplementedError

    def difference(self, whole: Tensor, without: Tensor) -> Tensor:
        """How far apart what is seen of the whole network and of that without a block are."""
        raise NotImplementedError


@dataclass(frozen=True)
class OutputDivergence(SilencedScore):
    """KL divergence of the network's outputs without a block from those with it (CURL, Luo & Wu, CVPR 2020)."""

    name: ClassVar[str] = "output-divergence"

    def looking(self, model: nn.Module) -> Callable[[Any, Look], Tensor]:
        return lambda inputs, network: F.log_softmax(network(inputs).float(), -1)

    def difference(self, whole: Tensor, without: Tensor) -> Tensor:
        return (without.exp() * (without - whole)).sum(-1).mean()


@dataclass(frozen=True)
class FeatureSimilarity(SilencedScore):
    """1 − linear CKA of the last linear layer's inputs with and without a block (Pons et al., ICPR 2024)."""

    name: ClassVar[str] = "feature-similarity"

    def looking(self, model: nn.Module) -> Callable[[Any, Look], Tensor]:
        heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not heads:
            raise TombolaError(f"the score '{self.name}' compares what enters the last linear layer, and there is none")

        def features(inputs: Any, network: Look) -> Tensor:
            seen: list[Tensor] = []
            with heads[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(1))):
                network(inputs)
            return seen[-1]

        return features

    def difference(self, whole: Tensor, without: Tensor) -> Tensor:
        return 1 - cka(whole, without)


def cka(one: Tensor, other: Tensor) -> Tensor:
    """Linear centred kernel alignment of two sets of features of the same samples (Kornblith et al., ICML 2019).

    one, other: (samples, features). 1 for features that are the same up to rotation and scale.

    Examples:
        >>> x = torch.randn(20, 5)
        >>> round(float(cka(x, 3 * x)), 6)
        1.0
    """
    grams = []
    for features in (one, other):
        centred = features.double() - features.double().mean(0)
        grams.append(centred @ centred.T)
    return (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm()).clamp(min=1e-30)


def blocks_of(model: nn.Module, data: Data) -> tuple[Block, ...]:
    """The network's residual blocks, found on the first batch where none declares itself; TombolaError for none."""
    blocks = residual_blocks(model, probe_of(data.batches, data.view.get("forward", forward)))
    if not blocks:
        raise TombolaError(
            "the network has no residual block, and so none to score: none says what it adds (branch), and none gives "
            "its input without a branch; use a score of weights or filters, or tb.structure.declare_blocks"
        )
    return blocks


def block_outputs(model: nn.Module, data: Data) -> dict[str, Tensor]:
    """What every residual block gives on some batches, sample by sample."""
    blocks = _modules(model, blocks_of(model, data))
    with untouched(model, mode="eval", **data.view) as network, torch.no_grad():
        seen = [_noted(blocks, lambda inputs=inputs: network(inputs))[1] for inputs, _ in data.batches]
    return {name: torch.cat([own[name] for own in seen]) for name in seen[0]}


def silenced(
    model: nn.Module,
    data: Data,
    look: Callable[[Any, Look], Tensor],
    compare: Callable[[Tensor, Tensor], Tensor],
) -> Scores:
    """How what a look gives changes when a block's branch gives zero, for every block that could go.

    What comes before that block is computed once: the passes without one of L blocks take about half of L passes.
    """
    found = blocks_of(model, data)
    blocks, free = _modules(model, found), [block.name for block in found if block.gives]
    whole: list[Tensor] = []
    without: dict[str, list[Tensor]] = {name: [] for name in free}
    with untouched(model, mode="eval", **data.view) as network, torch.no_grad():
        for inputs, _ in data.batches:
            seen, outputs = _noted(blocks, lambda inputs=inputs: look(inputs, network))
            whole.append(seen)
            order = list(outputs)
            for name in free:
                known = {own: outputs[own] for own in order[: order.index(name)]}
                with _replaced(blocks, known, name):
                    without[name].append(look(inputs, network))
    return {name: compare(torch.cat(whole), torch.cat(own)).reshape(1) for name, own in without.items()}


def _noted(blocks: Mapping[str, nn.Module], call: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """What a call gives, and what each block gave in it, in the order in which they were done."""
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in blocks.items():
            hooks.enter_context(
                module.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output.clone()))
            )
        return call(), outputs


@contextmanager
def _replaced(blocks: Mapping[str, nn.Module], known: Mapping[str, Tensor], passing: str) -> Generator[None]:
    """Blocks that give at once what is known of them, and one that gives what it is given."""
    own = {name: blocks[name].__dict__.get("forward") for name in (*known, passing)}
    try:
        for name, output in known.items():
            blocks[name].forward = lambda *_, output=output, **__: output
        blocks[passing].forward = lambda block_outputs, *_, **__: block_outputs
        yield
    finally:
        for name, forward in own.items():
            del blocks[name].forward
            if forward is not None:
                blocks[name].forward = forward


def _modules(model: nn.Module, blocks: tuple[Block, ...]) -> dict[str, nn.Module]:
    named = modules_of(model)
    return {block.name: named[block.name] for block in blocks}
