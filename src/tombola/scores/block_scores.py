"""Scores of residual blocks: by the network's outputs without them, by their place, by chance."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tombola.errors import TombolaError
from tombola.scores.evaluation import untouched
from tombola.scores.kinds import BlockScore, Data, Needs
from tombola.scores.types import Scores, forward, probe_of
from tombola.structure import Block, residual_blocks
from tombola.tickets import modules_of

Network = Callable[[Any], Any]
"""Calls a network on inputs."""

RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)

Reader = Callable[[Any, Network], Tensor]
"""Calls a network on inputs, and returns the features (samples, numbers) that a score compares."""


@dataclass(frozen=True)
class RandomBlocks(BlockScore):
    """A uniform random number for each residual block, from the view's seed, whatever the block's size.

    Examples:
        >>> from tombola import zoo
        >>> list(RandomBlocks()(zoo.model("resnet18", (3, 8, 8), 5, width=0.25)(), seed=1))[:2]
        ['layer1.0', 'layer1.1']
    """

    name: ClassVar[str] = "random-blocks"

    def worths(self, model: nn.Module, data: Data) -> Scores:
        generator = torch.Generator().manual_seed(data.seed)
        return {block.name: torch.rand(1, generator=generator) for block in blocks_of(model, data)}


@dataclass(frozen=True)
class FrontToBack(BlockScore):
    """A block's place in the network: the first blocks go first. A baseline that every other score has to beat.

    Examples:
        >>> from tombola import zoo
        >>> list(FrontToBack()(zoo.model("resnet18", (3, 8, 8), 5, width=0.25)()).values())[:2]
        [tensor([0.]), tensor([1.])]
    """

    name: ClassVar[str] = "front-to-back"

    def worths(self, model: nn.Module, data: Data) -> Scores:
        return {block.name: torch.tensor([float(place)]) for place, block in enumerate(blocks_of(model, data))}


@dataclass(frozen=True)
class SilencedScore(BlockScore):
    """A score of each removable block: how much features of the network change when the block's branch gives zero.

    Args:
        batches: how many batches to read.
    """

    batches: int = 4

    needs: ClassVar[Needs] = "data"

    def worths(self, model: nn.Module, data: Data) -> Scores:
        return silenced_block_scores(model, data, self.reader(model), self.distance)

    def reader(self, model: nn.Module) -> Reader:
        """The function that reads the features to compare."""
        raise NotImplementedError

    def distance(self, intact: Tensor, silenced: Tensor) -> Tensor:
        """One number: the distance of the network's features with a silenced block from those of the intact network."""
        raise NotImplementedError


@dataclass(frozen=True)
class OutputDivergence(SilencedScore):
    """KL divergence of the network's outputs without a block from those with it (CURL, Luo & Wu, CVPR 2020).

    Args:
        batches: how many batches to read.
    """

    name: ClassVar[str] = "output-divergence"

    def reader(self, model: nn.Module) -> Reader:
        return lambda inputs, network: F.log_softmax(network(inputs).float(), -1)

    def distance(self, intact: Tensor, silenced: Tensor) -> Tensor:
        return (silenced.exp() * (silenced - intact)).sum(-1).mean()


@dataclass(frozen=True)
class FeatureSimilarity(SilencedScore):
    """1 − linear CKA of the last linear layer's inputs with and without a block (Pons et al., ICPR 2024).

    Args:
        batches: how many batches to read.
    """

    name: ClassVar[str] = "feature-similarity"

    def reader(self, model: nn.Module) -> Reader:
        heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not heads:
            raise TombolaError(
                f"the score '{self.name}' compares the inputs of the last linear layer, and the network has no linear "
                "layer; use output-divergence"
            )

        def head_inputs(inputs: Any, network: Network) -> Tensor:
            calls: list[Tensor] = []
            with heads[-1].register_forward_pre_hook(lambda _, args: calls.append(args[0].flatten(1))):
                network(inputs)
            return calls[-1]

        return head_inputs

    def distance(self, intact: Tensor, silenced: Tensor) -> Tensor:
        return 1 - cka(intact, silenced)


def cka(one: Tensor, other: Tensor) -> Tensor:
    """Linear centred kernel alignment of two sets of features (Kornblith et al., ICML 2019).

    Args:
        one: (samples, features).
        other: (the same samples, any number of features).

    Returns:
        A number in [0, 1]; 1 for features that are the same up to rotation and scale.

    Examples:
        >>> x = torch.randn(20, 5)
        >>> round(float(cka(x, 3 * x)), 6)
        1.0
    """
    grams = []
    for features in (one, other):
        # In float64: the differences of similar features are small.
        centred = features.double() - features.double().mean(0)
        grams.append(centred @ centred.T)
    return (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm()).clamp(min=1e-30)


def blocks_of(model: nn.Module, data: Data) -> tuple[Block, ...]:
    """The residual blocks, found on the first batch if none declares itself. Raises TombolaError if there is none."""
    blocks = residual_blocks(model, probe_of(data.batches, data.view.get("forward", forward)))
    if not blocks:
        raise TombolaError(
            "the network has no residual block to score: no module declares a branch, and none adds one to its input; "
            "use a score of weights or filters, or declare blocks with tb.structure.declare_blocks"
        )
    return blocks


def block_sums(model: nn.Module, data: Data) -> dict[str, Tensor]:
    """What every residual block's addition gives on all batches, by the block's name; the first dimension is samples.

    This is the block's output, or what a ReLU that ends the block gets.
    """
    blocks = _modules(model, blocks_of(model, data))
    with untouched(model, mode="eval", **data.view) as network, torch.no_grad(), BeforeRelu() as before_relu:
        by_batch = [
            _with_block_outputs(blocks, lambda inputs=inputs: network(inputs), before_relu.of)[1]
            for inputs, _ in data.batches
        ]
    return {name: torch.cat([outputs[name] for outputs in by_batch]) for name in by_batch[0]}


class BeforeRelu(TorchFunctionMode):
    """Inside, notes what the last ReLU got."""

    def __init__(self) -> None:
        super().__init__()
        self._given: Tensor | None = None
        self._gave: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in RELUS:
            return func(*args, **(kwargs or {}))
        given = (args or tuple((kwargs or {}).values()))[0].clone()  # It may be changed in place.
        self._gave = func(*args, **(kwargs or {}))
        self._given = given
        return self._gave

    def of(self, output: Tensor) -> Tensor:
        """What the ReLU got that gave this very tensor; the tensor itself if none did."""
        return self._given if self._given is not None and self._gave is output else output.clone()


def silenced_block_scores(
    model: nn.Module, data: Data, read: Reader, distance: Callable[[Tensor, Tensor], Tensor]
) -> Scores:
    """How much features change when a block's branch gives zero, for every removable block.

    Blocks before the silenced one return their known outputs, so that L blocks take the time of about L/2 passes.

    Args:
        model: the network.
        data: the batches.
        read: reads the features of a batch.
        distance: compares the features of all batches of the intact network with those after silencing.

    Returns:
        One number for each removable block, by its name.
    """
    all_blocks = blocks_of(model, data)
    blocks, removable = _modules(model, all_blocks), [block.name for block in all_blocks if block.gives]
    intact: list[Tensor] = []
    silenced: dict[str, list[Tensor]] = {name: [] for name in removable}
    with untouched(model, mode="eval", **data.view) as network, torch.no_grad():
        for inputs, _ in data.batches:
            features, outputs = _with_block_outputs(blocks, lambda inputs=inputs: read(inputs, network))
            intact.append(features)
            order = list(outputs)
            for name in removable:
                earlier = {before: outputs[before] for before in order[: order.index(name)]}
                with _replaced(blocks, earlier, name):
                    silenced[name].append(read(inputs, network))
    return {name: distance(torch.cat(intact), torch.cat(parts)).reshape(1) for name, parts in silenced.items()}


def _with_block_outputs(
    blocks: Mapping[str, nn.Module], call: Callable[[], Tensor], seen: Callable[[Tensor], Tensor] = torch.clone
) -> tuple[Tensor, dict[str, Tensor]]:
    """The result of a call, and of each block in it what is seen of its output, in the order in which blocks ran."""
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in blocks.items():
            # A copy: a layer after the block may change its output in place.
            hooks.enter_context(
                module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: seen(output)}))
            )
        return call(), outputs


@contextmanager
def _replaced(blocks: Mapping[str, nn.Module], outputs: Mapping[str, Tensor], silenced: str) -> Generator[None]:
    """Inside, the blocks with known outputs return these, and the silenced block returns its input."""
    # A `forward` in the instance hides that of the class. A user may have set one there, which has to come back.
    originals = {name: blocks[name].__dict__.get("forward") for name in (*outputs, silenced)}
    try:
        for name, output in outputs.items():
            blocks[name].forward = lambda *_, output=output, **__: output
        blocks[silenced].forward = lambda inputs, *_, **__: inputs
        yield
    finally:
        for name, original in originals.items():
            del blocks[name].forward
            if original is not None:
                blocks[name].forward = original


def _modules(model: nn.Module, blocks: tuple[Block, ...]) -> dict[str, nn.Module]:
    modules = modules_of(model)
    return {block.name: modules[block.name] for block in blocks}
