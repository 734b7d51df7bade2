"""Sparse training from a random mask that moves: RigL and SET."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from tombola.errors import TombolaError
from tombola.methods.one_shot import OneShot
from tombola.methods.protocol import DensityKind
from tombola.methods.regrowth import MovingRegrowth, Regrowth
from tombola.methods.rewinding import End, as_trained
from tombola.scores import Random
from tombola.structure import Granularity, Prunable, Weights, check_granularity
from tombola.tickets import Scope, Ticket
from tombola.training import Run, Task, start_of


@dataclass(frozen=True)
class RigL(Regrowth):
    """Train a random sparse network; drop its smallest weights and grow as many others, again and again.

    Evci et al., ICML 2020; with grow="random" it is SET (Mocanu et al., Nature Communications 2018). The settings of
    `Regrowth` say how the mask moves.

    Args:
        scope: how layers share the density, as `erk`; each keeps its count, at least one weight, to the end.
        rewind: what the ticket is: the network as it was trained (`end`), with no training left, or its last mask on
            the initialisation (`init`).
        granularity: single weights, the only units that can be grown yet.
        prunable: which parameters may be pruned.

    Raises:
        TombolaError: if a setting is out of range, or the granularity is not single weights.

    Examples:
        >>> RigL(density=0.2, grow="random", every="1ep").regrow
        True
    """

    scope: Scope = "erk"
    rewind: End = "end"
    granularity: Granularity = Weights()
    prunable: Prunable = Prunable()

    density_kind: ClassVar[DensityKind] = "exact"
    regrow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.granularity != Weights():
            raise TombolaError(
                f"sparse training moves single weights, and units of kind {self.granularity.name} cannot be grown yet; "
                "leave the granularity at weight"
            )
        check_granularity(self.granularity, self.density, self.scope)

    def find(self, task: Task, run: Run) -> Ticket:
        ticket = OneShot(self.density, Random(), scope=self.scope, floor=1, prunable=self.prunable).find(task, run)
        model = start_of(task, ticket, run.seed).to(run.device)
        observer = MovingRegrowth(self, ticket.mask, run.seed)
        fit = run.stage("search", task, model, attached=ticket.mask, observers=[observer])
        if self.rewind == "init":
            return replace(ticket, mask=observer.mask)
        return as_trained(model, observer.mask, task.recipe, fit)
