"""tombola push TICKET|FOLDER USER/NAME: put a ticket or a smaller network on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tombola.cli.console import print_json
from tombola.cli.parse import read
from tombola.integrations import hub
from tombola.studies import Study


@dataclass(frozen=True)
class PushOptions:
    """Put a ticket or a smaller network on the Hugging Face Hub, with a page of its origin, figures and verdict.

    Needs pip install 'tombola[hub]', and a login: hf auth login, or HF_TOKEN.
    """

    what: tyro.conf.Positional[Path]
    """a ticket's file, the folder of its run, or the folder that tombola shrink wrote"""
    repo: tyro.conf.Positional[str]
    """the repository, as user/name; it is made if there is none"""
    license: str = ""
    """the licence's identifier, as apache-2.0; a network that began from somebody's weights has theirs"""
    author: str = ""
    """who made it"""
    verdict: Path | None = None
    """the folder of a tombola check, whose verdicts the page then says"""
    private: bool = False
    """make a new repository private"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""
    device: str = "auto"
    """no effect here; accepted because every command accepts it"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = read(PushOptions, "push", words)
    verdicts = Study.load(options.verdict).verdicts if options.verdict else ()
    where = hub.push(
        options.what,
        options.repo,
        licence=options.license,
        author=options.author,
        verdict=[own.sentence for own in verdicts],
        private=options.private,
    )
    if options.json:
        print_json({"commit": where})
    else:
        print(f"Pushed: {where}")
    return 0
