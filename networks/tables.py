"""The table of what worked, and the page of the documentation that holds it."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Results = Mapping[tuple[str, str], Mapping[str, Any]]
"""What a network's job gave, by their names."""

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
SOURCES = ("tv", "timm", "hf")


def results_in(path: Path) -> Results:
    """The latest result of each job."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return {(own["net"], own["job"]): own for own in lines if own["status"] != "started"}


def table(results: Results) -> str:
    """A line a network, a column a job; the share of FLOPs that is left where something was cut."""
    names = sorted({name for name, _ in results}, key=lambda own: (SOURCES.index(own.split("/")[0]), own))
    jobs = list(dict.fromkeys(job for _, job in results if job != "build"))
    lines = [f"| network | {' | '.join(jobs)} |", "|" + " --- |" * (len(jobs) + 1)]
    for name in names:
        cells = [_cell(results.get((name, job), {"status": ""}), job) for job in jobs]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(own: Mapping[str, Any], job: str) -> str:
    if job == "latency" and own["status"] == "works" and "tp_x_b16" in own:
        return " ".join(f"{own[f'{whose}_x_b{batch}']}" for batch in (1, 16) for whose in ("tb", "tp"))
    share = f" {own['flops_kept']:.2f}" if "flops_kept" in own and own["status"] in ("works", "idle") else ""
    return own["status"] + share


def summary(results: Results) -> str:
    """How often each job ended how, and FLOPs, time and exactness beside Torch-Pruning's."""
    jobs = dict.fromkeys(job for _, job in results if job != "build")
    lines = [
        f"- {job}: " + ", ".join(f"{count} {status}" for status, count in counts.items())
        for job in jobs
        if (counts := Counter(own["status"] for (_, other), own in results.items() if other == job))
    ]
    # Torch-Pruning cuts streams and the inside of attention wherever there are some.
    cut = {(name, job): own for (name, job), own in results.items() if "flops_kept" in own}
    pairs = [
        (cut.get((name, "widths"), own), cut[name, "tp"])
        for (name, job), own in cut.items()
        if job == "channels" and (name, "tp") in cut
    ]
    if pairs:
        ratios = [own["flops_kept"] / other["flops_kept"] for own, other in pairs]
        times = [own["seconds"] / max(other["seconds"], 0.01) for own, other in pairs]
        gap, step = (max(own.get(name, 0.0) for own, _ in pairs) for name in ("gap", "step_gap"))
        lines.append(
            f"- FLOPs kept at 50 % of channels, of streams and of heads too, ÷ Torch-Pruning's, {len(pairs)} networks: "
            f"median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}; finding and cutting takes "
            f"{statistics.median(times):.1f} × its time; largest gap to the masked network {gap:.0e}, "
            f"after one more step in both {step:.0e}"
        )
    return "\n".join(lines)


def write_page(part: str, text: str) -> None:
    """Put a part into the documentation's page, between its marks."""
    before, _, after = PAGE.read_text().partition(f"<!-- {part} -->\n")
    PAGE.write_text(
        f"{before}<!-- {part} -->\n{text}\n<!-- end of {part} -->{after.partition(f'<!-- end of {part} -->')[2]}"
    )
