"""Methods at the densities that reach a target, each solved for once in the life of a store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tombola.files import as_written, json_of, write_atomically
from tombola.methods import Method, Sized, shaped_as, sized
from tombola.shrinking import target_of
from tombola.studies.executor import Executor
from tombola.studies.sections import Section
from tombola.studies.spec import task_settings
from tombola.studies.store import Store
from tombola.training import Run, Task, fingerprint, identity


def aimed(
    task: Task,
    method: Method,
    targets: Mapping[str, Any],
    store: Store,
    executor: Executor,
    *,
    seed: int = 0,
    seeds: int = 1,
) -> tuple[Method, Sized | None]:
    """The method at what keyword arguments ask for, as the store knows it; None where they ask for no size.

    What is kept of it decides what a run is: a clock that is read twice would make two runs of one.

    Args:
        task: gives the network, and a batch to call it on.
        method: whose density does not matter where there is a target.
        targets: fields of `tombola.shrinking.Targets`.
        store: where it is kept.
        executor: on whose device a clock measures.
        seed: of the network.
        seeds: how many seeds the method will be searched with.

    Raises:
        TombolaError: if no density reaches the target.
    """
    target, method = target_of(targets), shaped_as(method, targets)
    if not target.asked:
        return method, None
    here = [torch.get_num_threads(), str(executor.device)] if target.is_measured else []
    settings = task_settings(task, seed, executor.device)
    of = [identity(method), identity(target), settings["network"], settings["data"], min(seeds, 2), *here]
    path = store.root / f"target-{fingerprint(of)}.json"
    known = None if store.fresh else as_written(path, lambda text: Sized.again(method, json_of(text)), "remove it")
    if known is None:
        known = sized(task, method, target, run=Run(seed, device=executor.device, bars=executor.bars), seeds=seeds)
        write_atomically(path, json.dumps(known.to_json()))
    return known.method, known


def target_section(found: Sequence[Sized]) -> Section:
    """The section of a report on what was asked for, counted and measured."""
    rows = []
    for own in found:
        told, seconds = own.to_json(), own.measured
        asked = ", ".join(f"{name} {value:g}" for name, value in own.asked.items())
        solved = f"{told['density']:.4g}" if "density" in told else f"{told['remove']} blocks fewer"
        gain = f"{seconds['whole'] / seconds['small']:.2f} ×, {1e3 * seconds['small']:.3g} ms" if seconds else "–"
        counted = (f"{own.counted[name]:.1%}" for name in ("flops", "parameters"))
        rows.append((str(own).partition(" to ")[0], asked, solved, *counted, gain))
    said = (
        "The densities were solved for. Counted is what stays of the first seed's network once all that can be cut out "
        "is gone; measured is a call of it, where a clock decided.",
    )
    head = ("method", "asked", "density", "FLOPs, counted", "parameters, counted", "measured")
    return Section("targets", "Targets", said, head, tuple(rows))
