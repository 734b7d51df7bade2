"""tombola work STUDY: a worker that looks for runs of a study that nobody holds."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from tombola.cli.console import print_json
from tombola.cli.parse import read, seconds_of
from tombola.errors import TombolaError
from tombola.studies import TRACKERS, WorkOrder, work_as_told

ENDED = {
    "": "nothing is left to do",
    "time": "the time is up; the same command goes on",
    "stop": "the study was told to stop; tombola study begins it again",
}


@dataclass(frozen=True)
class WorkOptions:
    """Work on a study until nothing is left: look for a run that nobody holds, carry it out, and look again.

    Start as many workers as you like, on any machine that sees the study's folder. A run that another worker holds is
    passed over; what a killed worker leaves, the next one goes on with.
    """

    study: tyro.conf.Positional[Path]
    """folder of a study that `tombola study` wrote"""
    device: str = "auto"
    """where to compute: auto (CUDA if there is one), cpu, cuda, cuda:1, …"""
    threads: int = 1
    """threads of the processor"""
    limit_hours: float = math.inf
    """hours after which the worker ends"""
    run_limit: str = "none"
    """time that one run may take, as 30min or 2h; a run that takes longer is recorded as failed"""
    track: Annotated[tuple[str, ...], arg(help=f"trackers of runs: {', '.join(TRACKERS)}, or module:name")] = ()
    exact: bool = False
    """read a finished run only if its threads and device were those of this worker"""
    trust: bool = False
    """import the code that the study's plan names; only for studies of people you trust"""
    country: str = ""
    """your country's ISO code, such as DEU: estimates energy and CO₂e from its grid"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = read(WorkOptions, "work", words)
    if options.threads < 1:
        raise TombolaError(f"threads is {options.threads}; give at least 1")
    order = WorkOrder(
        str(options.study),
        options.device,
        options.threads,
        seconds_of(options.run_limit),
        time.time() + 3600 * options.limit_hours,
        options.track,
        options.exact,
        options.country,
        options.trust,
        folder=os.getcwd(),
        is_own_process=False,
    )
    tally = work_as_told(order)
    if options.json:
        print_json({"done": tally.done, "failed": tally.failed, "left": bool(tally.why)})
    else:
        failed = f", {tally.failed} of them failed" if tally.failed else ""
        print(f"This worker ended {tally.done + tally.failed} runs and searches{failed}: {ENDED[tally.why]}.")
    return 0
