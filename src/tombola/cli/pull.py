"""tombola pull USER/NAME: fetch a ticket or a smaller network from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from tombola.cli.console import print_json
from tombola.cli.parse import read
from tombola.integrations import hub


@dataclass(frozen=True)
class PullOptions:
    """Fetch a ticket or a smaller network from the Hugging Face Hub, and check it as any file that was received.

    Nothing in it chooses code. Needs pip install 'tombola[hub]'.
    """

    repo: tyro.conf.Positional[str]
    """the repository, as user/name"""
    out: Path = Path("pulled")
    """folder for what is fetched"""
    revision: str | None = None
    """a commit, branch or tag; the newest of the main branch if not given"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""
    device: str = "auto"
    """no effect here; accepted because every command accepts it"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    options = read(PullOptions, "pull", words)
    pulled = hub.pull(options.repo, options.out, revision=options.revision)
    if options.json:
        told = {"folder": str(pulled.folder), "kind": pulled.kind, "revision": pulled.revision, "opens": pulled.code}
        print_json(told)
    else:
        print(f"Pulled into {pulled.folder}, at {pulled.revision}. Open it with {pulled.code}")
    return 0
