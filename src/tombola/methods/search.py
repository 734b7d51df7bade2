"""Finding a ticket with a method, and writing down how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any, Unpack

import torch

from tombola.methods.method_names import label_of
from tombola.methods.protocol import Method
from tombola.methods.sizing import Sized, counted, shaped_as, sized
from tombola.shrinking import Targets, target_of
from tombola.tickets import Ticket
from tombola.training import (
    Run,
    Task,
    agreed_device,
    bars,
    check_first_batch,
    fingerprint,
    identity,
    own_randomness,
    seed_of,
)


def find(
    task: Task,
    method: Method,
    *,
    seed: int | None = None,
    device: torch.device | str = "auto",
    run: Run | None = None,
    progress: bool = True,
    **targets: Unpack[Targets],
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
        **targets: what the smaller network shall be, in place of the method's density: `flops`, `parameters`, `speedup`
            and `latency` as of `tombola.shrinking.Target`. `round_to` and `protect` as of `tombola.Channels`.

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
            return find(task, method, run=Run(seed, device=device, bars=progress_bars), **targets)
    check_first_batch(task, run.seed, run.device)
    method, aimed = _aimed(task, method, targets, run)
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
    if aimed is not None:
        provenance = replace(provenance, target=aimed.to_json() | {"counted": counted(task, ticket, run)})
    return replace(ticket, provenance=provenance)


def _aimed(task: Task, method: Method, targets: Mapping[str, Any], run: Run) -> tuple[Method, Sized | None]:
    """The method at what keyword arguments ask for; what a clock decided once holds as long as the run's folder."""
    target, method = target_of(targets), shaped_as(method, targets)
    if not target.asked:
        return method, None
    kept, key = run.file("target.end"), fingerprint([identity(method), identity(target)])
    if kept is not None and (told := kept.load()) is not None and told["of"] == key:
        aimed = Sized.again(method, told)
    else:
        aimed = sized(task, method, target, run=run)
        if kept is not None:
            kept.save(aimed.to_json() | {"of": key})
    return aimed.method, aimed
