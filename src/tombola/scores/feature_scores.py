"""Scores of residual blocks and of filters by their outputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores.block_scores import block_sums
from tombola.scores.evaluation import check_real, untouched
from tombola.scores.kinds import Data, Kind, MeasuredScore, Needs
from tombola.scores.types import Scores
from tombola.structure import NORMS, is_producer
from tombola.tickets import joined, modules_of

Of = Literal["block", "filter"]
"""What is scored: residual blocks, or the filters and neurons of each layer."""


@dataclass(frozen=True)
class FeatureScore(MeasuredScore):
    """A score of the outputs of blocks, or of filters after the norm that follows them, after a ReLU.

    Args:
        batches: how many batches to read.
        of: score each residual block, or each filter and neuron.
    """

    batches: int = 4
    of: Of = "block"

    needs: ClassVar[Needs] = "data"

    @property
    def kind(self) -> Kind:
        return "block" if self.of == "block" else "unit"

    def worths(self, model: nn.Module, data: Data) -> Scores:
        if self.of == "block":
            return self.block_scores(block_sums(model, data), data)
        return self.filter_scores(filter_summaries(model, data, self.summary), data)

    def summary(self, features: Tensor) -> Tensor | None:
        """Reduce features (samples, filters, …) to (samples, filters, numbers); None leaves the layer out."""
        raise NotImplementedError

    def filter_scores(self, summaries: Mapping[str, Tensor], data: Data) -> Scores:
        """One vector for each layer, a number for each filter, from the summaries of all batches."""
        raise NotImplementedError

    def block_scores(self, outputs: Mapping[str, Tensor], data: Data) -> Scores:
        """One number for each block from its outputs on all batches, before a ReLU that ends it."""
        raise NotImplementedError


@dataclass(frozen=True)
class ExpectedActivation(FeatureScore):
    """The mean output of a block, or filter, after a ReLU (expectABS: DropNet, Tan & Motani, ICML 2020).

    Args:
        batches: how many batches to read.
        of: score each residual block, or each filter and neuron.

    Examples:
        >>> model, batch = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()), (torch.randn(2, 1, 8, 8), None)
        >>> ExpectedActivation(of="filter")(model, [batch])["0.weight"].shape
        torch.Size([3])
    """

    name: ClassVar[str] = "expected-activation"

    def summary(self, features: Tensor) -> Tensor:
        return _rows(features).mean(2, keepdim=True)

    def filter_scores(self, summaries: Mapping[str, Tensor], data: Data) -> Scores:
        return {name: means.mean((0, 2)) for name, means in summaries.items()}

    def block_scores(self, outputs: Mapping[str, Tensor], data: Data) -> Scores:
        return {name: output.relu().mean().reshape(1) for name, output in outputs.items()}


@dataclass(frozen=True)
class FeatureRank(FeatureScore):
    """The mean rank of a block's or filter's maps after a ReLU, over their longer side (HRank, Lin et al., CVPR 2020).

    For networks on images. Layers without feature maps get no scores; a block without them raises TombolaError.

    Args:
        batches: how many batches to read.
        of: score each residual block, or each filter.
    """

    batches: int = 1

    name: ClassVar[str] = "feature-rank"

    def summary(self, features: Tensor) -> Tensor | None:
        return _ranks(features).unsqueeze(2) if features.ndim == 4 else None

    def filter_scores(self, summaries: Mapping[str, Tensor], data: Data) -> Scores:
        if not summaries:
            raise TombolaError("no layer gives feature maps, whose rank could be taken; use another score")
        return {name: ranks.mean((0, 2)) for name, ranks in summaries.items()}

    def block_scores(self, outputs: Mapping[str, Tensor], data: Data) -> Scores:
        flat = next((name for name, output in outputs.items() if output.ndim != 4), None)
        if flat is not None:
            raise TombolaError(f"block '{flat}' gives no feature maps, whose rank could be taken; use another score")
        return {name: _ranks(output.relu()).mean().reshape(1) for name, output in outputs.items()}


@dataclass(frozen=True)
class ProjectedImportance(FeatureScore):
    """The mean importance (VIP) of a block's, or filter's, outputs in a partial least squares fit of the classes.

    Jordao, Lie, Schwartz, Discriminative Layer Pruning, IEEE JSTSP 2020. The features are averages over 8×8 fields: of
    a block those of what its addition gives, before a ReLU. Each block or layer has its own fit. For networks on images
    with class numbers as targets.

    Args:
        batches: how many batches to read.
        of: score each residual block, or each filter and neuron.
        components: of the partial least squares fit.
    """

    components: int = 2

    name: ClassVar[str] = "projected-importance"

    def summary(self, features: Tensor) -> Tensor:
        return _fields(features)

    def filter_scores(self, summaries: Mapping[str, Tensor], data: Data) -> Scores:
        classes = self._classes(data)
        odd = next((name for name, fields in summaries.items() if len(fields) != len(classes)), None)
        if odd is not None:
            raise TombolaError(
                f"'{odd}' gives {len(summaries[odd])} rows of features for {len(classes)} samples, which the score "
                f"'{self.name}' cannot tell apart; leave it out: Prunable(exclude=('{odd}',))"
            )
        return {name: self._filter_importances(fields, classes) for name, fields in summaries.items()}

    def block_scores(self, outputs: Mapping[str, Tensor], data: Data) -> Scores:
        classes = self._classes(data)
        return {
            name: importances(_fields(output).flatten(1), classes, self.components).mean().reshape(1)
            for name, output in outputs.items()
        }

    def _classes(self, data: Data) -> Tensor:
        """The targets of all batches, one-hot. Raises TombolaError if they are no class numbers."""
        targets = torch.cat([batch[1] for batch in data.batches])
        if targets.is_floating_point() or targets.ndim != 1:
            raise TombolaError(f"the score '{self.name}' is for class numbers; use another one for these targets")
        return F.one_hot(targets).double()

    def _filter_importances(self, fields: Tensor, classes: Tensor) -> Tensor:
        """The mean VIP of each filter's fields (samples, filters, fields); 0 for fields that do not vary."""
        features = fields.flatten(1)
        vip = torch.zeros(features.shape[1], dtype=torch.float64)
        vip[features.std(0).cpu() > 0] = importances(features, classes, self.components).double()
        return vip.reshape(fields.shape[1:]).mean(1)


def importances(features: Tensor, classes: Tensor, components: int) -> Tensor:
    """The importance (VIP: variable importance in projection) of features in a partial least squares fit of classes.

    Args:
        features: (samples, features).
        classes: (samples, classes), one-hot.
        components: of the fit; fewer if there are fewer features or samples.

    Returns:
        One number for each feature that varies; their mean square is 1. A single 0 if none varies.

    Examples:
        >>> informative, constant = torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.ones(4, 1)
        >>> importances(torch.cat([informative, constant], 1), F.one_hot(torch.tensor([0, 0, 1, 1])), 2)
        tensor([1.], dtype=torch.float64)
    """
    from sklearn.cross_decomposition import PLSRegression

    varying = features[:, features.std(0) > 0].double().cpu().numpy()
    if not varying.shape[1]:
        return torch.zeros(1)
    fit = PLSRegression(min(components, varying.shape[1], len(varying) - 1)).fit(varying, classes.cpu().numpy())
    explained = (fit.x_scores_**2).sum(0) * (fit.y_loadings_**2).sum(0)
    weights = fit.x_weights_**2 / (fit.x_weights_**2).sum(0)
    return torch.from_numpy((varying.shape[1] * (weights @ explained) / explained.sum()) ** 0.5)


def filter_summaries(model: nn.Module, data: Data, summary: Callable[[Tensor], Tensor | None]) -> dict[str, Tensor]:
    """Summaries of the filters' outputs in every prunable layer, after the norm that follows the layer and a ReLU.

    Args:
        model: the network.
        data: the batches.
        summary: from features (samples, filters, …) to (samples, filters, numbers); None leaves the layer out.

    Returns:
        By the name of the layer's weight, (samples, filters, numbers) over all batches. If a layer is called several
        times, the numbers of its calls stand one after another.
    """
    batches = list(data.batches)
    with untouched(model, mode="eval", **data.view) as network, torch.no_grad():
        check_real(network.weights, f"the score '{data.score}'")
        layers = {name: layer for name, layer in _layers(model).items() if name in network.weights}
        # A first pass shows which layers a norm follows: only there the layer's own output does not count.
        with_norm: set[str] = set()
        with _watched(model, layers, lambda *_: None, lambda name, _: with_norm.add(name)):
            network(batches[0][0])
        summaries: list[dict[str, list[Tensor]]] = []

        def add(name: str, output: Tensor) -> None:
            features = output.movedim(-1, 1) if isinstance(layers[name], nn.Linear) else output
            if (numbers := summary(features.relu())) is not None:
                summaries[-1].setdefault(name, []).append(numbers)

        def add_without_norm(name: str, output: Tensor) -> None:
            if name not in with_norm:
                add(name, output)

        for inputs, _ in batches:
            summaries.append({})
            with _watched(model, layers, add_without_norm, add):
                network(inputs)
    return {
        name: torch.cat([torch.cat(by_layer[name], 2) for by_layer in summaries])
        for name in layers
        if name in summaries[0]
    }


@contextmanager
def _watched(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    on_layer: Callable[[str, Tensor], None],
    on_norm: Callable[[str, Tensor], None],
) -> Generator[None]:
    """Inside, calls `on_layer` with each layer's output, and `on_norm` with that of a norm whose input is that output.

    Both get the name of the layer.
    """
    # Weak, so that a layer's output is freed as early as without the hooks.
    latest: dict[str, weakref.ref[Tensor]] = {}

    def after_layer(name: str, output: Tensor) -> None:
        latest[name] = weakref.ref(output)
        on_layer(name, output)

    def after_norm(_: nn.Module, args: Any, output: Tensor) -> None:
        for name, layer_output in latest.items():
            if args and layer_output() is args[0]:
                on_norm(name, output)

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(lambda _, __, output, name=name: after_layer(name, output)))
        for module in model.modules():
            if isinstance(module, NORMS):
                hooks.enter_context(module.register_forward_hook(after_norm))
        yield


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by the names of their weights."""
    return {joined(name, "weight"): module for name, module in modules_of(model).items() if is_producer(module)}


def _rows(features: Tensor) -> Tensor:
    """(samples, channels, …) as (samples, channels, numbers)."""
    return features.reshape(*features.shape[:2], -1)


def _ranks(maps: Tensor) -> Tensor:
    """The rank of each map of (samples, channels, height, width), divided by its longer side."""
    return torch.linalg.matrix_rank(maps).float() / max(maps.shape[2:])


def _fields(features: Tensor) -> Tensor:
    """Averages over fields of 8×8, or smaller where a map is smaller: (samples, channels, fields)."""
    if features.ndim == 4:
        features = F.avg_pool2d(features, [min(8, side) for side in features.shape[2:]])
    return _rows(features)
