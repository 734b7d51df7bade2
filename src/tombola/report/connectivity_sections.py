"""Sections of a report on stability: the barriers from each point, and how the solutions of a search lie."""

from __future__ import annotations

from tombola.connectivity import Landscape, Stability
from tombola.report.distance_matrix import matrix_picture
from tombola.report.line_curves import lines_picture
from tombola.studies import Section


def stability_section(found: Stability, said: str = "") -> Section:
    """From which points training is stable.

    Args:
        found: the points.
        said: what is said in place of the findings' own words.
    """
    kinds = list(found.points[0].barriers)
    rows = tuple(
        (
            point.at,
            f"{point.step:,}",
            str(len(point.pairs)),
            *(point.measure.size(point.barriers[kind]) for kind in kinds),
            "stable" if point.stable else "not stable",
        )
        for point in found.points
    )
    head = ("from", "step", "pairs", *(f"barrier, {kind}, {found.points[0].measure.unit}" for kind in kinds), "")
    note = (
        "Copies trained from each point, each in its own order of the data. The barrier is how far the metric falls on "
        "the straight line between two of them, below the mean of its ends."
    )
    pictures = {"The metric on the lines": lines_picture(found)}
    return Section("stability", "Is training stable?", (said or str(found), note), head, rows, pictures)


def landscape_section(found: Landscape) -> Section:
    """How the solutions of a search lie to each other."""
    note = (
        "Barriers are of the metric on the line between two trained networks; lines and angles run over the weights "
        "that both keep. An angle of 1 is a right one."
    )
    pictures = {"Distances of the solutions": matrix_picture(found.names, matrices_of(found))}
    said = (found.sentence, note) if found.sentence else (note,)
    return Section("solutions", "How solutions lie to each other", said, pictures=pictures)


def matrices_of(found: Landscape) -> dict[str, tuple[tuple[float, ...], ...]]:
    """The matrices of a landscape by what they are called in pictures."""
    return {
        f"barrier, {found.measure.unit} ({found.split} split)": tuple(
            tuple(found.measure.scale * own for own in row) for row in found.barriers
        ),
        "angle, right angles": found.angles,
        "masks, 1 − intersection over union": found.mask_distances,
    }
