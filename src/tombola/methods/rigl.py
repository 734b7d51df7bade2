"""Sparse training from a random mask that moves: RigL and SET."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from tombola.errors import TombolaError
from tombola.methods.moving_watch import MovingWatch
from tombola.methods.one_shot import OneShot
from tombola.methods.protocol import DensityKind, kind_at
from tombola.methods.regrowth import MovingRegrowth, Regrowth
from tombola.methods.rewinding import End, as_trained
from tombola.scores import Random
from tombola.structure import Granularity, Prunable, Weights, check_granularity, check_is_granularity
from tombola.tickets import Optimizers, Scope, Ticket, select
from tombola.training import Run, Step, Task, start_of


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

    regrow: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_is_granularity(self.granularity)
        if self.granularity != Weights():
            raise TombolaError(
                f"sparse training moves single weights, and units of kind {self.granularity.name} cannot be grown yet; "
                "leave the granularity at weight"
            )
        check_granularity(self.granularity, self.density, self.scope)

    @property
    def density_kind(self) -> DensityKind:
        return kind_at(self.scope, self.granularity)

    def find(self, task: Task, run: Run) -> Ticket:
        ticket = OneShot(self.density, Random(), scope=self.scope, floor=1, prunable=self.prunable).find(task, run)
        model = start_of(task, ticket, run.seed).to(run.device)
        observer = MovingRegrowth(self, ticket.mask, run.seed)
        fit = run.stage("search", task, model, attached=ticket.mask, observers=[observer])
        if self.rewind == "init":
            return replace(ticket, mask=observer.mask)
        return as_trained(model, observer.mask, task.recipe, fit)

    def watch(self, model: nn.Module, optimizer: Optimizers, *, steps: int, seed: int = 0) -> MovingWatch:
        """Train sparsely in your own loop: its optimizer's steps move the mask.

        The random mask is drawn and attached at once. As in Tombola's own training, an update takes the place of an
        optimizer step, and the gradients before it are those of the dense network.

        Args:
            model: the network that you train.
            optimizer: one that holds its parameters, or all of several in a list or a dictionary.
            steps: how many optimizer steps the training will take.
            seed: of the first mask, and of where weights grow with grow="random".

        Returns:
            The watch; its `ticket` is the network as it is trained now, or its mask on the initialisation.

        Raises:
            TombolaError: if `every` counts epochs, or the optimizer holds none of the weights.

        Examples:
            >>> import torch
            >>> model, x = nn.Linear(10, 2), torch.randn(4, 10)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> watch = RigL(density=0.3, every="2it").watch(model, optimizer, steps=8)
            >>> for step in range(8):
            ...     optimizer.zero_grad()
            ...     model(x).square().mean().backward()
            ...     _ = optimizer.step()
            >>> watch.ticket.mask.total_kept, watch.finished
            (6, True)
            >>> watch.detach()
        """
        if Step.parse(self.every).unit == "ep":
            raise TombolaError(
                f"every is {self.every}, and in your own loop steps are counted, not epochs; write it as '100it'"
            )
        scores = Random()(model, prunable=self.prunable, seed=seed)
        mask = select(scores, self.density, scope=self.scope, floor=1)
        return MovingWatch(self, MovingRegrowth(self, mask, seed), model, optimizer, steps)
