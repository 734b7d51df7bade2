"""What a paper takes from a study: tables, figures, a paragraph on methods and their references, for LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tombola.errors import FileError
from tombola.evidence import Ranking
from tombola.files import content_of, write_atomically
from tombola.registry import METHODS, SCORES
from tombola.report.arms import GatheredArms
from tombola.report.exports import export
from tombola.report.methods_paragraph import ENTRY, methods_paragraph, references_of_tests
from tombola.report.panels import Panel, figures
from tombola.report.prose import NOTHING, counted, number
from tombola.report.ranking_tables import COST
from tombola.report.theme import LIGHT, vega_config
from tombola.studies import Study
from tombola.studies.latex import latex_text
from tombola.studies.result import Result

MARK = "% Made by Tombola"
COLUMN = 234
"""The width of a column of 3.25 inches, in points."""
PAPER = re.compile(r"^  paper = \{(.*)\},\n", re.MULTILINE)


def write_paper(study: Study, folder: Path) -> list[Path]:
    """Write what a paper takes from a study.

    `paper.tex` holds all of it and can be compiled; `verdicts.tex`, `ranking.tex` and `methods.tex` are made to be
    taken into another document (\\input), `references.bib` holds the papers of the methods that are in the study, and
    the figures are PDF files of one style, as wide as a column.

    Args:
        study: what was measured.
        folder: where to write; it is made if it is missing.

    Returns:
        The paths of all files.

    Raises:
        FileError: there are files of these names that Tombola did not write.
    """
    gathered = GatheredArms.of(study.results, study.verdicts, study.sanity, study.rankings)
    config = _style(len(gathered.densities))
    drawn = figures(gathered)
    panels = {panel.key: panel for name in ("accuracy", "differences", "ranking") for panel in drawn[name].panels}
    cited = references(gathered.methods, study.results)
    verdicts = study.to_latex() if study.verdicts else ""
    content: dict[str, str | bytes] = {
        "methods.tex": methods_paragraph(study, gathered, cited),
        "references.bib": "\n".join([*dict.fromkeys(cited.values()), *references_of_tests(study)]),
        **({"verdicts.tex": verdicts} if verdicts else {}),
        **({"ranking.tex": _rankings(study.rankings)} if study.rankings else {}),
        **{f"{key}.pdf": export(_column(panel, config)).pdf for key, panel in panels.items()},
    }
    content = {"paper.tex": _document(study, gathered, panels, content), **content}
    _refuse_foreign(folder, content)
    for name, own in content.items():
        write_atomically(folder / name, f"{MARK}\n{own}" if isinstance(own, str) else own)
    return [folder / name for name in content]


def references(methods: Sequence[str], results: Sequence[Result] = ()) -> dict[str, str]:
    """The BibTeX entry of each method's paper; none of a method that has no paper, as a random choice.

    Args:
        methods: what they are called: a preset's name, with what differs from it in parentheses.
        results: of which those of a method say by what score it searched, where it is no preset.

    Examples:
        >>> entry = references(["imp(floor=1)", "random"])["imp(floor=1)"]
        >>> entry.splitlines()[1]
        '  author = {Frankle, Jonathan and Carbin, Michael},'
    """
    text = files("tombola.report").joinpath("papers.bib").read_text(encoding="utf-8")
    known = {paper[1]: match[0] for match in ENTRY.finditer(text) if (paper := PAPER.search(match[0]))}
    found = {}
    for method in methods:
        said = _paper_of(method, results)
        for papers, entry in known.items():
            if any(paper in said for paper in papers.split("; ")):
                found[method] = PAPER.sub("", entry)
    return found


def _paper_of(method: str, results: Sequence[Result]) -> str:
    """How the registry cites a method; or the score by which it searches, where the method is no preset."""
    name = method.partition("(")[0].partition(" #")[0]
    if name in METHODS.entries:
        return METHODS.entries[name].paper
    scores = (r.settings.get("subject", {}).get("score", {}) for r in results if r.method == method)
    names = [str(own.get("is", "")).partition("@")[0] for own in scores if isinstance(own, Mapping)]
    return next((SCORES.entries[own].paper for own in [name, *names] if own in SCORES.entries), "")


def _style(steps: int) -> dict[str, Any]:
    """The page's look with type of eight points."""
    config: dict[str, Any] = {**vega_config(LIGHT, steps), "background": "white"}
    small = {"labelFontSize": 7.5, "titleFontSize": 8}
    config |= {"text": config["text"] | {"fontSize": 7.5}, "point": {"size": 26}}
    config["axis"] = config["axis"] | small | {"labelColor": "#000000", "titleColor": "#000000"}
    config["legend"] = config["legend"] | small | {"columns": 3, "symbolSize": 30, "labelColor": "#000000"}
    return config


def _column(panel: Panel, config: Mapping[str, Any]) -> dict[str, Any]:
    """A panel as wide as a column."""
    fit = {"type": "fit-x", "contains": "padding"}
    height = panel.chart["height"]
    chart = panel.chart | {"height": min(height, 150)} if panel.key in ("accuracy", "spending") else panel.chart
    return chart | {"width": COLUMN, "autosize": fit, "padding": 2, "config": config}


def _rankings(rankings: Sequence[Ranking]) -> str:
    lines = ["\\begin{tabular}{@{}llrrl@{}}", "\\toprule", "Method & & Mean & Rank & Cost \\\\"]
    for ranking in rankings:
        lines += ["\\midrule", f"\\multicolumn{{5}}{{@{{}}l}}{{{latex_text(_titled(ranking))}}} \\\\"]
        for place in ranking.places:
            cost = NOTHING if place.cost is None else number(place.cost)
            cells = (place.method, place.groups, ranking.measure.text(place.mean), f"{place.rank:.2f}", cost)
            lines.append(f"{' & '.join(map(latex_text, cells))} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _titled(ranking: Ranking) -> str:
    return f"{ranking.title}, {counted(len(ranking.seeds), 'seed')}"


def _document(study: Study, gathered: GatheredArms, panels: Mapping[str, Panel], content: Mapping[str, Any]) -> str:
    """A document that holds all of it, to compile and to copy from."""
    lines = [
        "\\documentclass[twocolumn]{article}",
        "\\usepackage[utf8]{inputenc}",
        "\\usepackage[T1]{fontenc}",
        "\\usepackage{graphicx}",
        "\\IfFileExists{booktabs.sty}{\\usepackage{booktabs}}"
        "{\\newcommand{\\toprule}{\\hline}\\newcommand{\\midrule}{\\hline}\\newcommand{\\bottomrule}{\\hline}}",
        f"\\title{{{latex_text(study.title or 'Tickets')}}}",
        "\\author{}",
        "\\begin{document}",
        "\\maketitle",
        "\\section{Methods}",
        "\\input{methods}",
        "\\section{Results}",
    ]
    unit = "points" if gathered.measure.share else latex_text(gathered.measure.unit)
    tables = {
        "verdicts.tex": "Means on the test split with 95\\,\\% intervals, dense over the seeds of the row, and "
        f"differences to dense and controls in {unit}.",
        "ranking.tex": "Methods in order, over the seeds that all of them have. Those that share a letter were not "
        f"told apart (Holm's method). Rank: within a seed, mean over seeds; 1 is best. {COST}",
    }
    for name, caption in tables.items():
        if name in content:
            star, stem = "*" if name == "verdicts.tex" else "", name.removesuffix(".tex")
            lines += [
                f"\\begin{{table{star}}}",
                "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
                f"\\input{{{stem}}}",
            ]
            lines += [f"\\caption{{{caption}}}\\label{{tab:{stem}}}", f"\\end{{table{star}}}"]
    for key, panel in panels.items():
        caption = latex_text(f"{panel.chart['description']}.")
        lines += ["\\begin{figure}", "\\centering", f"\\includegraphics[width=\\columnwidth]{{{key}.pdf}}"]
        lines += [f"\\caption{{{caption}}}\\label{{fig:{key}}}", "\\end{figure}"]
    cites = ["\\bibliographystyle{plain}", "\\bibliography{references}"] if content["references.bib"] else []
    return "\n".join([*lines, "\\clearpage", *cites, "\\end{document}"]) + "\n"


def _refuse_foreign(folder: Path, content: Mapping[str, Any]) -> None:
    """Refuse to replace files that are not from here; pictures do not say so, but stand beside a document that does."""
    own = folder / "paper.tex"
    if own.is_file() and content_of(own).startswith(MARK.encode()):
        return
    for name in content:
        if (folder / name).exists() or (folder / name).is_symlink():
            raise FileError(f"{folder / name} was not written by Tombola; choose another folder, so that it stays")
