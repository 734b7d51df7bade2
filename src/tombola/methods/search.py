"""Finding a ticket with a method, and writing down how."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version

from tombola.methods.method_names import label_of
from tombola.methods.protocol import Method
from tombola.tickets import Ticket
from tombola.training import Run, Task, bars, check_first_batch, identity, own_randomness, seed_of


def find(
    task: Task, method: Method, *, seed: int | None = None, run: Run | None = None, progress: bool = True
) -> Ticket:
    """Search for a ticket with a method.

    Args:
        task: what the network learns.
        method: how to search, as `OneShot(density=0.1)` or `method("imp")`.
        seed: of all that is random; the run's seed if None, or 0 without a run.
        run: where to keep stages, so that a killed search goes on; in memory if None.
        progress: whether to show bars on a terminal.

    Returns:
        The ticket. Its provenance says how it was found and what the search cost.

    Raises:
        TombolaError: if the method cannot search this network, the task's first batch shows that it cannot be learnt,
            or seed and run disagree.

    Examples:
        >>> import torch
        >>> import tombola as tb
        >>> data = {split: (torch.randn(64, 5), torch.arange(64) % 2) for split in ("train", "test")}
        >>> task = tb.SupervisedTask(model=lambda: torch.nn.Linear(5, 2), data=data)
        >>> ticket = tb.find(task, tb.OneShot(density=0.3))
        >>> ticket.mask.counts, ticket.provenance.method
        ({'weight': 3}, 'snip')
    """
    seed = seed_of(seed, run)
    if run is None:
        with bars(progress) as progress_bars:
            return find(task, method, run=Run(seed, bars=progress_bars))
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
