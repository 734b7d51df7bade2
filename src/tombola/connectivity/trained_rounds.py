"""The networks that a search trains on its way, the ticket's and the dense one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.methods import Method, find
from tombola.tickets import Mask, Seed, Ticket, tensors_of
from tombola.training import (
    Cost,
    Fit,
    Member,
    Run,
    Task,
    agreed_device,
    bars,
    fingerprint,
    identity,
    train,
)
from tombola.training.ensemble.member import fingerprint_of

DENSE, TICKET = "dense", "ticket"


@dataclass(frozen=True, eq=False)
class Solution:
    """A trained network.

    Args:
        name: "dense", the name of a stage of the search as "round-03", or "ticket".
        network: after its training.
        mask: what it keeps; empty if it is dense.
    """

    name: str
    network: nn.Module
    mask: Mask


@dataclass(frozen=True, eq=False)
class Solutions:
    """The trained networks of one search, in their order, and at the end the ticket's.

    Args:
        networks: the networks.
        ticket: what the search found.
        cost: of the search and of all trainings beside it.
    """

    networks: tuple[Solution, ...]
    ticket: Ticket
    cost: Cost

    def __getitem__(self, name: str) -> Solution:
        for own in self.networks:
            if own.name == name:
                return own
        raise TombolaError(f"there is no solution '{name}'; there are {', '.join(own.name for own in self.networks)}")


class _Recording(Run):
    """A run that remembers the network at the end of each of its stages."""

    ends: list[Solution]

    @staticmethod
    def of(run: Run) -> _Recording:
        own = copy.copy(run)
        own.__class__ = _Recording
        assert isinstance(own, _Recording)
        own.ends = []
        return own

    def stage(self, name: str, task: Task, model: nn.Module, **how: Any) -> Fit:
        """Train a stage, or read it, as any run."""
        fit = super().stage(name, task, model, **how)
        attached = how.get("attached")
        mask = attached.mask if isinstance(attached, Ticket) else attached or Mask({})
        self.ends.append(Solution(name, copy.deepcopy(model).cpu(), mask))
        return fit


def solutions(
    task: Task,
    subject: Ticket | Method,
    *,
    seed: int = 0,
    device: torch.device | str = "auto",
    run: Run | None = None,
) -> Solutions:
    """Train a ticket, and keep the network that its search pruned in each round beside it.

    Args:
        task: what is learnt.
        subject: a method, whose rounds are kept; or a ticket, of whose search only the dense network is trained again.
        seed: of the search and of all data orders; a ticket's own comes first.
        device: where networks train: the run's, or without a run CUDA if there is one, else the CPU.
        run: keeps finished trainings; in memory if None.

    Returns:
        The dense network, the networks of the search's stages and the ticket's, whole and with dead weights at zero.

    Raises:
        TombolaError: if the subject is none.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> found = solutions(toy_task(), tb.Iterative(density=0.5, count=2))
        >>> [own.name for own in found.networks]
        ['dense', 'round-01', 'ticket']
    """
    if isinstance(subject, str) or not (isinstance(subject, Ticket) or callable(getattr(subject, "find", None))):
        raise TombolaError(f"the subject is a {type(subject).__name__}; give a ticket, or a method as tb.method('imp')")
    device = agreed_device(device, None if run is None else run.device)
    if run is None:
        with bars() as shown:
            return solutions(task, subject, seed=seed, run=Run(seed, device=device, bars=shown))
    if isinstance(subject, Ticket):
        own = subject.start.seed if isinstance(subject.start, Seed) else subject.provenance.seed
        seed, ticket, stages, cost = seed if own is None else own, subject, [], Cost()
    else:
        name = f"search-{fingerprint([fingerprint_of(task, [Member(seed)]), identity(subject), seed])}"
        recording = _Recording.of(run.part(name, seed))
        ticket = find(task, subject, run=recording)
        stages, cost = _whole(recording.ends, task, seed), recording.cost
    if stages and not stages[0].mask.bits:
        stages[0] = Solution(DENSE, stages[0].network, stages[0].mask)
    else:
        part = run.part(f"dense-{fingerprint(fingerprint_of(task, [Member(seed)]))}", seed)
        dense = train(task, run=part)
        stages.insert(0, Solution(DENSE, dense.model, Mask({})))
        cost += dense.cost
    part = run.part(f"ticket-{fingerprint([fingerprint_of(task, [Member(seed, ticket)]), ticket.digest])}", seed)
    trained = train(task, ticket, run=part, small=False)
    mask = ticket.mask if ticket.dead == "zero" else Mask({})
    return Solutions((*stages, Solution(TICKET, trained.model, mask)), ticket, cost + trained.cost)


def _whole(ends: Sequence[Solution], task: Task, seed: int) -> list[Solution]:
    """The stages that trained the task's network, and not one with other parameters or a part of it."""
    shapes = {name: tensor.shape for name, tensor in tensors_of(task.build(seed)).items()}
    return [own for own in ends if {n: t.shape for n, t in tensors_of(own.network).items()} == shapes]
