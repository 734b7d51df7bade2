"""Workers on Ray and as SLURM's jobs, and trackers, with the real libraries: the same table as here."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from tombola.studies import PLAN, Store, WorkOrder, rows_of, work_as_told

# Their processes go on when the test has ended.
pytestmark = pytest.mark.filterwarnings("ignore")

FILE = """
seeds = 1
controls = ["shuffle"]
[[tasks]]
data = "digits"
width = 0.1
recipe = { epochs = 1, batch = 256 }
[[methods]]
method = "snip"
densities = [0.5]
"""


@pytest.fixture
def order(tmp_path):
    def make(name: str, **how) -> WorkOrder:
        (tmp_path / name).mkdir()
        (tmp_path / name / PLAN).write_text(FILE)
        return WorkOrder(str(tmp_path / name), device="cpu", threads=1, **how)

    return make


def told(order: WorkOrder) -> list[tuple]:
    rows = rows_of(Store(Path(order.study)).results())
    return sorted((row["run"], row["metric"], row["loss"], row["together"]) for row in rows)


def test_a_study_on_ray_is_that_of_one_process(order):
    ray = pytest.importorskip("ray")
    from tombola.integrations.ray_cluster import RayCluster

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        here, there = order("here"), order("there")
        work_as_told(here)
        tallies = dict(RayCluster("auto", 2, "cpu").map(work_as_told, [there, there], [0, 1]))
    finally:
        ray.shutdown()
    assert sum(tally.done for tally in tallies.values()) == 4
    assert told(there) == told(here)


def test_an_array_of_jobs_is_submitted_and_printed(order):
    pytest.importorskip("submitit")
    from tombola.integrations.slurm_jobs import slurm_array

    here, there = order("here"), order("there")
    work_as_told(here)
    assert len(slurm_array(there, 2, "local")["jobs"]) == 2
    until = time.monotonic() + 120
    while len(told(there)) < 3 and time.monotonic() < until:
        time.sleep(0.5)
    assert told(there) == told(here)
    script = slurm_array(there, 3, "print")["script"]
    assert "#SBATCH --array=0-2" in script
    assert script.splitlines()[-1].startswith("tombola work ")


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_tracker_shows_every_run(order, name, tmp_path, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    study = order("tracked", trackers=(name,))
    assert work_as_told(study).failed == 0
    if name == "tensorboard":
        runs = [path.parent.name for path in Path(study.study).glob("tensorboard/*/events*")]
        assert sorted(runs) == [run for run, *_ in told(study)]
    assert len(told(study)) == 3
    assert not math.isnan(told(study)[0][1])
    assert json.loads(next(Path(study.study).glob("*/result.json")).read_text())
