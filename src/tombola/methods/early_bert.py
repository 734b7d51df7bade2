"""EarlyBERT: heads and hidden neurons by coefficients that are trained for a fraction of an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tombola.errors import TombolaError
from tombola.fields import check_fields
from tombola.methods.coefficients import CoefficientModel, Record, Recorder
from tombola.methods.masked_model import MaskedTask
from tombola.methods.protocol import DensityKind
from tombola.structure import TransformerParts, TransformerUnits, check_is_granularity, check_plain
from tombola.tickets import Mask, Seed, Ticket, select, tensors_of
from tombola.training import Recipe, Run, Task


@dataclass(frozen=True)
class EarlyBert:
    """Train with a coefficient on each head and hidden neuron for a fifth of an epoch, and keep the largest.

    Chen et al., EarlyBERT (ACL 2021). The coefficients begin at 1 and train with the weights, by the recipe, under a
    penalty on their size. Each layer keeps the same share of its heads; neurons of all layers compete. The ticket goes
    back to the network's first values and trains with a recipe of its own, shorter and at a larger learning rate.

    Args:
        density: the share of hidden neurons to keep, of all layers together.
        granularity: heads and hidden neurons, or one of them.
        heads: the share of each layer's heads to keep; the density if None.
        draw: after how many epochs the coefficients are read.
        record: whether those `after` the last step are read, or `before` it, which are one step older.
        penalty: λ of the penalty λ Σ|c| on coefficients.
        floor: neurons that each layer keeps at least.
        ticket_lr: the learning rate of the ticket's training, as a multiple of the recipe's.
        ticket_epochs: its epochs, as a share of the recipe's; at least one.

    Raises:
        TombolaError: if a setting is out of range.

    Examples:
        >>> EarlyBert(density=0.6).ticket_recipe(Recipe(epochs=3, lr=2e-5, optimizer="adamw"))
        {'lr': 4e-05, 'epochs': 2}
    """

    density: float = 0.6
    granularity: TransformerParts = TransformerParts(("head", "neuron"))
    heads: float | None = 2 / 3
    draw: float = 0.2
    record: Record = "after"
    penalty: float = 1e-4
    floor: int = 1
    ticket_lr: float = 2.0
    ticket_epochs: float = 2 / 3

    density_kind: ClassVar[DensityKind] = "exact"

    def __post_init__(self) -> None:
        check_fields(self)
        check_is_granularity(self.granularity)
        check_plain(self.granularity, "a search of coefficients")
        if not isinstance(self.granularity, TransformerParts) or "mlp" in self.granularity.kinds:
            raise TombolaError(
                f"EarlyBERT removes heads and neurons, and not {self.granularity.name}s; give head+neuron, or "
                "tb.structure.TransformerParts(('neuron',))"
            )
        for name in ("density", "heads"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise TombolaError(f"{name} is {value}; give the share to keep, above 0 and at most 1")
        for name in ("draw", "ticket_lr", "ticket_epochs"):
            if not getattr(self, name) > 0:
                raise TombolaError(f"{name} is {getattr(self, name)}; give a number above 0")
        for name in ("penalty", "floor"):
            if not getattr(self, name) >= 0:
                raise TombolaError(f"{name} is {getattr(self, name)}; give a number of at least 0")

    def ticket_recipe(self, recipe: Recipe) -> dict[str, Any]:
        """The fields of the recipe in which the ticket's own training differs."""
        return {"lr": self.ticket_lr * recipe.lr, "epochs": max(1, round(self.ticket_epochs * recipe.epochs))}

    def find(self, task: Task, run: Run) -> Ticket:
        if self.draw > task.recipe.epochs:
            raise TombolaError(
                f"the ticket is drawn after {self.draw:g} epochs, and the recipe has {task.recipe.epochs}; give less"
            )
        model = task.build(run.seed)
        start = Seed.of(model, run.seed)
        model.to(run.device)
        units = run.units(self.granularity, task, model)
        assert isinstance(units, TransformerUnits)
        coefficients = CoefficientModel(task, model, units.gates)
        recorder = Recorder(coefficients, self.draw, self.penalty, self.record)
        run.stage("search", MaskedTask(task), coefficients, observers=[recorder])
        found = recorder.recorded
        share = self.density if self.heads is None else self.heads
        rules: dict[str, Any] = {
            "head": {"density": share, "scope": "layerwise", "floor": 1},
            "neuron": {"density": self.density, "floor": self.floor},
        }
        chosen = [select({name: found[name] for name in names}, **rules[kind]) for kind, names in units.kinds.items()]
        kept = Mask.of({name: own for mask in chosen for name, own in mask.items()}, sum(own.ties for own in chosen))
        mask = units.expand(kept, tensors_of(model))
        return Ticket(mask, start, recipe=self.ticket_recipe(task.recipe), removed=units.removed(kept))
