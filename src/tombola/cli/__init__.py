"""The command `tombola`: one file a command."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence

from tombola.errors import TombolaError, unknown

COMMANDS = {
    "demo": "the main job on embedded data: find, check, report",
    "methods": "what there is, with paper, granularity, density kind and cost",
    "find": "search for a ticket: tombola find METHOD",
    "train": "train a ticket, a method's ticket or the dense network: tombola train TICKET|METHOD|dense",
    "check": "does it win? tombola check TICKET|METHOD",
    "compare": "methods against each other, dense and controls: tombola compare METHOD…",
    "sanity": "does a search use what it is given? tombola sanity METHOD…",
    "sparsest": "how few weights will do? tombola sparsest [METHOD]",
    "enough": "how much pre-training is enough, by size of the data? tombola enough",
    "robustness": "attacked, corrupted and foreign images: tombola robustness TICKET|METHOD…",
    "shrink": "the physically smaller network of a ticket, trained: tombola shrink TICKET",
    "claims": "what papers state, re-measured: tombola claims [ID…] [--quick|--full]",
    "report": "write a study's report again: tombola report DIR",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 on bad input with one clear sentence, 130 when stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        from tombola import __version__

        print(__version__)
        return 0
    try:
        with warnings.catch_warnings():  # which leaves them as they were to a program that calls a command
            warnings.showwarning = _show_warning  # ty: ignore[invalid-assignment]
            if words[0] not in COMMANDS:
                raise unknown("command", words[0], COMMANDS)
            return importlib.import_module(f"tombola.cli.{words[0]}").run(words[1:])
    except TombolaError as error:
        print(f"tombola: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("\ntombola: stopped; run the same command again and it goes on where it was", file=sys.stderr)
        return 130


def _help() -> str:
    rows = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
    return (
        "usage: tombola COMMAND [OPTIONS]\n\n"
        "Find winning lottery tickets in PyTorch networks and prove that they win.\n\n"
        f"{rows}\n\nEvery command takes --help, --json and --device. Begin with: tombola demo"
    )


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"tombola: note: {message}", file=sys.stderr)
