"""Supermasks: tickets found by training scores over frozen initial weights (edge-popup, Gem-Miner)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.methods.gated_channels import GatedModel
from tombola.methods.masked_model import (
    SEARCH,
    MaskedModel,
    MaskedTask,
    TopShare,
    check_length,
    kaiming_uniform,
    rounded,
    score_recipe,
    uniform,
)
from tombola.methods.protocol import DensityKind
from tombola.methods.score_freezing import DensityDecay, ScoreFreezing
from tombola.scores import Magnitude, check_real
from tombola.structure import (
    ChannelUnits,
    Granularity,
    Probe,
    Prunable,
    SeparateChannels,
    UnitMap,
    Weights,
    check_is_granularity,
    check_plain,
)
from tombola.tickets import InitialWeights, Mask, Provenance, Seed, Ticket, parameters_of, tensors_of
from tombola.tickets.torch_private import NormWithStatistics
from tombola.training import Recipe, Run, Task, length_of, mixed

NORMS = (NormWithStatistics, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
LR_TIMES_STEPS = 0.1 * 150 * 391
"""Of the paper's search: learning rate 0.1, 150 epochs of 391 steps. A shorter search gets a larger rate."""


@dataclass(frozen=True)
class Supermask(DensityDecay):
    """Train scores over frozen initial weights, and keep the best-scored weights; by default as Gem-Miner does.

    The settings of `DensityDecay` say how the density falls.

    Args:
        weights: the initial weights that are searched: as they were built (`own`), or drawn
            anew (`signed-constant`, `kaiming-normal`).
        hold: whether norms and biases are held while the scores and then the ticket train: at 1 and 0, or with `own`
            weights at the values that they were built with.
        length: the epochs of the search, as a multiple of the recipe's.
        optimizer: the optimizer of the scores.
        lr: the learning rate of the scores. If None, Adam gets 0.01, and SGD the paper's 0.1 where the recipe has the
            paper's 58,650 steps and proportionally more where it has fewer, 10 at most.
        finetune_lr: the learning rate that the ticket prescribes for its training; the recipe's if None.
        prunable: which parameters may be pruned.
        granularity: single weights, or with keep='half' whole channels, which then have one score each.

    Raises:
        TombolaError: if a setting is out of range, or the granularity cannot be searched.
    """

    weights: InitialWeights = "signed-constant"
    hold: bool = True
    length: float = 1.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float | None = None
    finetune_lr: float | None = None
    prunable: Prunable = Prunable()
    granularity: Granularity = Weights()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self.length)
        check_is_granularity(self.granularity)
        check_plain(self.granularity, "a search of channels' scores")
        if isinstance(self.granularity, Weights):
            return
        if not isinstance(self.granularity, SeparateChannels) or self.keep == "top":
            raise TombolaError(
                f"scores of {self.granularity.name}s are not searched with keep={self.keep!r}; give granularity "
                "weight, or channel with keep='half'"
            )
        if not self.hold and self.weights != "own":
            raise TombolaError(
                "the scales and biases of channels are not drawn as weights are; hold them, or give weights='own'"
            )

    @property
    def density_kind(self) -> DensityKind:
        """Found if an empty layer may end the search, else a bound where fewer may stay than was asked, else exact."""
        if not self.floor:
            return "outcome"
        return "bound" if self.final == "rounded" or self.ties == "paper-code" else "exact"

    def search_recipe(self, recipe: Recipe, steps_per_epoch: int) -> Recipe:
        """How the scores are trained on a task with this recipe."""
        default_lr = 0.01 if self.optimizer == "adam" else min(10.0, LR_TIMES_STEPS / (recipe.epochs * steps_per_epoch))
        return score_recipe(recipe, self.length, self.optimizer, default_lr if self.lr is None else self.lr)

    def prepare(
        self, task: Task, model: nn.Module, seed: int, units: ChannelUnits | None = None
    ) -> tuple[MaskedModel, ScoreFreezing]:
        """The model with its first scores, and the observer that leads their training.

        Args:
            task: says how the model is called.
            model: the network to search; its parameters become frozen.
            seed: of the first scores.
            units: the channels that are scored; single weights if None.
        """
        generator = torch.Generator().manual_seed(mixed(seed, 21))  # A stream of its own, apart from the weights'.
        top_share = TopShare(self.density, self.scope, self.floor) if self.keep == "top" else None
        start = kaiming_uniform if top_share else uniform
        if units is None:
            searched = MaskedModel(
                task, model, self.prunable, lambda weight: start(weight, generator), top_share or rounded
            )
        else:
            searched = GatedModel(task, model, units.groups, lambda alive: start(alive, generator), rounded)
        searched.check_density(self.density, self.floor)
        return searched, ScoreFreezing(self, searched, top_share)

    def rehearse(self, model: nn.Module, units: UnitMap, probe: Probe) -> Mask:
        """The mask that the size of weights would give; channels have one score each, layer by layer."""
        units = SeparateChannels().units(model, probe)
        scores = Magnitude()(model)
        kept = units.choose(scores, self.density, scope=self.scope, within=None, floor=max(1, self.floor))
        return units.expand(kept, tensors_of(model))

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        weights = self.prunable(model)
        check_real(weights, SEARCH)
        names = tuple(weights)
        held = norms_and_biases(model) if self.hold else ()
        start = Seed.of(model, run.seed, self.weights, names, held)
        by_channel = isinstance(self.granularity, SeparateChannels)
        units = SeparateChannels().units(model, run.probe(task)) if by_channel else None
        searched, freezing = self.prepare(task, model, run.seed, units)
        searched.to(run.device)
        steps = task.recipe.steps(length_of(task.batches("train", run.seed, 0)))
        recipe, searching = self.search_recipe(task.recipe, steps), MaskedTask(task)
        run.stage("search", searching, searched, recipe=recipe, observers=[freezing])
        mask = kept = freezing.result()
        searched.settle(kept)
        before = None if freezing.stopped else run.validate(searching, searched, recipe)
        finetune = {} if self.finetune_lr is None else {"lr": self.finetune_lr}
        removed = {}
        if units is not None:
            mask, removed = units.expand(kept, tensors_of(model)), units.removed(kept)
        return Ticket(mask, start, held, finetune, removed, Provenance(before=before))


@dataclass(frozen=True)
class GemMiner(Supermask):
    """Scores in [0, 1], rounded, penalised, and frozen period by period: `Supermask` as it is.

    Sreenivasan et al., Rare Gems: Finding Lottery Tickets at Initialization, NeurIPS 2022.

    Examples:
        >>> GemMiner(density=0.0144, length=2.0).density_kind
        'exact'
    """


@dataclass(frozen=True)
class EdgePopup(Supermask):
    """In each step and layer the weights with the highest |score|, whose number does not change: see `Supermask`.

    Ramanujan et al., What's Hidden in a Randomly Weighted Neural Network?, CVPR 2020.

    Examples:
        >>> EdgePopup(density=0.3).scope
        'layerwise'
    """

    keep: Literal["half", "top"] = "top"
    scope: Literal["global", "layerwise"] = "layerwise"
    gradual: bool = False
    penalty: float | Literal["auto"] = 2.5e-4


def norms_and_biases(model: nn.Module) -> tuple[str, ...]:
    """The parameters of norms, and all biases."""
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    named = parameters_of(model).items()
    return tuple(name for name, p in named if id(p) in norms or name.endswith("bias"))
