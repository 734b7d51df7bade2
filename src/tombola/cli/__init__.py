"""The command `tombola`: one file a command."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from itertools import takewhile

from tombola.errors import TombolaError, unknown
from tombola.files.shown_text import harmless, printable_text

GROUPS = {
    "Start here": {
        "demo": ("", "compare four methods on built-in images and write a report"),
        "methods": ("[KIND]", "list the methods with their papers; KIND: scores, controls, data, models, …"),
    },
    "Work with one ticket": {
        "find": ("METHOD", "search for a ticket and save it"),
        "check": ("TICKET|METHOD", "test whether a ticket wins"),
        "stability": ("METHOD|TICKET|dense", "measure from which point training is stable, where a ticket can win"),
        "transfer": ("TICKET", "move a ticket to another initialisation by matching units, or to other data"),
        "train": ("TICKET|METHOD|dense", "train a ticket or the dense network once"),
        "shrink": ("TICKET", "train a ticket and save it as a smaller, faster network"),
        "push": ("TICKET|FOLDER REPO", "put a ticket or a smaller network on the Hugging Face Hub"),
        "pull": ("REPO", "fetch one from there"),
        "smaller": ("", "make a trained network of your own smaller, and check and export it"),
        "sensitivity": ("", "measure what each layer's channels are worth: accuracy, FLOPs and time without them"),
    },
    "Study methods": {
        "compare": ("METHOD…", "compare methods with each other, with dense and with controls"),
        "sanity": ("METHOD…", "test whether a method uses its data, labels and weights"),
        "robustness": ("TICKET|METHOD…", "test tickets on attacked, corrupted and foreign images"),
        "sparsest": ("[METHOD]", "find the sparsest ticket that is as good as dense"),
        "report": ("FOLDER", "write the report of a finished study again"),
    },
    "Grids of runs": {
        "study": ("FILE", "carry out a grid of runs from a file, on one machine or many"),
        "work": ("STUDY", "start one more worker of a study"),
        "results": ("FOLDER", "list what ran, filtered and sorted; CSV, Parquet, JSON"),
        "clean": ("FOLDER", "remove what killed and failed runs have left"),
    },
    "Reproduce papers": {
        "claims": ("[ID…]", "list papers' claims, or measure them again"),
        "enough": ("", "measure how much pre-training a ticket needs, by size of the data"),
    },
}
"""Each command's operands and what it does, as `tombola --help` groups them."""

COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command as typed in a shell.

    Args:
        argv: the words after `tombola`; those of this process if None.

    Returns:
        The exit status: 0 on success, 2 on bad input (after one sentence on standard error), 1 where the output cannot
        be written, 3 where runs of a study failed, 130 (143, 129) when interrupted (terminated, hung up).

    Examples:
        >>> main(["fnd"])  # Prints "tombola: there is no command 'fnd'; did you mean 'find'?".
        2
    """
    if argv is None:
        _prepare_process()
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
    except TombolaError as error:
        _say(f"tombola: {error}")
        status = 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
            raise
        _say("tombola: not enough memory here; type a smaller --width or --recipe.batch, or use a larger machine")
        status = 2
    except OSError as error:
        if error.filename is None or not _is_own(error):
            raise
        _say(
            f"tombola: cannot use {error.filename}: {error.strerror}; let it be read and written, or give another path"
        )
        status = 2
    except KeyboardInterrupt as stop:
        _say("\ntombola: stopped; run the same command again and it goes on where it was")
        status = 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    except OutputError as error:
        return _output_ended(error)
    try:
        sys.stdout.flush()
    except OutputError as error:
        return _output_ended(error)
    return status


def _is_own(error: OSError) -> bool:
    """Whether Tombola's own code met an error of a file, and not the user's code, whose traceback shows where."""
    library, own = os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__))
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    others = [file for file in files if file.startswith(own) or not file.startswith(library) or "site-packages" in file]
    return bool(others) and others[-1].startswith(own)


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        from tombola import __version__

        print(__version__)
        return 0
    with warnings.catch_warnings():  # Restores the filters for a program that calls `main` itself.
        warnings.showwarning = _show_warning  # ty: ignore[invalid-assignment]
        if words[0] not in COMMANDS:
            raise unknown("command", words[0], COMMANDS)
        _check_methods(*words)
        return importlib.import_module(f"tombola.cli.{words[0]}").run(words[1:])


def _check_methods(command: str, *words: str) -> None:
    """TombolaError for a mistyped name of a method, before torch is imported, which takes seconds."""
    if "METHOD" not in COMMANDS[command][0]:
        return
    from tombola.registry import METHODS, SCORES

    for word in takewhile(lambda word: not word.startswith("-"), words):
        is_name = re.fullmatch(r"[\w-]+", word) and word != "dense" and not os.path.exists(word)
        if is_name and word not in METHODS and word not in SCORES:
            raise unknown("method", word, METHODS)


def _prepare_process() -> None:
    """End at TERM and HUP as at Ctrl-C; write any text, also to an ASCII terminal."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # `nohup` ignores HUP; so do we.
            signal.signal(number, stop)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed, and what is opened next would take its number
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, terminal = sys.stdout.encoding, sys.stdout.isatty()
        sys.stdout = Output(sys.stdout.detach(), encoding, "replace", line_buffering=terminal)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="replace")


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end; a kind of its own, since after a plain one in `exec` Python kills itself.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class OutputError(Exception):
    """Standard output cannot be written; other errors of files are of the files that they name."""


class Output(io.TextIOWrapper):
    """Standard output whose errors are told from those of files, and on which no name controls the terminal."""

    def write(self, text: str, /) -> int:
        """Write a text."""
        try:
            return super().write(harmless(text))
        except OSError as error:
            raise OutputError from error

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            super().flush()
        except OSError as error:
            raise OutputError from error


def _output_ended(error: OutputError) -> int:
    """Say that the output could not be written, but not where its reader has gone, as `head` in a pipe does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Or Python complains again when it ends.
    cause = error.__cause__
    if isinstance(cause, OSError) and not isinstance(cause, BrokenPipeError):
        _say(f"tombola: could not write the output ({cause.strerror}); what was computed is on disk")
    return 1


def _say(text: str) -> None:
    """Tell people something on standard error, where names from files cannot control the terminal."""
    with contextlib.suppress(OSError):
        print("\n".join(map(printable_text, text.split("\n"))), file=sys.stderr)


def _help() -> str:
    groups = "\n\n".join(
        f"{title}:\n"
        + "\n".join(f"  {f'{name} {operands}':<31}{summary}" for name, (operands, summary) in commands.items())
        for title, commands in GROUPS.items()
    )
    return (
        "usage: tombola COMMAND [OPTIONS]\n\n"
        "Find winning lottery tickets in PyTorch networks and prove that they win.\n\n"
        "A ticket is a part of a network's weights, with their starting values. It wins if it trains to the accuracy\n"
        "of the whole network (“dense”) and beats its controls: tickets that are equally small but should not win.\n\n"
        f"{groups}\n\n"
        "METHOD is a name from `tombola methods`, TICKET a file or folder that `tombola find` wrote.\n"
        "`tombola COMMAND --help` explains a command's options. Every command takes --json and --device.\n"
        "Begin with: tombola demo"
    )


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _say(f"tombola: note: {message}")
