"""A process for each network; a JSON line for each job, as soon as it is known."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import tombola as tb
from networks.architectures import nets
from networks.cases import Case, NotApplicable, Wrong
from networks.jobs import (
    job_blocks,
    job_channels,
    job_channels_snip,
    job_head,
    job_mask,
    job_neuron,
    job_onnx,
    job_synflow,
    job_widths,
)
from networks.latency import job_latency
from networks.torch_pruned import job_tp, job_tp_helped

JOB_LIMIT, LIMIT = 25, 300
"""Seconds of processor time that a job and a network may take; on the clock six times as many, on a busy machine."""

LONG = {"onnx": 120, "latency": 240}
"""Jobs that may take longer."""


class Late(BaseException):
    """A job has used up its time."""


def late(*_: object) -> None:
    raise Late


RUN: dict[str, Callable[[Case], dict[str, Any]]] = {
    "mask": job_mask, "synflow": job_synflow, "channels": job_channels, "widths": job_widths,
    "channels-snip": job_channels_snip, "head": job_head, "neuron": job_neuron, "blocks": job_blocks, "tp": job_tp,
    "tp-helped": job_tp_helped, "latency": job_latency, "onnx": job_onnx,
}  # fmt: skip


def place_of(error: BaseException) -> str:
    """The deepest frame inside the product, or else inside whatever is installed."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if "/tombola/" in frame.filename]
    deepest = [f"{Path(f.filename).parent.name}/{Path(f.filename).name}:{f.lineno}" for f in (mine[-1:] + frames[-1:])]
    return " … ".join(deepest)


def one(name: str, jobs: list[str], out: Any) -> None:
    """Do the jobs for one network; a JSON line each, as soon as it is known."""
    torch.set_num_threads(1)

    def say(job: str, status: str, **facts: Any) -> None:
        out.write(json.dumps({"net": name, "job": job, "status": status} | facts) + "\n")
        out.flush()

    try:
        case = Case(name, nets()[name])
    except Exception as error:
        say("build", "crashes", error=f"{type(error).__name__}: {error}"[:300], at=place_of(error))
        return
    say("build", "works", params=sum(p.numel() for p in case._model.parameters()), out=list(case.shape))
    for job in jobs:
        start, status, facts = time.process_time(), "works", {}
        say(job, "started")
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                signal.signal(signal.SIGVTALRM, late)
                signal.setitimer(signal.ITIMER_VIRTUAL, LONG.get(job, JOB_LIMIT))
                with contextlib.redirect_stdout(sys.stderr):
                    facts = RUN[job](case)
                if facts.get("flops_kept", 0) > 0.98:
                    status = "idle"
            except NotApplicable:
                status = "n/a"
            except tb.TombolaError as error:
                status, facts = "refuses", {"error": str(error)[:500], "at": place_of(error)}
            except Wrong as error:
                status, facts = "wrong", {"error": str(error)[:500], "at": place_of(error)}
            except Late as error:
                status, facts = "timeout", {"error": f"over {LONG.get(job, JOB_LIMIT)} s", "at": place_of(error)}
            except Exception as error:
                status, facts = "crashes", {"error": f"{type(error).__name__}: {error}"[:500], "at": place_of(error)}
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        own = {f"{w.category.__name__}: {w.message}"[:300] for w in warned if "tombola" in str(w.category.__module__)}
        say(job, status, **facts, warned=sorted(own), cpu=round(time.process_time() - start, 1))


def child(name: str, jobs: list[str], path: Path) -> None:
    """A network in a process of its own, which ends when it has used up its time."""
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    with path.open("a") as out, open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        one(name, jobs, out)


def run(names: list[str], jobs: list[str], out: Path, workers: int) -> None:
    """So many processes at a time, forked from this one, in which all libraries are imported already."""
    import onnxscript  # noqa: F401
    import timm  # noqa: F401
    import torch_pruning  # noqa: F401
    import transformers  # noqa: F401

    _ = tb.Channels, tb.shrink, tb.scores.magnitude, tb.select  # loaded when they are first asked for

    torch.set_num_threads(1)
    out.touch()
    queue, going = [(name, jobs) for name in names], []
    while queue or going:
        while queue and len(going) < workers:
            name, asked = queue.pop(0)
            process = multiprocessing.get_context("fork").Process(target=child, args=(name, asked, out))
            process.start()
            going.append((process, name, asked, time.monotonic()))
        time.sleep(0.05)
        for entry in list(going):
            process, name, asked, began = entry
            if process.is_alive() and time.monotonic() - began < 6 * LIMIT:
                continue
            stuck = process.is_alive()
            if stuck:
                process.kill()
            process.join()
            going.remove(entry)
            mine = [own for own in map(json.loads, out.read_text().splitlines()) if own["net"] == name]
            if stuck or process.exitcode:
                job = next((own["job"] for own in mine[::-1] if own["status"] == "started"), "build")
                status = "timeout" if stuck or process.exitcode in (-24, -9) else "crashes"
                fact = {"net": name, "job": job, "status": status, "error": f"exit code {process.exitcode}"}
                with out.open("a") as file:
                    file.write(json.dumps(fact) + "\n")
                rest = asked[asked.index(job) + 1 :] if job in asked else []
                queue += [(name, rest)] if rest else []
            latest = {own["job"]: own["status"] for own in mine}
            print(f"{time.monotonic() - began:5.0f} s", name, *(f"{j}={s}" for j, s in latest.items()), flush=True)
