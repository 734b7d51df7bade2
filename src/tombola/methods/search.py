"""Finding a ticket with a method, and writing down how."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version

import torch

from tombola.methods.method_names import label_of
from tombola.methods.protocol import Method
from tombola.tickets import Ticket
from tombola.training import Run, Task, agreed_device, bars, check_first_batch, identity, own_randomness, seed_of


def find(
    task: Task,
    method: Method,
    *,
    seed: int | None = None,
    device: torch.device | str = "auto",
    run: Run | None = None,
    progress: bool = True,
) -> Ticket:
    """Search for a ticket with a method.

    Args:
        task: what the network learns.
        method: how to search, as `OneShot(density=0.1)` or `method("imp")`.
        seed: of all that is random; the run's seed if None, or 0 without a run.
        device: where networks train: the run's, or without a run CUDA if there is one, else the CPU; or one of your
            choice, as `cuda:1`.
        run: where to keep stages, so that a killed search goes on; in memory if None.
        progress: whether to show bars on a terminal.

    Returns:
        The ticket. Its provenance says how it was found and what the search cost.

    Raises:
        TombolaError: if the method cannot search this network, the task's first batch shows that it cannot be learnt,
            seed or device and the run disagree, or there is no such device.

    Examples:
        >>> import torch
        >>> import tombola as tb
        >>> data = {split: (torch.randn(64, 5), torch.arange(64) % 2) for split in ("train", "test")}
        >>> task = tb.SupervisedTask(model=lambda: torch.nn.Linear(5, 2), data=data)
        >>> ticket = tb.find(task, tb.OneShot(density=0.3))
        >>> ticket.mask.counts, ticket.provenance.method
        ({'weight': 3}, 'snip')
    """
    seed, device = seed_of(seed, run), agreed_device(device, None if run is None else run.device)
    if run is None:
        with bars(progress) as progress_bars:
            return find(task, method, run=Run(seed, device=device, bars=progress_bars))
    check_first_batch(task, run.seed, run.device)
    with own_randomness(run.device, run.seed):
        ticket = method.find(task, run)
    provenance = replace(
        ticket.provenance,
        method=label_of(method),
        settings=identity(method),
        task=dict(getattr(task, "labels", {})),
        cost=asdict(run.cost),
        seed=run.seed,
        ties=ticket.mask.ties,
        version=version("tombola"),
    )
    return replace(ticket, provenance=provenance)
