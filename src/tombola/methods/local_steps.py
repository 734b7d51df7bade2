"""Local training: workers train their parts of a network for some steps, then these are merged and dealt anew."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tombola.methods.communication import BOTH_WAYS
from tombola.methods.filter_division import Divisions, deal, merge
from tombola.methods.filter_rankings import Settling, ranked
from tombola.methods.filter_team import Team
from tombola.methods.own_loop import steps_of
from tombola.methods.worker_processes import Processes
from tombola.structure import Axes, narrowed
from tombola.tickets import buffers_of, parameters_of, tensors_of
from tombola.training import Observer, State

Momentum = Literal["fresh", "kept"]
Statistics = Literal["averaged", "first"]


class LocalSteps(Observer):
    """Merges the workers' networks into the whole one now and then, and deals them anew.

    Args:
        team: the whole network, and those of the workers that train here.
        divisions: who has which filters.
        every: after how many steps of each worker networks are merged; they are after the last step too.
        settling: looks at the rankings of the whole network's filters after epochs.
        momentum: whether the optimizer begins anew after each division.
        statistics: whether batch norms' statistics are averaged, or those of the first worker.
        clip: the largest norm of each worker's gradient; 0 clips nothing.
        processes: those of the other workers; None if all train here.
    """

    def __init__(
        self,
        team: Team,
        divisions: Divisions,
        every: int,
        settling: Settling,
        *,
        momentum: Momentum = "fresh",
        statistics: Statistics = "averaged",
        clip: float = 0.0,
        processes: Processes | None = None,
    ) -> None:
        self.division = 0
        self.communicated = 0
        self.settling = settling
        self._team, self._divisions, self._every, self._clip = team, divisions, every, clip
        self._momentum: Momentum = momentum
        self._processes = processes
        self._merged_at = 0
        self._looked_at = 0
        self._moments: dict[str, Tensor] = {}
        self._restored = False
        floating = [name for name, tensor in buffers_of(team.whole).items() if tensor.is_floating_point()]
        self._of_first = set(floating) if statistics == "first" else set[str]()
        self._gradients = sum(parameter.nbytes for parameter in team.whole.parameters())

    @property
    def leads(self) -> bool:
        """Whether the whole network is here."""
        return self._processes is None or self._processes.leads

    def epoch_begin(self, state: State) -> None:
        if self._restored:  # A checkpoint has the optimizer of the first worker.
            whole = self._moments
            for rank in self._team.ranks if whole else ():
                self._take(rank, _narrowed(whole, self._axes(rank)), state)
        self._restored = False

    def before_step(self, state: State) -> None:
        for network in self._team.networks:
            if len(self._team.networks) > 1:  # The loop takes the mean over the batches of all workers.
                for parameter in network.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(len(self._team.networks))
            if self._clip:
                nn.utils.clip_grad_norm_(network.parameters(), self._clip)

    def after_step(self, state: State) -> None:
        if state.step % self._every == 0 or state.step == state.recipe.epochs * state.steps_per_epoch:
            self._exchange(state)
            self._merged_at = state.step

    def resumable(self, state: State) -> bool:
        return state.step == self._merged_at

    def epoch_end(self, state: State) -> bool:
        row, settled = state.history[-1], False
        if self._processes is not None:
            row["train_loss"] = fmean(self._processes.gathered(row["train_loss"]))
        if self.leads:
            workers = self._divisions.workers
            row |= {
                "communicated": self.communicated,
                "communicated_data_parallel": BOTH_WAYS * workers * self._gradients * state.step,
            }
            # A ranking of the same weights as the last one would say nothing.
            if self._merged_at > self._looked_at:
                row |= self.settling.look(ranked(self._divisions.filters.norms(tensors_of(self._team.whole))))
                settled = self.settling.settled
        self._looked_at = state.step
        return settled if self._processes is None else self._processes.told(settled)

    def state_dict(self) -> dict[str, Any]:
        return {
            "division": self.division,
            "communicated": self.communicated,
            "merged_at": self._merged_at,
            "looked_at": self._looked_at,
            "rankings": self.settling.rankings,
            "moments": self._moments,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.division, self.communicated = state["division"], state["communicated"]
        self._merged_at, self._looked_at = state["merged_at"], state["looked_at"]
        self.settling.rankings = state["rankings"]
        whole = tensors_of(self._team.whole)
        device = next(iter(whole.values())).device
        self._moments = {name: moment.to(device) for name, moment in state["moments"].items()}
        for rank, network in self._team.workers.items():
            deal(whole, tensors_of(network), self._axes(rank))
        self._restored = True

    def _exchange(self, state: State) -> None:
        """Merge the networks of all workers, and deal them anew."""
        link, workers = self._processes, range(self._divisions.workers)
        parts = {rank: self._part(rank, state) for rank in self._team.ranks}
        if link is not None:
            link.meet()
        if not self.leads:
            assert link is not None
            link.send(0, parts[link.rank])
            self.division += 1
            self._take(link.rank, link.receive(0, parts[link.rank]), state)
            return
        whole = self._whole(parts[0])
        for rank in workers:
            if rank not in parts:
                assert link is not None
                parts[rank] = link.receive(rank, _narrowed(whole, self._axes(rank)))
        merge(whole, [parts[rank] for rank in workers], [self._axes(rank) for rank in workers], self._of_first)
        self._count(self._team.network(0))
        self.communicated += BOTH_WAYS * sum(tensor.nbytes for part in parts.values() for tensor in part.values())
        self.division += 1
        for rank in workers:
            part = _narrowed(whole, self._axes(rank))
            if rank in self._team.ranks:
                self._take(rank, part, state)
            else:
                assert link is not None
                link.send(rank, part)

    def _part(self, rank: int, state: State) -> dict[str, Tensor]:
        """A worker's tensors of floating point; with its optimizer's, if it goes on with them."""
        network = self._team.network(rank)
        tensors = {name: tensor for name, tensor in tensors_of(network).items() if tensor.is_floating_point()}
        if self._momentum == "kept":
            for name, parameter in parameters_of(network).items():
                for optimizer in steps_of(state.optimizer):
                    for key, moment in optimizer.state.get(parameter, {}).items():
                        if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                            tensors[_moment(name, key)] = moment
        return tensors

    @torch.no_grad()
    def _take(self, rank: int, part: Mapping[str, Tensor], state: State) -> None:
        """Give a worker its next network, and the optimizer what belongs to that."""
        network, optimizers = self._team.network(rank), steps_of(state.optimizer)
        for name, tensor in tensors_of(network).items():
            if name in part:
                tensor.copy_(part[name])
        for name, parameter in parameters_of(network).items():
            for optimizer in optimizers:
                if self._momentum == "fresh":
                    optimizer.state.pop(parameter, None)
                for key in optimizer.state.get(parameter, ()):
                    if (moment := part.get(_moment(name, key))) is not None:
                        # Laid out in memory as the parameter, which fused optimizers take for granted.
                        optimizer.state[parameter][key] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)

    def _whole(self, part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole network's tensors of floating point, with those of the optimizers that the parts have."""
        whole = {name: tensor for name, tensor in tensors_of(self._team.whole).items() if tensor.is_floating_point()}
        for name, tensor in part.items():
            if name not in whole:
                self._moments.setdefault(name, torch.zeros_like(whole[_owner(name)], dtype=tensor.dtype))
        return whole | self._moments

    def _axes(self, rank: int) -> dict[str, Axes]:
        """Where a worker's tensors lie in the whole ones, those of its optimizer too."""
        axes = self._divisions.axes(self.division, rank)
        return axes | {name: axes[_owner(name)] for name in self._moments if _owner(name) in axes}

    def _count(self, network: nn.Module) -> None:
        """Take over the first worker's whole numbers, as a norm's count of batches."""
        whole = tensors_of(self._team.whole)
        for name, tensor in tensors_of(network).items():
            if not tensor.is_floating_point() and tensor.shape == whole[name].shape:
                whole[name].copy_(tensor)


def _narrowed(whole: Mapping[str, Tensor], axes: Mapping[str, Axes]) -> dict[str, Tensor]:
    return {name: narrowed(tensor, axes[name]) if name in axes else tensor for name, tensor in whole.items()}


SEPARATOR = " of the optimizer: "


def _moment(name: str, key: str) -> str:
    return f"{name}{SEPARATOR}{key}"


def _owner(name: str) -> str:
    return name.partition(SEPARATOR)[0]
