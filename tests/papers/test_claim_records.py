"""Every record of a claim is a run of today: nothing is measured again."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch

from tombola.papers.claims import CLAIMS, Measurement, load_records, load_taken
from tombola.papers.claims.measuring import as_on_record, specs_of
from tombola.registry import DATA
from tombola.studies import Serial, digest
from tombola.zoo.fashion_mnist import DEBIAN

RECORDS = Path(__file__).parents[2] / "docs" / "claims"
ON_RECORD = [name for name in CLAIMS if (RECORDS / f"{name}.jsonl").exists()]
MEASURED = [name for name in ON_RECORD if isinstance(CLAIMS[name].protocols["standard"], Measurement)]
TRAINED = [name for name in ON_RECORD if name not in MEASURED]


@pytest.fixture(scope="module", autouse=True)
def _data_read_once():
    """Several claims are about the same data."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fashion-mnist", "fashion-mnist-14"):
            patch.setitem(DATA._objects, name, lru_cache(DATA[name]))
        yield


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("seeds", [1, pytest.param(None, marks=pytest.mark.slow)], ids=["first", "all"])
def test_every_run_of_a_claim_is_on_record(name, seeds):
    records = load_records(RECORDS / f"{name}.jsonl")
    on_record = {digest(own.settings) for own in records}
    protocol = CLAIMS[name].protocols["standard"]
    if not (protocol.task.data.startswith("fashion-mnist") and DEBIAN.exists()):
        pytest.skip(f"the data {protocol.task.data} are not here")
    # Where seeds are added until it is decided, those that were run.
    seeds = seeds or 1 + max(own.seed for own in records)
    asked = [spec for spec in as_on_record(specs_of(protocol), records) if spec.seed < seeds]
    tasks = Serial().tasks
    missing = [spec for spec in asked if digest(tasks.known(spec, torch.device("cpu"))[1]) not in on_record]
    assert [(spec.method, spec.control, spec.seed) for spec in missing] == []


@pytest.mark.parametrize("name", MEASURED)
def test_every_figure_of_a_measured_claim_is_on_record(name):
    protocol, taken = CLAIMS[name].protocols["standard"], load_taken(RECORDS / f"{name}.jsonl")
    assert [own.seed for own in taken] == list(range(protocol.seeds))
    assert all(digest(own.settings) == digest(protocol.asked) for own in taken)
