"""A study's verdicts as a table for LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tombola.evidence import Verdict, interval
from tombola.studies.result import Result

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "−": "$-$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
    "\u00a0": "~",
    "₂": r"\textsubscript{2}",
    "ε": r"$\varepsilon$",
    "“": "``",
    "”": "''",
}
WORDS: Mapping[bool | None, str] = {True: "wins", False: "does not win", None: "undecided"}


def latex_text(text: str) -> str:
    """A text as LaTeX shows it; what plain LaTeX has no sign for becomes a question mark.

    Examples:
        >>> print(latex_text("snip_2 at 5 % − 0.1"))
        snip\\_2 at 5 \\% $-$ 0.1
    """
    return "".join(SPECIAL.get(sign, sign if sign.isascii() and sign.isprintable() else _latin(sign)) for sign in text)


def _latin(sign: str) -> str:
    return sign if sign.isprintable() and "\u00c0" <= sign <= "\u017f" else "?" if sign.strip() else " "


def verdict_table(verdicts: Sequence[Verdict], results: Sequence[Result], caption: str = "", label: str = "") -> str:
    """A table of booktabs: a row for each verdict, with the means of ticket and dense, differences and the verdict.

    Args:
        verdicts: the rows; winners are set in bold.
        results: of all runs, from which the intervals of the means are.
        caption: below the table; "" leaves out the float around it.
        label: to refer to the table.
    """
    measure = verdicts[0].measure if verdicts else None
    arms = list(dict.fromkeys(own.against for verdict in verdicts for own in (verdict.dense, *verdict.controls)))
    unit = r" (\%)" if measure and measure.share else ""
    name = latex_text(measure.name[:1].upper() + measure.name[1:]) if measure else "Metric"
    head = [
        "Method",
        "Density",
        "Seeds",
        f"{name}{unit}",
        f"Dense{unit}",
        *(f"$-$ {latex_text(arm)}" for arm in arms),
        "Verdict",
    ]
    lines = [
        f"\\begin{{tabular}}{{@{{}}lrr{'r' * (len(arms) + 2)}l@{{}}}}",
        "\\toprule",
        f"{' & '.join(head)} \\\\",
        "\\midrule",
        *(f"{' & '.join(_cells(verdict, results, arms))} \\\\" for verdict in verdicts),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    if caption:
        lines = ["\\begin{table}", "\\centering\\small", *lines, f"\\caption{{{latex_text(caption)}}}"]
        lines += [f"\\label{{{label}}}"] if label else []
        lines += ["\\end{table}"]
    return "\n".join(lines) + "\n"


def _cells(verdict: Verdict, results: Sequence[Result], arms: Sequence[str]) -> list[str]:
    differences = {own.against: own for own in (verdict.dense, *verdict.controls)}
    return [
        _strong(latex_text(verdict.subject), verdict),
        f"{100 * verdict.density:.4g}\\,\\%",
        str(len(verdict.seeds)),
        _strong(_mean(verdict, results), verdict),
        latex_text(verdict.measure.text(verdict.means["dense"]).removesuffix(" %")),
        *(
            latex_text(differences[arm].measure.signed(differences[arm].mean)) if arm in differences else ""
            for arm in arms
        ),
        _strong(WORDS[verdict.wins], verdict),
    ]


def _strong(text: str, verdict: Verdict) -> str:
    return f"\\textbf{{{text}}}" if verdict.wins else text


def _mean(verdict: Verdict, results: Sequence[Result]) -> str:
    """The ticket's mean, with half of its 95 % interval where three seeds give one."""
    measure = verdict.measure
    mean = latex_text(measure.text(verdict.means["ticket"]).removesuffix(" %"))
    own = [
        result.metric
        for result in results
        if result.method == verdict.subject
        and not result.control
        and math.isclose(result.density, verdict.density)
        and result.seed in verdict.seeds
    ]
    if len(own) < 3:
        return mean
    middle, low, high = interval(own, measure.bounds)
    half = measure.text(max(high - middle, middle - low)).removesuffix(" %")
    return f"{mean} $\\pm$ {half}"
