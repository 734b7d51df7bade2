"""What is read on a real screen, of 60 to 200 columns; and what logs get."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest
from rich.console import Console

from made_up import study
from tombola.cli import COMMANDS, main
from tombola.cli.guide import ARGUMENTS, EXAMPLES, guide
from tombola.cli.results import as_table
from tombola.report import headline, ranking_table, results_table_for, savings_table
from tombola.report.arms import GatheredArms
from tombola.studies.rankings import rankings
from tombola.terminal_table import Column, TerminalTable
from tombola.training import progress


def screen(text: str, width: int, lines: int = 400) -> list[str]:
    """What a terminal of so many columns shows of a text, line by line."""
    pyte = pytest.importorskip("pyte")
    shown = pyte.Screen(width, lines)
    pyte.Stream(shown).feed(text.replace("\n", "\r\n"))
    return [line.rstrip() for line in shown.display]


def printed(table, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, markup=False).print(table)
    assert "…" not in out.getvalue()
    return screen(out.getvalue(), width)


@pytest.fixture(scope="module")
def made_up():
    results, verdicts = study()
    return GatheredArms.of(results, verdicts)


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_every_width_shows_the_verdict_whole_and_one_line_an_arm(made_up, width):
    results = [result for arm in made_up.arms for result in arm.results]
    lines = printed(results_table_for(results, made_up.verdicts), width)
    for verdict in made_up.verdicts:
        word = {True: "wins", False: "does not win", None: "undecided"}[verdict.wins]
        mean = f"{100 * verdict.means['ticket']:.2f}"
        (line,) = [line for line in lines if line.split()[:1] == [verdict.subject] and mean in line]
        assert word in line
        assert f"{100 * verdict.density:g}" in line
    assert any("search" in line for line in lines) == (width > 60) or "No room here for" in "\n".join(lines)


def test_at_eighty_columns_only_the_sparsity_is_left_out(made_up):
    results = [result for arm in made_up.arms for result in arm.results]
    text = "\n".join(printed(results_table_for(results, made_up.verdicts), 80))
    assert "No room here for: sparsity." in text or "No room" not in text


@pytest.mark.parametrize("width", [60, 200])
def test_savings_and_rankings_fit(made_up, width):
    made = rankings(made_up.verdicts, [list(arm.results) for arm in made_up.arms if arm.role == "ticket"])
    for table, first in ((savings_table(made_up), "imp"), (ranking_table(made), "imp")):
        assert any(first in line for line in printed(table, width))


def test_the_column_that_matters_least_goes_first():
    table = TerminalTable((Column("a", left=True, least=4), Column("b"), Column("c", drop=1), Column("d", drop=2)))
    table.add("a name that may be folded", "12345", "12345", "12345")
    assert [len(table.shown(width)) for width in (200, 24, 18, 5)] == [4, 3, 2, 2]


def test_results_are_cut_between_columns():
    rows = [{"method": "imp", "seed": 0, "metric": 0.98765}]
    assert as_table(rows, ["method", "seed", "metric"], 15).splitlines()[-1] == "No room here for: metric."


def test_a_real_terminal_of_sixty_columns_shows_the_methods():
    """The command in a pseudo-terminal, as a user types it."""
    pyte = pytest.importorskip("pyte")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 400, 60, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    command = [sys.executable, "-m", "tombola.cli", "methods"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"})
    os.close(theirs)
    text = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not chunk:
            break
        text += chunk
    os.close(ours)
    assert process.wait() == 0
    shown = pyte.Screen(60, 400)
    pyte.ByteStream(shown).feed(text)
    lines = [line.rstrip() for line in shown.display]
    assert any(line.split()[:1] == ["imp"] for line in lines)
    assert any("No room here for" in line for line in lines)


def test_logs_get_a_line_every_few_seconds(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.bars() as bars, bars.track("runs", 2) as tick:
        tick("imp")
        time.sleep(0.001)
        with bars.track("epochs", 10) as inner:
            inner("loss 0.5", 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "tombola: 0 s: runs 1 of 2 (imp)",
        "tombola: 0 s: runs 1 of 2 (imp), epochs 3 of 10 (loss 0.5)",
    ]


def test_programs_get_none(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.bars(False) as bars, bars.track("runs", 2) as tick:
        tick("imp")
    assert capsys.readouterr() == ("", "")


def test_every_command_has_examples_that_begin_with_it():
    assert EXAMPLES.keys() == COMMANDS.keys()
    for name, examples in EXAMPLES.items():
        assert all(line.startswith(f"tombola {name}") for line in examples)
    for name, arguments in ARGUMENTS.items():
        for argument in arguments:
            assert argument in COMMANDS[name][0], f"{name} does not work on {argument}"


@pytest.mark.parametrize("name", ["find", "compare", "report", "claims"])
def test_the_help_shows_arguments_and_examples(capsys, name):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    out = capsys.readouterr().out
    for line in guide(name).splitlines():
        assert line.strip() in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "imp", "--densities", "0.2,0.05"], "separate by spaces, as 0.2 0.05"),
        (["compare", "imp,snip"], "separate by spaces, as imp snip"),
        (["compare", "imp", "--controls", "shuffle,random"], "separate by spaces, as shuffle random"),
        (["find", "impp"], "did you mean 'imp'"),
        (["compare", "imp", "--densties", "0.2"], "--densities"),
    ],
)
def test_mistakes_are_answered_with_the_nearest_word_and_the_form(capsys, words, said):
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    out, err = capsys.readouterr()
    assert status == 2
    assert said in out + err


def test_the_verdict_is_said_first_and_with_its_reason(made_up):
    first, *_ = headline(made_up)
    winner = next(verdict for verdict in made_up.verdicts if verdict.wins)
    assert first.startswith(f"{winner.subject} wins") or "wins with" in first
    assert "margin" in first
