"""How far apart a ticket and the dense network are while both train."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tombola.tickets import Ticket, parameters_of
from tombola.training import Observer, Run, State, Task, agreed_device, bars, recipe_of, seed_of, start_of


class _WeightsByEpoch(Observer):
    """Keeps the weights that a mask names, in one vector an epoch, on the CPU."""

    def __init__(self, names: list[str]) -> None:
        self._names, self.epochs = names, list[Tensor]()

    def epoch_end(self, state: State) -> bool:
        parameters = parameters_of(state.model)
        self.epochs.append(torch.cat([parameters[name].detach().float().cpu().flatten() for name in self._names]))
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = list(state["epochs"])


def training_distances(
    task: Task,
    ticket: Ticket,
    *,
    seed: int | None = None,
    device: torch.device | str = "auto",
    run: Run | None = None,
) -> list[float]:
    """Train a ticket and the dense network with the same order of data, and measure how far apart they are.

    The distance is ‖w_dense − w_ticket‖ / ‖w_dense‖ over the weights that the mask names, after each epoch (Li et al.,
    arXiv 2003.05733, who find it smaller for boosting tickets). All epochs of the dense network are kept in memory.

    Args:
        task: gives network, data, loss and recipe.
        ticket: the ticket, which trains by what it prescribes.
        seed: of the order of the data, and of the dense network's initialisation; the run's, or 0 without a run.
        device: where the networks train.
        run: where stages are kept; in memory if None.

    Returns:
        One distance an epoch, of as many as both train.

    Examples:
        >>> import tombola as tb
        >>> from tombola.testing import toy_task
        >>> task = toy_task(epochs=2)
        >>> distances = training_distances(task, tb.find(task, tb.OneShot(density=0.5)))
        >>> len(distances), all(distance > 0 for distance in distances)
        (2, True)
    """
    seed, device = seed_of(seed, run), agreed_device(device, None if run is None else run.device)
    if run is None:
        with bars() as shown:
            return training_distances(task, ticket, run=Run(seed, device=device, bars=shown))
    names = list(ticket.mask)
    dense, sparse = _WeightsByEpoch(names), _WeightsByEpoch(names)
    run.stage("dense", task, task.build(seed).to(run.device), observers=[dense])
    model = start_of(task, ticket, seed).to(run.device)
    run.stage("ticket", task, model, recipe=recipe_of(task, ticket), attached=ticket, observers=[sparse])
    both = zip(dense.epochs, sparse.epochs, strict=False)
    return [float((whole - part).norm() / whole.norm()) for whole, part in both]
