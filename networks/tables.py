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


def parts_of(results: Results) -> dict[str, str]:
    """The text of each part of the page for which there are results."""
    apart = {job: {key: own for key, own in results.items() if key[1] == job} for job in ("onnx", "latency")}
    rest = {key: own for key, own in results.items() if key[1] not in apart}
    parts = {"networks": f"{summary(rest)}\n\n{table(rest)}"} if any(job != "build" for _, job in rest) else {}
    texts = {"onnx": onnx_part, "latency": latency_part}
    return parts | {job: texts[job](own) for job, own in apart.items() if own}


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


def onnx_part(results: Results) -> str:
    """How many smaller networks ONNX Runtime computes, and why the others are none of its files."""
    tried = {name: own for (name, job), own in results.items() if job == "onnx" and own["status"] != "n/a"}
    works = [own for own in tried.values() if own["status"] == "works"]
    cut = Counter(own["cut"] for own in works)
    lines = [
        f"{len(works)} of {len(tried)} smaller networks ({cut['widths']} cut along all widths, {cut['channels']} by "
        f"channels) are written, and ONNX Runtime's outputs are PyTorch's: the largest difference is "
        f"{max((own['gap'] for own in works), default=0.0):.0e} of the largest output.",
    ]
    others = {name: own for name, own in tried.items() if own["status"] != "works"}
    if others:
        lines += ["", "| network | outcome | why |", "| --- | --- | --- |"]
    for name, own in others.items():
        lines.append(f"| {name} | {own['status']} | {own.get('error', '').replace('|', '/')} |")
    return "\n".join(lines)


def latency_part(results: Results) -> str:
    """A line a network: FLOPs and ratios of times, with their 95 % intervals."""
    ratios = ("whole ÷ ours", "whole ÷ theirs", "ours ÷ theirs")
    lines = [
        f"| network | whole, ms | FLOPs kept, ours | Torch-Pruning's | {' | '.join(ratios)} |",
        "|" + " --- |" * (4 + len(ratios)),
    ]
    for (name, job), own in results.items():
        if job == "latency" and own["status"] == "works":
            cells = ["{:.2f} ({:.2f} to {:.2f})".format(*own[ratio]) for ratio in ratios]
            kept = [f"{own[f'{whose}_kept']:.2f}" for whose in ("ours", "theirs")]
            lines.append(f"| {name} | {own['ms']:.1f} | {' | '.join([*kept, *cells])} |")
    return "\n".join(lines)


def write_page(part: str, text: str) -> None:
    """Put a part into the documentation's page, between its marks."""
    before, _, after = PAGE.read_text().partition(f"<!-- {part} -->\n")
    PAGE.write_text(
        f"{before}<!-- {part} -->\n{text}\n<!-- end of {part} -->{after.partition(f'<!-- end of {part} -->')[2]}"
    )
