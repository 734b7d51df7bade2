"""Which weights of a fine-tuned transformer survive by their size while it stays good."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.good_networks import Judge, Keep, Weights, check_search, drawn_ticket
from tombola.methods.protocol import DensityKind
from tombola.scores import Forward
from tombola.structure import Granularity, TransformerParts, TransformerUnits
from tombola.structure import Weights as SingleWeights
from tombola.tickets import Provenance, Seed, Ticket, joined, parameters_of, select
from tombola.training import Run, Task, mixed


@dataclass(frozen=True)
class SurvivingWeights:
    """Fine-tune, then remove the smallest weights of heads and feed-forward parts, as long as the network stays good.

    Prasanna et al., When BERT Plays the Lottery, All Tickets Are Winning (EMNLP 2020). Weights and biases of queries,
    keys, values, of the layer that mixes heads and of feed-forward parts compete over the whole network; the last bias
    of a feed-forward part, embeddings, norms and the head stay. There is no training between two steps.

    Args:
        density: the share of these weights at which the search ends, if the network is good for so long.
        share: of weights that a step removes.
        of: whether that is a share of the `original` number or of what `remains`; the authors' code has the latter.
        steps: at most so many.
        good: the share of the whole network's metric, on the validation split, that a good one has.
        keep: what the ticket keeps: the `good`, largest weights; as many at `random`; or the `bad`, smallest ones.
        weights: what it trains from: the `pretrained` values, or not at all on the `fine-tuned` ones.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> SurvivingWeights(share=0.1).densities
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    """

    density: float = 0.01
    share: float = 0.1
    of: Literal["original", "remaining"] = "original"
    steps: int = 10
    good: float = 0.9
    keep: Keep = "good"
    weights: Weights = "pretrained"

    density_kind: ClassVar[DensityKind] = "outcome"
    granularity: ClassVar[Granularity] = SingleWeights()

    def __post_init__(self) -> None:
        check_fields(self)
        check_search(self.density, self.share, self.good)
        if self.steps < 1:
            raise TombolaError(f"steps is {self.steps}; give at least 1")

    @property
    def densities(self) -> list[float]:
        """The densities that the search comes to, one after another, if the network stays good."""
        left = [
            1 - step * self.share if self.of == "original" else (1 - self.share) ** step
            for step in range(1, self.steps + 1)
        ]
        return [round(density, 12) for density in left if density > self.density - 1e-9 and density > 1e-9]

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed)
        start = Seed.of(model, run.seed)
        model.to(run.device)
        units = run.units(TransformerParts(("head", "neuron")), task, model)
        assert isinstance(units, TransformerUnits)
        fit = run.stage("fine-tune", task, model)
        parameters = parameters_of(model)
        scores = {name: parameters[name].detach().abs() for name in names_of(units) if name in parameters}

        def search(call: Forward) -> dict[str, Any]:
            judge, twin = Judge(task, run, call), copy.deepcopy(model)
            own, values = parameters_of(twin), parameters_of(model)
            whole = metric = judge.metric(twin)
            kept, mask, rows = 1.0, None, [{"density": 1.0, "validation_metric": whole}]
            for density in self.densities:
                fewer = select(scores, density, within=mask)
                with torch.no_grad():
                    for name in fewer:
                        own[name].copy_(torch.where(fewer[name].to(run.device), values[name], 0.0))
                found = judge.metric(twin)
                rows.append({"density": density, "validation_metric": found})
                if not judge.is_good(found, whole, self.good):
                    break
                kept, mask, metric = density, fewer, found
            return {"kept": kept, "whole": whole, "metric": metric, "steps": rows}

        found = run.once("weights", task, model, search)
        run.history.append({"stage": "weights", "steps": found["steps"]})
        mask = select(self._worth(scores, run.seed), found["kept"])
        ticket = drawn_ticket(mask, model, start, self.weights, fit, task.recipe.epochs, {})
        before = found["metric"] if self.keep == "good" else None
        return replace(ticket, provenance=Provenance(whole=found["whole"], before=before))

    def _worth(self, scores: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """By what the ticket's weights are chosen, once it is known how many stay good."""
        if self.keep == "random":
            generator = torch.Generator().manual_seed(mixed(seed, 22))
            return {name: torch.rand(score.shape, generator=generator) for name, score in scores.items()}
        return {name: -score for name, score in scores.items()} if self.keep == "bad" else scores


def names_of(units: TransformerUnits) -> list[str]:
    """The parameters of heads and hidden neurons, and the biases of the layers that mix heads.

    Args:
        units: of heads and neurons.
    """
    made = [part.parameter for group in units.groups for part in group.slices if part.scored]
    read = [part.parameter for group in units.gates.groups for part in group.slices]
    of_heads = set(units.kinds["head"])
    mixers = [part for group in units.gates.groups if group.name in of_heads for part in group.slices]
    biases = [joined(part.parameter.rpartition(".")[0], "bias") for part in mixers]
    return list(dict.fromkeys([*made, *read, *biases]))
