"""Every Python block of README, CONTRIBUTING and docs runs, in order, within its page."""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from tombola.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


RUN_ELSEWHERE = {"frameworks.md"}
"""Pages that need libraries of integrations, whose tests run them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_python_runs(page, tmp_path, monkeypatch):
    if page.name in RUN_ELSEWHERE:
        pytest.skip("tests/integrations/test_frameworks_page.py runs it")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), names)


class Understood(Exception):
    """The command line has been read; what follows would take minutes."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_commands_are_understood(page, monkeypatch, tmp_path, capsys):
    """Every `tombola …` of a shell block is read by the real command line, up to where the work begins."""

    def understood(*_, **__):
        raise Understood

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(
        "from tombola.scores import magnitude as my_score\nfrom tombola import OneShot as MyMethod\n"
    )
    for command in (
        "find",
        "train",
        "check",
        "compare",
        "sanity",
        "robustness",
        "enough",
        "shrink",
        "smaller",
        "sensitivity",
        "sparsest",
        "stability",
        "transfer",
        "transfer_data",
    ):
        module = importlib.import_module(f"tombola.cli.{command}")
        monkeypatch.setattr(
            module, "supervised_task" if command in ("enough", "transfer_data") else "make_task", understood
        )
        if hasattr(module, "ticket_at"):
            monkeypatch.setattr(module, "ticket_at", understood)
    for name in ("sparsest", "whole_search"):
        monkeypatch.setattr(f"tombola.cli.sparsest.{name}", understood)
    monkeypatch.setattr("tombola.cli.claims.measure", understood)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "sensitivity").mkdir()
    (tmp_path / "runs" / "sensitivity" / "sensitivity.json").write_text('{"scope": {"body.0": 0.5}}')
    monkeypatch.setattr("tombola.cli.study._folder", understood)
    monkeypatch.setattr("tombola.cli.work.work_as_told", understood)
    monkeypatch.setattr("tombola.cli.push.Study.load", understood)
    monkeypatch.setattr("tombola.integrations.hub.pull", understood)
    monkeypatch.setattr("tombola.cli.report.Study.load", understood)
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["tombola"]:
                with contextlib.suppress(Understood):
                    assert main(words[1:]) == 0, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_method_has_a_page():
    from tombola.registry import METHODS

    pages = " ".join(page.read_text() for page in (ROOT / "docs" / "methods").glob("*.md"))
    missing = [name for name in METHODS if f"`{name}`" not in pages]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_tables_say_what_the_registry_says(page):
    from tombola.registry.entry_tables import fill_tables

    assert fill_tables(page.read_text()) == page.read_text(), "run python tests/make_tables.py"


@pytest.mark.slow
def test_the_matrix_of_the_concepts_is_what_works():
    from tombola.testing import matrix

    page = (ROOT / "docs" / "concepts.md").read_text()
    written = page.partition("<!-- matrix -->\n")[2].partition("<!-- end of matrix -->")[0]
    assert written.strip() == matrix()


def test_the_picture_of_the_tree_is_true():
    """It shows every folder, and each imports only from those below it."""
    picture = (ROOT / "CONTRIBUTING.md").read_text().partition("```text\n")[2].partition("```")[0]
    rooms = [row.split()[0] for row in picture.splitlines()]
    source = ROOT / "src" / "tombola"
    assert sorted(rooms) == sorted(path.parent.name for path in source.glob("*/__init__.py"))
    upwards = []
    for room in rooms:
        for path in (source / room).rglob("*.py"):
            imported = set(re.findall(r"^\s*(?:from|import) tombola\.(\w+)", path.read_text(), flags=re.MULTILINE))
            upwards += [(str(path), other) for other in imported & {*rooms[: rooms.index(room)]}]
    assert upwards == []
