"""What a paper takes along: tables of what was measured, references of what is in the study, LaTeX that compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files

import pytest

from made_up import run, study
from tombola.errors import FileError
from tombola.evidence import judge
from tombola.registry import METHODS, SCORES
from tombola.report.arms import GatheredArms
from tombola.report.methods_paragraph import ENTRY, key_of, methods_paragraph, references_of_tests
from tombola.report.paper import PAPER, references, write_paper
from tombola.studies import Study
from tombola.studies.latex import latex_text
from tombola.studies.rankings import rankings


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    results, verdicts = study()
    own = Study(tuple(results), tuple(verdicts), title="Three & 50 % of _them_", task={"data": "digits"})
    folder = tmp_path_factory.mktemp("paper")
    return own, folder, write_paper(own, folder)


def test_the_table_says_what_was_measured(written):
    own, folder, _ = written
    rows = [line.split(" & ") for line in (folder / "verdicts.tex").read_text().splitlines() if "\\,\\%" in line]
    assert len(rows) == len(own.verdicts)
    for row, verdict in zip(rows, own.verdicts, strict=True):
        assert verdict.subject in row[0]
        assert f"{100 * verdict.means['ticket']:.2f}" in row[3]
        assert row[4] == f"{100 * verdict.means['dense']:.2f}"
        assert row[5] == f"{100 * verdict.dense.mean:+.2f}".replace("-", "$-$")
        assert ("textbf" in row[0]) == (verdict.wins is True)


def test_references_are_those_of_the_methods_in_the_study(written):
    text = (written[1] / "references.bib").read_text()
    assert re.findall(r"@\w+\{(\w+),", text) == ["frankle2019lottery", "lee2019snip", "sreenivasan2022rare"]
    assert "paper = " not in text
    cited = set(re.findall(r"\\cite\{(\w+)\}", (written[1] / "methods.tex").read_text()))
    assert cited == {"frankle2019lottery", "lee2019snip", "sreenivasan2022rare"}
    assert "(0, 1, 2)" in (written[1] / "methods.tex").read_text()


def test_the_paragraph_says_what_was_done_and_no_more():
    """Seeds as they were, settings that are used, no digest, and the tests with their papers."""
    recipe = {
        "schedule": "cosine",
        "milestones": [0.5],
        "gamma": 0.1,
        "momentum": 0.9,
        "optimizer": "adam",
        "warmup": 0.0,
    }
    settings = {"recipe": recipe, "subject": {"score": {"is": "mine", "source": "fb4ee1bf6d058860"}, "decay": 0.7}}
    results = [run("", "", 1.0, seed, settings={"recipe": recipe}) for seed in range(5)]
    results += [run(name, "", 0.1, seed, settings=settings) for name, n in (("a", 3), ("b", 5)) for seed in range(n)]
    verdicts = [
        replace(judge(name, 0.1, {"ticket": [0.9] * n, "dense": [0.9] * n}, range(n)), most=8)
        for name, n in (("a", 3), ("b", 5))
    ]
    tickets = [[r for r in results if r.method == name] for name in "ab"]
    ranked = rankings(verdicts, tickets) + rankings(verdicts, tickets, equal_cost=True)
    own = Study(tuple(results), tuple(verdicts), rankings=ranked)
    said = methods_paragraph(own, GatheredArms.of(results, verdicts, (), ranked), {})
    assert "over 3 to 5 seeds for each method and density, from 0, 1, 2, 3, 4" in said
    assert "decay 0.7" in said
    assert "schedule cosine" in said
    assert not re.search("milestones|gamma|momentum|warmup|fb4ee1", said)
    assert "At equal cost, the cheaper methods (but not the dense network)" in said
    cited = {key for keys in re.findall(r"\\cite\{([\w,]+)\}", said) for key in keys.split(",")}
    assert cited == {key_of(entry) for entry in references_of_tests(own)}
    assert "holm1979simple" in cited


def test_every_method_that_has_a_paper_has_a_reference():
    """So has every score that can be searched by its name."""
    known = files("tombola.report").joinpath("papers.bib").read_text()
    found = [paper[1] for match in ENTRY.finditer(known) if (paper := PAPER.search(match[0]))]
    papers = [one for own in found for one in own.split("; ")]
    assert len(found) == known.count("\n@")
    lacking = {
        entry.paper
        for registry in (METHODS, SCORES)
        for entry in registry.entries.values()
        if "baseline of every" not in entry.paper
        and not any(paper in entry.paper for own in papers for paper in own.split("; "))
    }
    assert lacking <= {"Jordao et al., IEEE JSTSP 2020", ""}
    assert references(["imp(floor=2)", "snip", "random", "mine"]).keys() == {"imp(floor=2)", "snip"}


@pytest.mark.parametrize("text", ["a_b", "50 %", "C:\\x{y}", "#1 & $2 ~^", "naïve ≥ 3 → 4", "Lévai 數"])
def test_texts_cannot_break_the_document(text):
    shown = latex_text(text)
    assert not re.search(r"(?<!\\)[_%#&]", shown)
    assert "數" not in shown


def test_files_of_others_stay(written, tmp_path):
    (tmp_path / "methods.tex").write_text("mine")
    with pytest.raises(FileError, match="was not written by Tombola"):
        write_paper(written[0], tmp_path)
    assert (tmp_path / "methods.tex").read_text() == "mine"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs apt-get install texlive-latex-base")
def test_the_document_compiles(written):
    folder = written[1]
    for command in (["pdflatex"], ["bibtex"], ["pdflatex"]):
        quiet = ["-interaction=nonstopmode", "-halt-on-error"] if command == ["pdflatex"] else []
        words = [*command, *quiet, "paper"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")
