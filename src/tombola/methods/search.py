"""Finding a ticket with a method, and writing down how."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version

from tombola.methods.method_names import label_of
from tombola.methods.protocol import Method
from tombola.tickets import Ticket
from tombola.training import Run, Task, bars, identity, own_randomness, seed_of


def find(
    task: Task, method: Method, *, seed: int | None = None, run: Run | None = None, progress: bool = True
) -> Ticket:
    """Search for a ticket; its provenance says how it was found and what that cost.

    seed: of all that is random; the run's if None, or 0 without one. run: where to keep stages, so that a killed search
    goes on; in memory if None. progress: bars on a terminal.
    """
    seed = seed_of(seed, run)
    if run is None:
        with bars(progress) as shown:
            return find(task, method, run=Run(seed, bars=shown))
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
