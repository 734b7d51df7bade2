"""Scores of residual blocks and of filters by what they give."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores.block_scores import block_outputs
from tombola.scores.evaluation import untouched
from tombola.scores.kinds import Data, Kind, MeasuredScore, Needs
from tombola.scores.types import Batches, Loss, Scores, View
from tombola.structure import NORMS, is_producer
from tombola.tickets import joined, modules_of

Of = Literal["block", "filter"]
"""What is scored: residual blocks, or the filters and neurons of each layer."""


@dataclass(frozen=True)
class FeatureScore(MeasuredScore):
    """A score of what blocks give, or filters after the norm that follows them, after a ReLU.

    batches: how many are looked at. of: what is scored.
    """

    batches: int = 4
    of: Of = "block"

    needs: ClassVar[Needs] = "data"

    @property
    def kind(self) -> Kind:
        return "block" if self.of == "block" else "unit"

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        data = self.data(batches, loss, view)
        if self.of == "block":
            return self.of_blocks(block_outputs(model, data), data)
        return self.of_filters(given_by_filters(model, data, self.noted), data)

    def noted(self, features: Tensor) -> Tensor | None:
        """What is kept of features (samples, filters, …), as (samples, filters, numbers); None leaves them out."""
        raise NotImplementedError

    def of_filters(self, seen: Mapping[str, Tensor], data: Data) -> Scores:
        """One number a filter from what was kept of each layer."""
        raise NotImplementedError

    def of_blocks(self, outputs: Mapping[str, Tensor], data: Data) -> Scores:
        """One number a block from what it gives."""
        raise NotImplementedError


@dataclass(frozen=True)
class ExpectedActivation(FeatureScore):
    """The mean of what a block, or filter, gives, after a ReLU (expectABS: DropNet, Tan & Motani, ICML 2020)."""

    name: ClassVar[str] = "expected-activation"

    def noted(self, features: Tensor) -> Tensor:
        return _rows(features).mean(2, keepdim=True)

    def of_filters(self, seen: Mapping[str, Tensor], data: Data) -> Scores:
        return {name: own.mean((0, 2)) for name, own in seen.items()}

    def of_blocks(self, outputs: Mapping[str, Tensor], data: Data) -> Scores:
        return {name: own.relu().mean().reshape(1) for name, own in outputs.items()}


@dataclass(frozen=True)
class FeatureRank(FeatureScore):
    """The mean rank of a block's or filter's maps after a ReLU, over their longer side (HRank, Lin et al., CVPR 2020).

    For networks on images: TombolaError where a block does not give maps. Layers that do not give maps have no scores.
    """

    batches: int = 1

    name: ClassVar[str] = "feature-rank"

    def noted(self, features: Tensor) -> Tensor | None:
        return _ranks(features).unsqueeze(2) if features.ndim == 4 else None

    def of_filters(self, seen: Mapping[str, Tensor], data: Data) -> Scores:
        if not seen:
            raise TombolaError("no layer gives maps of features, whose rank could be taken; use another score")
        return {name: own.mean((0, 2)) for name, own in seen.items()}

    def of_blocks(self, outputs: Mapping[str, Tensor], data: Data) -> Scores:
        odd = next((name for name, own in outputs.items() if own.ndim != 4), None)
        if odd is not None:
            raise TombolaError(f"block '{odd}' gives no maps of features, whose rank could be taken; use another score")
        return {name: _ranks(own.relu()).mean().reshape(1) for name, own in outputs.items()}


@dataclass(frozen=True)
class ProjectedImportance(FeatureScore):
    """The mean VIP of what a block, or filter, gives, over 8×8 fields, in a partial least squares fit of the targets.

    A fit a block, or a layer. Jordao, Lie, Schwartz, Discriminative Layer Pruning, IEEE JSTSP 2020. For networks on
    images, and class numbers.
    """

    components: int = 2

    name: ClassVar[str] = "projected-importance"

    def noted(self, features: Tensor) -> Tensor:
        return _fields(features)

    def of_filters(self, seen: Mapping[str, Tensor], data: Data) -> Scores:
        classes = self._classes(data)
        odd = next((name for name, own in seen.items() if len(own) != len(classes)), None)
        if odd is not None:
            raise TombolaError(
                f"'{odd}' gives {len(seen[odd])} rows of features for {len(classes)} samples, which the score "
                f"'{self.name}' cannot tell apart; leave it out: Prunable(exclude=('{odd}',))"
            )
        return {name: self._worths(own, classes) for name, own in seen.items()}

    def of_blocks(self, outputs: Mapping[str, Tensor], data: Data) -> Scores:
        classes = self._classes(data)
        return {
            name: importances(_fields(own).flatten(1), classes, self.components).mean().reshape(1)
            for name, own in outputs.items()
        }

    def _classes(self, data: Data) -> Tensor:
        """The targets, one-hot; TombolaError where they are no class numbers."""
        targets = torch.cat([batch[1] for batch in data.batches])
        if targets.is_floating_point() or targets.ndim != 1:
            raise TombolaError(f"the score '{self.name}' is for class numbers; use another one for these targets")
        return F.one_hot(targets).double()

    def _worths(self, fields: Tensor, classes: Tensor) -> Tensor:
        """The mean VIP of each filter's fields (samples, filters, fields); what does not vary is worth nothing."""
        features = fields.flatten(1)
        found = torch.zeros(features.shape[1], dtype=torch.float64)
        found[features.std(0).cpu() > 0] = importances(features, classes, self.components).double()
        return found.reshape(fields.shape[1:]).mean(1)


def importances(features: Tensor, classes: Tensor, components: int) -> Tensor:
    """VIP of the features that vary in a partial least squares fit of the classes; their mean square is 1.

    features: (samples, features); classes: (samples, classes), one-hot. 0 if nothing varies.
    """
    from sklearn.cross_decomposition import PLSRegression

    varying = features[:, features.std(0) > 0].double().cpu().numpy()
    if not varying.shape[1]:
        return torch.zeros(1)
    fitted = PLSRegression(min(components, varying.shape[1], len(varying) - 1)).fit(varying, classes.cpu().numpy())
    explained = (fitted.x_scores_**2).sum(0) * (fitted.y_loadings_**2).sum(0)
    weights = fitted.x_weights_**2 / (fitted.x_weights_**2).sum(0)
    return torch.from_numpy((varying.shape[1] * (weights @ explained) / explained.sum()) ** 0.5)


def given_by_filters(model: nn.Module, data: Data, summary: Callable[[Tensor], Tensor | None]) -> dict[str, Tensor]:
    """What the filters of every prunable layer give on some batches, by the name of the layer's weight.

    summary: of features (samples, filters, …) after the norm that follows the layer and a ReLU, to (samples, filters,
    numbers); None leaves the layer out. Of a layer that is called several times the numbers stand one after another.
    """
    taken = list(data.batches)
    with untouched(model, mode="eval", **data.view) as network, torch.no_grad():
        layers = {name: own for name, own in _layers(model).items() if name in network.weights}
        normed: set[str] = set()
        with _watched(model, layers, lambda *_: None, lambda name, _: normed.add(name)):
            network(taken[0][0])
        seen: list[dict[str, list[Tensor]]] = []

        def note(name: str, output: Tensor) -> None:
            features = output.movedim(-1, 1) if isinstance(layers[name], nn.Linear) else output
            if (own := summary(features.relu())) is not None:
                seen[-1].setdefault(name, []).append(own)

        def note_plain(name: str, output: Tensor) -> None:
            if name not in normed:
                note(name, output)

        for inputs, _ in taken:
            seen.append({})
            with _watched(model, layers, note_plain, note):
                network(inputs)
    return {name: torch.cat([torch.cat(own[name], 2) for own in seen]) for name in layers if name in seen[0]}


@contextmanager
def _watched(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    layer_gave: Callable[[str, Tensor], None],
    norm_gave: Callable[[str, Tensor], None],
) -> Generator[None]:
    """Says what layers give, and what norms give that take the very tensor that a layer gave, by the layer's name."""
    latest: dict[str, weakref.ref[Tensor]] = {}

    def of_layer(name: str, output: Tensor) -> None:
        latest[name] = weakref.ref(output)
        layer_gave(name, output)

    def of_norm(_: nn.Module, args: Any, output: Tensor) -> None:
        for name, own in latest.items():
            if args and own() is args[0]:
                norm_gave(name, output)

    with ExitStack() as hooks:
        for name, module in layers.items():
            hooks.enter_context(module.register_forward_hook(lambda _, __, output, name=name: of_layer(name, output)))
        for module in model.modules():
            if isinstance(module, NORMS):
                hooks.enter_context(module.register_forward_hook(of_norm))
        yield


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by the names of their weights."""
    return {joined(name, "weight"): own for name, own in modules_of(model).items() if is_producer(own)}


def _rows(features: Tensor) -> Tensor:
    """All numbers of a channel in a row: (samples, channels, …) to (samples, channels, numbers)."""
    return features.reshape(*features.shape[:2], -1)


def _ranks(maps: Tensor) -> Tensor:
    """The rank of each map of (samples, channels, height, width), over its longer side."""
    return torch.linalg.matrix_rank(maps).float() / max(maps.shape[2:])


def _fields(features: Tensor) -> Tensor:
    """Averages over fields of 8×8, or of as much as there is: (samples, channels, fields)."""
    if features.ndim == 4:
        features = F.avg_pool2d(features, [min(8, side) for side in features.shape[2:]])
    return _rows(features)
