"""Draws the pictures of docs/gallery.md: python tests/make_gallery.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from made_up import run, study
from tombola.report.arms import GatheredArms
from tombola.report.exports import exports
from tombola.report.panels import figures
from tombola.studies.rankings import rankings

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "gallery"


def gathered() -> GatheredArms:
    """A made-up study of three methods at four densities, and of random tickets, of which the sparsest collapse."""
    densities = (0.5, 0.2, 0.05, 0.01)
    results, verdicts = study(densities=densities, seeds=5)
    tickets = [
        [own for own in results if (own.method, own.density, own.control) == (verdict.subject, verdict.density, "")]
        for verdict in verdicts
    ]
    for density in densities:
        shift = -0.5 if density == densities[-1] else -0.03
        results += [
            replace(own, metric=own.metric + shift) for own in (run("random", "", density, s) for s in range(5))
        ]
    return GatheredArms.of(results, verdicts, (), rankings(verdicts, tickets))


if __name__ == "__main__":
    own = gathered()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, figure in exports(own, figures(own)).items():
        (FOLDER / f"{name}.svg").write_text(figure.svg, encoding="utf-8")
