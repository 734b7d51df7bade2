"""Greedy tickets of two-layer networks: pre-train, pick hidden neurons one by one, scale what they give."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.enough_pretraining import EnoughPretraining, PretrainingDraws
from tombola.methods.neuron_selection import check_picks
from tombola.methods.neuron_tickets import TwoLayerDraw, ticket_of
from tombola.methods.protocol import DensityKind
from tombola.methods.rewinding import prescribed
from tombola.scores import Forward
from tombola.structure import Granularity, Neurons, NeuronUnits, SeparateChannels
from tombola.tickets import Provenance, Ticket, attach
from tombola.training import Observer, Run, Task, Until


@dataclass(frozen=True)
class GreedyNeurons:
    """Pre-train a network of two linear layers, and pick its hidden neurons one by one.

    Greedy forward selection (Ye et al., ICML 2020; Wolfe et al., arXiv 2108.00259). A neuron that is picked r of k
    times has its outgoing weights multiplied by r · neurons / k, and the ticket fine-tunes from there.

    Args:
        density: the number of picks, as a share of the hidden neurons, above 0 and at most 1.
        picks: the number of picks itself, in place of the density; 0 uses the density.
        repeat: whether a neuron may be picked again, which gives it more weight, so that fewer are kept. Otherwise each
            is picked at most once.
        examples: on how many of the first training examples neurons are picked.
        epochs: the epochs of pre-training; the recipe's if 0.
        until: what stops the pre-training: tickets, drawn as this one will be, that get no better.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> GreedyNeurons(density=0.2, repeat=False).density_kind
        'exact'
    """

    density: float = 0.1
    picks: int = 0
    repeat: bool = True
    examples: int = 5000
    epochs: int = 0
    until: EnoughPretraining | None = None

    granularity: ClassVar[Granularity] = SeparateChannels()

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.density <= 1:
            raise TombolaError(f"density is {self.density}; give the share of neurons to pick, above 0 and at most 1")
        for name, least in (("picks", 0), ("examples", 1), ("epochs", 0)):
            if getattr(self, name) < least:
                raise TombolaError(f"{name} is {getattr(self, name)}; give at least {least}")

    @property
    def density_kind(self) -> DensityKind:
        """A bound where neurons may repeat, so that fewer are kept than picked, else exact."""
        return "bound" if self.repeat else "exact"

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed).to(run.device)
        units = run.units(Neurons(), task, model)
        assert isinstance(units, NeuronUnits)
        picks = self.picks or max(round(self.density * units.layers.neurons), 1)
        check_picks(picks, units.layers.neurons, self.repeat, f"'{units.layers.hidden}'")
        observers: list[Observer] = [Until(self.epochs)] if self.epochs else []
        settings = {"picks": picks, "repeat": self.repeat, "examples": self.examples}
        draws = PretrainingDraws.of(replace(self.until, **settings), task, run, units.layers) if self.until else None
        fit = run.stage("pretrain", task, model, observers=observers + ([draws] if draws else []))
        draw = TwoLayerDraw(units.layers, picks, self.repeat, self.examples)

        def select(call: Forward) -> dict[str, Any]:
            selection = draw.of(model, task.batches("train", run.seed, 0), call)
            return {name: getattr(selection, name) for name in ("losses", "whole", "variance", "scales")}

        picked = run.once("selection", task, model, select)
        figures = {"losses": picked["losses"].tolist(), "whole": picked["whole"], "variance": picked["variance"]}
        run.history.append({"stage": "selection", **figures})
        if draws:
            run.history.append({"stage": "enough", "curve": [asdict(point) for point in draws.curve]})
        ticket = ticket_of(model, units, picked["scales"], len(fit.history))
        ticket.put_into(model)
        attach(ticket.mask, model).detach()  # Attaching zeroes the removed weights.
        provenance = Provenance(whole=fit.validation, before=run.validate(task, model, task.recipe))
        return replace(ticket, recipe=prescribed("fine-tune", task.recipe), provenance=provenance)
