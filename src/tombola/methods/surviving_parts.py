"""Which heads and feed-forward parts of a fine-tuned transformer survive while it stays good."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.good_networks import Judge, Keep, Weights, check_search, drawn_ticket
from tombola.methods.protocol import DensityKind
from tombola.scores import Accumulate, Forward, gate_importance
from tombola.structure import PartKind, TransformerParts, TransformerUnits, check_is_granularity, check_plain
from tombola.tickets import Mask, Provenance, Seed, Ticket, parameters_of, put_values, tensors_of
from tombola.training import Run, Task, mixed

Kept = Mapping[str, Tensor]
"""The kept units, a bool vector for each group."""


@dataclass(frozen=True)
class SurvivingParts:
    """Fine-tune, then remove the heads and feed-forward parts that matter least, as long as the network stays good.

    Prasanna et al., When BERT Plays the Lottery, All Tickets Are Winning (EMNLP 2020). First each step removes a tenth
    of all heads and of all feed-forward parts, at least one of each; when the network is no longer good, the step is
    taken back, and heads go on alone by half as many, then feed-forward parts alone. Importances are taken anew
    after each step, in one pass over the validation split, which also says what is good.

    Args:
        density: the share of units at which the search ends, if the network is good for so long.
        granularity: heads and feed-forward parts, or one of them.
        share: of all units of a kind that a step removes, rounded down.
        good: the share of the whole network's metric that a good one has.
        accumulate: how the gradients of batches are put together to the importance of a unit.
        normalise: whether the importances of a layer's heads are divided by their length, as a vector.
        keep: what the ticket keeps: the `good` units; as many that are drawn at `random`, each by itself, so that
            their number is about the same; or the `bad` ones: those that were removed, filled up with good ones.
        weights: what it trains from: the `pretrained` values, or not at all on the `fine-tuned` ones.

    Raises:
        TombolaError: if a setting is out of range, or the units are of another kind.

    Examples:
        >>> SurvivingParts(keep="bad").density_kind
        'outcome'
    """

    density: float = 0.01
    granularity: TransformerParts = TransformerParts()
    share: float = 0.1
    good: float = 0.9
    accumulate: Accumulate = "batch"
    normalise: bool = True
    keep: Keep = "good"
    weights: Weights = "pretrained"

    density_kind: ClassVar[DensityKind] = "outcome"

    def __post_init__(self) -> None:
        check_fields(self)
        check_plain(self.granularity, "a search for parts that survive")
        check_search(self.density, self.share, self.good)
        check_is_granularity(self.granularity)
        if not isinstance(self.granularity, TransformerParts):
            raise TombolaError(
                f"this search removes parts of transformers, not {self.granularity.name}s; give head, mlp, head+mlp "
                "or head+neuron"
            )

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        start = Seed.of(model, run.seed)
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        assert isinstance(units, TransformerUnits)
        fit = run.stage("fine-tune", task, model)

        def search(call: Forward) -> dict[str, Any]:
            return _Search(self, units, Judge(task, run, call), model).run()

        found = run.once("parts", task, model, search)
        run.history.append({"stage": "parts", "steps": found["steps"]})
        kept = self._kept(found["kept"], units, run.seed)
        mask = units.expand(Mask.of(kept), tensors_of(model))
        ticket = drawn_ticket(mask, model, start, self.weights, fit, task.recipe.epochs, units.removed(Mask.of(kept)))
        before = found["metric"] if self.keep == "good" else None
        return replace(ticket, provenance=Provenance(whole=found["whole"], before=before))

    def _kept(self, good: Kept, units: TransformerUnits, seed: int) -> dict[str, Tensor]:
        """The units that the ticket keeps: the good ones, or as many others of each kind."""
        if self.keep == "good":
            return dict(good)
        generator = torch.Generator().manual_seed(mixed(seed, 21))
        kept: dict[str, Tensor] = {}
        for names in units.kinds.values():
            flat = torch.cat([good[name] for name in names])
            if self.keep == "random":
                other = torch.rand(len(flat), generator=generator) < flat.float().mean()
            else:
                removed_first = torch.rand(len(flat), generator=generator) - 2 * (~flat).float()
                other = torch.zeros_like(flat).index_fill_(0, removed_first.argsort()[: int(flat.sum())], value=True)
            kept |= dict(zip(names, other.split([len(good[name]) for name in names]), strict=True))
        return kept


def phases(totals: Mapping[PartKind, int], share: float) -> list[dict[PartKind, int]]:
    """How many units of each kind a step removes: first of all kinds together, then of each kind alone.

    Args:
        totals: how many units of each kind the network has.
        share: of them that a step removes; half of it where a kind goes alone.

    Examples:
        >>> phases({"head": 144, "mlp": 12}, 0.1)
        [{'head': 14, 'mlp': 1}, {'head': 7}, {'mlp': 1}]
        >>> phases({"head": 144}, 0.1)
        [{'head': 14}]
    """
    first = {kind: max(1, int(share * total + 1e-9)) for kind, total in totals.items()}
    alone = [{kind: max(1, int(share / 2 * total + 1e-9))} for kind, total in totals.items()]
    return [first, *alone] if len(totals) > 1 else [first]


class _Search:
    """One search on a fine-tuned network, which stays as it is."""

    def __init__(self, method: SurvivingParts, units: TransformerUnits, judge: Judge, model: nn.Module) -> None:
        self.method, self.units, self.judge = method, units, judge
        self.copy = copy.deepcopy(model)
        self.values = {name: parameter.detach().clone() for name, parameter in parameters_of(model).items()}
        self.sizes = {group.name: group.size for group in units.groups}
        self.steps: list[dict[str, float]] = []

    def run(self) -> dict[str, Any]:
        """The kept units, the metrics of whole and kept network, and a row for each step."""
        kept = {name: torch.ones(size, dtype=torch.bool) for name, size in self.sizes.items()}
        importance, whole = self._measured(kept)
        metric = whole
        totals = {kind: sum(self.sizes[name] for name in names) for kind, names in self.units.kinds.items()}
        for counts in phases(totals, self.method.share):
            while (fewer := self._without(kept, importance, counts)) is not None:
                # The importances of a step that is taken back serve the next phase, as in the authors' code.
                importance, found = self._measured(fewer)
                if not self.judge.is_good(found, whole, self.method.good):
                    break
                kept, metric = fewer, found
        return {"kept": kept, "whole": whole, "metric": metric, "steps": self.steps}

    def _without(self, kept: Kept, importance: Mapping[str, Tensor], counts: Mapping[PartKind, int]) -> Kept | None:
        """The kept units without the least important ones; None where too few would be left."""
        fewer = dict(kept)
        for kind, count in counts.items():
            names = self.units.kinds[kind]
            alive = torch.cat([kept[name] for name in names])
            worth = torch.cat([importance[name] for name in names]).masked_fill(~alive, torch.inf)
            lowest = worth.argsort(stable=True)[: min(count, int(alive.sum()))]
            alive = alive.index_fill(0, lowest, value=False)
            fewer |= dict(zip(names, alive.split([self.sizes[name] for name in names]), strict=True))
        left = sum(int(own.sum()) for own in fewer.values())
        unchanged = left == sum(int(own.sum()) for own in kept.values())
        least = max(1, self.method.density * sum(self.sizes.values()))
        return None if unchanged or left < least else fewer

    def _close(self, kept: Kept) -> None:
        """Set to zero what reads removed units: this closes their gates, and nothing else."""
        put_values(self.copy, tensors_of(self.copy) | self.values)
        closed = self.units.gates.expand(Mask.of(kept), self.values)
        own = parameters_of(self.copy)
        with torch.no_grad():
            for name in closed:
                own[name].masked_fill_(~closed[name].to(own[name].device), 0.0)

    def _measured(self, kept: Kept) -> tuple[dict[str, Tensor], float]:
        """The importance of each unit, removed ones too, and the metric, with the gates of removed units closed."""
        self._close(kept)
        judge = self.judge
        found = gate_importance(
            self.copy,
            self.units.gates,
            judge.batches(),
            judge.task.loss,
            judge.forward,
            open_weights=self.values,
            accumulate=self.method.accumulate,
        )
        importance = {name: own.cpu() for name, own in found.items()}
        if self.method.normalise:
            for name in self.units.kinds.get("head", ()):
                importance[name] = importance[name] / (importance[name].norm() + 1e-20)
        metric = judge.metric(self.copy)
        counts = {kind: sum(int(kept[name].sum()) for name in names) for kind, names in self.units.kinds.items()}
        self.steps.append({**counts, "validation_metric": metric})
        return importance, metric
