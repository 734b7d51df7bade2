"""Makes the golden fixtures under data/ by this tree: PYTHONPATH=src python tests/golden/make.py [PART…]

What is committed was made by the tree at commit 3f24205, on one thread; the tests beside hold later trees to it.
Make a part again (PARTS, all if none is named) only where its behaviour is meant to change, and say so in the commit;
`stores` and `tickets` never, since they stand for what users have on their disks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pinned
import torch
import world


def searches() -> None:
    """Masks and losses of every preset."""
    told, bits = {}, {}
    for network, name in pinned.CASES:
        own, mask = pinned.searched(network, name)
        told[f"{network}/{name}"] = own
        if mask is not None:
            bits[f"{network}/{name}"] = pinned.packed(mask)
    write("searches", told, bits)


def scores() -> None:
    """Scores of every kind."""
    told, numbers = {}, {}
    for network, name, masked in pinned.SCORED:
        key = f"{network}/{name}/{'masked' if masked else 'whole'}"
        found = pinned.scored(network, name, masked)
        if isinstance(found, str):
            told[key] = {"refusal": found}
        else:
            told[key] = {"shapes": pinned.shapes_of(found)}
            numbers[key] = np.concatenate(list(pinned.summary(found).values()))
    write("scores", told, numbers)


def orders() -> None:
    """The order of units."""
    write("orders", {f"{network}/{name}": pinned.order(network, name) for network, name in pinned.ORDERED})


def records() -> None:
    """The records of claims."""
    write("records", {path.name: pinned.records(path) for path in sorted(pinned.RECORDS.glob("*.jsonl"))})


def tickets() -> None:
    """Files of tickets of every kind."""
    (pinned.DATA / "tickets").mkdir(exist_ok=True, parents=True)
    told = {}
    for name, ticket in pinned.tickets().items():
        ticket.save(pinned.ticket_file(name))
        told[name] = pinned.content(ticket)
    write("tickets", told)


def stores() -> None:
    """A finished study and killed runs, each as its folders in an archive; what an undisturbed run came to beside."""
    told: dict[str, Any] = {"versions": pinned.versions()}
    with working_folder():
        assert world.command(pinned.STUDY) == 0
        archive("study", "study")
    for name, own in pinned.KILLED.items():
        with working_folder(), world.saved_at_every_epoch():
            with pinned.steps_counted() as counted:
                assert world.command([*own.words, "--out", "whole"]) == 0
            whole = pinned.outcome(Path("whole"))
            shutil.rmtree("runs", ignore_errors=True)
            with pinned.steps_counted(own.after):
                assert world.command([*own.words, "--out", "killed"]) == 130
            assert [*Path("killed").rglob("*.going.pt")]
            archive(name, "killed", "runs")
            with pinned.steps_counted() as left:
                assert world.command([*own.words, "--out", "killed"]) == 0
            assert 0 < left[0] < counted[0] - own.after + own.steps_an_epoch
            pinned.check_same(pinned.outcome(Path("killed")), whole, 0.0)
            told[name] = whole | {"left": left[0]}
            if Path("whole/ticket.safetensors").exists():
                shutil.copy("whole/ticket.safetensors", pinned.DATA / "stores" / f"{name}.safetensors")
    write("stores", told)


@contextlib.contextmanager
def working_folder() -> Generator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def archive(name: str, *folders: str) -> None:
    """What runs wrote into folders, but neither reports nor locks."""
    (pinned.DATA / "stores").mkdir(exist_ok=True, parents=True)
    with zipfile.ZipFile(pinned.DATA / "stores" / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(own for folder in folders for own in Path(folder).rglob("*")):
            if path.suffix in (".json", ".jsonl", ".safetensors", ".pt"):
                file.write(path)


PARTS: dict[str, Callable[[], None]] = {
    "searches": searches,
    "scores": scores,
    "orders": orders,
    "records": records,
    "tickets": tickets,
    "stores": stores,
}


def write(name: str, told: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
    """One line of JSON an entry, with what stands there often written once; arrays beside, compressed."""
    shared: dict[str, int] = {}
    for own in told.values():
        if isinstance(own, dict) and "shapes" in own:
            own["shapes"] = shared.setdefault(json.dumps(own["shapes"]), len(shared))
    content = told | ({"shapes": [json.loads(text) for text in shared]} if shared else {})
    lines = [f"{json.dumps(key)}: {json.dumps(own)}" for key, own in content.items()]
    pinned.DATA.mkdir(exist_ok=True)
    (pinned.DATA / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if arrays is not None:
        np.savez_compressed(pinned.DATA / f"{name}.npz", **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
