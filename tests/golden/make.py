"""Makes the golden fixtures under data/ from the tree that is imported: `python tests/golden/make.py [PART…]`.

The tests beside compare a tree with what the tree at commit 3f24205 came to, for which PYTHONPATH=src of its checkout
was given. Make them again only where behaviour is meant to change, and only the part (PARTS) that it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pinned
import torch


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


PARTS: dict[str, Callable[[], None]] = {"searches": searches, "scores": scores, "orders": orders, "records": records}


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
