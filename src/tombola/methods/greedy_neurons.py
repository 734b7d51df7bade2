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
from tombola.structure import Channels, Granularity, Neurons, NeuronUnits
from tombola.tickets import Provenance, Ticket, attach
from tombola.training import Observer, Run, Task, Until


@dataclass(frozen=True)
class GreedyNeurons:
    """Greedy forward selection from a pre-trained network of two linear layers, neuron by neuron.

    density: picks, as a share of the hidden neurons; picks: their number, in its place. repeat: whether a neuron may be
    picked again, which gives it more weight, so that fewer are kept; else each is picked at most once. examples: how
    many of the first training examples it is chosen on. epochs: of pre-training, the recipe's if 0. until: stops the
    pre-training where tickets, drawn as this one will be, stop getting better. A neuron picked r of k times has its
    outgoing weights multiplied with r · neurons / k, and the ticket fine-tunes from there.
    """

    density: float = 0.1
    picks: int = 0
    repeat: bool = True
    examples: int = 5000
    epochs: int = 0
    until: EnoughPretraining | None = None

    granularity: ClassVar[Granularity] = Channels()

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.density <= 1:
            raise TombolaError(f"density is {self.density}; give the share of neurons to pick, above 0 and at most 1")
        for name, least in (("picks", 0), ("examples", 1), ("epochs", 0)):
            if getattr(self, name) < least:
                raise TombolaError(f"{name} is {getattr(self, name)}; give at least {least}")

    @property
    def density_kind(self) -> DensityKind:
        return "bound" if self.repeat else "exact"

    def find(self, task: Task, run: Run) -> Ticket:
        model = task.build(run.seed).to(run.device)
        units = run.units(Neurons(), task, model)
        assert isinstance(units, NeuronUnits)
        picks = self.picks or max(round(self.density * units.layers.neurons), 1)
        check_picks(picks, units.layers.neurons, self.repeat, f"'{units.layers.hidden}'")
        observers: list[Observer] = [Until(self.epochs)] if self.epochs else []
        drawn = {"picks": picks, "repeat": self.repeat, "examples": self.examples}
        draws = PretrainingDraws.of(replace(self.until, **drawn), task, run, units.layers) if self.until else None
        done = run.stage("pretrain", task, model, observers=observers + ([draws] if draws else []))
        drawing = TwoLayerDraw(units.layers, picks, self.repeat, self.examples)

        def select(call: Forward) -> dict[str, Any]:
            own = drawing.of(model, task.batches("train", run.seed, 0), call)
            return {name: getattr(own, name) for name in ("losses", "whole", "variance", "scales")}

        picked = run.once("selection", task, model, select)
        figures = {"losses": picked["losses"].tolist(), "whole": picked["whole"], "variance": picked["variance"]}
        run.history.append({"stage": "selection", **figures})
        if draws:
            run.history.append({"stage": "enough", "curve": [asdict(own) for own in draws.curve]})
        ticket = ticket_of(model, units, picked["scales"], len(done.history))
        ticket.put_into(model)
        attach(ticket.mask, model).detach()
        seen = Provenance(whole=done.validation, before=run.validate(task, model, task.recipe))
        return replace(ticket, recipe=prescribed("fine-tune", task.recipe), provenance=seen)
