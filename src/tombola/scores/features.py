"""Scores of residual blocks by what they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores.blocks import given
from tombola.scores.evaluate import take
from tombola.scores.types import Batches, Loss, Scores, View


@dataclass(frozen=True)
class ExpectedActivation:
    """The mean of what a block gives, after a ReLU (expectABS: DropNet, Tan & Motani, ICML 2020)."""

    batches: int = 4

    name: ClassVar[str] = "expected-activation"
    paper: ClassVar[str] = "Tan & Motani, ICML 2020"
    needs_data: ClassVar[bool] = True

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        taken = take(batches, self.batches, self.name)
        return {name: own.relu().mean().reshape(1) for name, own in given(model, taken, view).items()}


@dataclass(frozen=True)
class FeatureRank:
    """The mean rank of the maps that a block gives after a ReLU, over their longer side (HRank, Lin et al., CVPR 2020).

    For networks on images: TombolaError where a block does not give maps.
    """

    batches: int = 1

    name: ClassVar[str] = "feature-rank"
    paper: ClassVar[str] = "Lin et al., CVPR 2020"
    needs_data: ClassVar[bool] = True

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        maps = given(model, take(batches, self.batches, self.name), view)
        odd = next((name for name, own in maps.items() if own.ndim != 4), None)
        if odd is not None:
            raise TombolaError(f"block '{odd}' gives no maps of features, whose rank could be taken; use another score")
        return {
            name: (torch.linalg.matrix_rank(own.relu()).float().mean() / max(own.shape[2:])).reshape(1)
            for name, own in maps.items()
        }


@dataclass(frozen=True)
class ProjectedImportance:
    """The mean VIP of what a block gives, averaged over 8×8 fields, in a partial least squares fit of the targets.

    Jordao, Lie, Schwartz, Discriminative Layer Pruning, IEEE JSTSP 2020. For networks on images, and class numbers.
    """

    batches: int = 4
    components: int = 2

    name: ClassVar[str] = "projected-importance"
    paper: ClassVar[str] = "Jordao et al., IEEE JSTSP 2020"
    needs_data: ClassVar[bool] = True

    def __call__(
        self, model: nn.Module, batches: Batches = (), loss: Loss | None = None, **view: Unpack[View]
    ) -> Scores:
        taken = take(batches, self.batches, self.name)
        targets = torch.cat([batch[1] for batch in taken])
        if targets.is_floating_point() or targets.ndim != 1:
            raise TombolaError(f"the score '{self.name}' is for class numbers; use another one for these targets")
        classes = F.one_hot(targets).double()
        return {
            name: importances(_pooled(own), classes, self.components).mean().reshape(1)
            for name, own in given(model, taken, view).items()
        }


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


def _pooled(features: Tensor) -> Tensor:
    """Averages over fields of 8×8, or of as much as there is, as one row a sample."""
    if features.ndim == 4:
        features = F.avg_pool2d(features, [min(8, side) for side in features.shape[2:]])
    return features.flatten(1)
