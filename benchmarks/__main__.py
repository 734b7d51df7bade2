"""Every figure, on the terminal and in docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import (
    attacked,
    blocks,
    data,
    ensemble,
    filterwise,
    greedy,
    optimizers,
    peers,
    scores,
    search,
    shrinking,
    sparse,
    spiral,
    steps,
    studies,
)
from benchmarks.measure import Figure

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PARTS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        steps,
        optimizers,
        attacked,
        data,
        scores,
        search,
        shrinking,
        blocks,
        sparse,
        ensemble,
        spiral,
        greedy,
        filterwise,
        studies,
        peers,
    )
}
ELSEWHERE = {"peers"}
"""Parts that need libraries of their own, and so are measured only by name."""
NOISY = 0.15
"""The spread between quartiles from which a figure is not to be trusted."""


def main() -> int:
    wanted = [name for name in PARTS if name in sys.argv[1:]] or [name for name in PARTS if name not in ELSEWHERE]
    console = Console(width=150)
    loaded = os.getloadavg()[0] / (os.cpu_count() or 1)
    if loaded > 0.5:
        console.print(f"[yellow]This machine is busy (load {loaded:.1f} a core): figures may be off.[/]")
    parts = {
        name: list(PARTS[name].figures())
        for name in track(wanted, "benchmarks", console=Console(stderr=True), transient=True)
    }
    figures = [figure for part in parts.values() for figure in part]
    table = Table("figure", "ratio", "bar", "met", "spread", "measured")
    for figure in figures:
        table.add_row(figure.what, *_cells(figure))
    console.print(table)
    noisy = [figure for figure in figures if figure.spread > NOISY]
    if noisy:
        console.print(f"[yellow]{len(noisy)} figures spread by more than {NOISY:.0%} between quartiles: run again.[/]")
    for name, part in parts.items():
        PAGE.write_text(page(name, part))
    return 0


def page(part: str, figures: Sequence[Figure]) -> str:
    """The page with new figures of one part; the other parts stay as they are."""
    rows = "\n".join(f"| {' | '.join((figure.what, *_cells(figure)))} |" for figure in figures)
    before, _, after = PAGE.read_text().partition(f"<!-- {part} -->\n")
    after = after.partition(f"<!-- end of {part} -->")[2]
    return f"""{before}<!-- {part} -->
Measured {date.today()} on {machine()}{", " + peers.versions() if part in ELSEWHERE else ""}.

| figure | ratio | bar | met | spread | measured |
| --- | --- | --- | --- | --- | --- |
{rows}
<!-- end of {part} -->{after}"""


def machine() -> str:
    """The processor, its cores and threads, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
    processor = models[0] if models else platform.processor() or platform.machine()
    return (
        f"{os.cpu_count()} cores of {processor}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _cells(figure: Figure) -> tuple[str, ...]:
    bar = "" if figure.bar is None else f"≤ {figure.bar:g}"
    spread = f"{figure.spread:.0%}" if figure.spread else ""
    return f"{figure.ratio:.3g}", bar, figure.met, spread, figure.note


if __name__ == "__main__":
    sys.exit(main())
