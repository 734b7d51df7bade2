"""Tickets and smaller networks on the Hugging Face Hub. Needs the extra `hub`.

What is fetched is data, and is checked like any other file that was received: its names are from a list, its sizes are
known before it is fetched, and nothing in it chooses code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tombola.errors import FileError, TombolaError
from tombola.files import content_of
from tombola.integrations.model_card import MADE, Signed, card_of_small, card_of_ticket
from tombola.shrinking import (
    NETWORK,
    TOKENIZER,
    check_files,
    check_place,
    checked_file,
    files_of,
    opener_of,
    put,
    read_description,
    written_by_us,
)
from tombola.tickets import Ticket

TICKET, CARD = "ticket.safetensors", "README.md"
EXPORTED = ("network.onnx", "network.int8.onnx", "network.sparse.safetensors")
"""Files of a smaller network that are pushed beside it, and not pulled: they can be made again from what is."""
SMALL_TEXT, LARGE_TEXT = 2**24, 2**27
"""Bytes that a fetched JSON file or page may have, and one of a tokenizer."""


@dataclass(frozen=True)
class Pulled:
    """What was fetched.

    Args:
        folder: where it lies.
        kind: `ticket` or `small`.
        revision: the commit that it is of.
        code: the line that opens it.
    """

    folder: Path
    kind: str
    revision: str
    code: str


def push(
    what: Ticket | str | Path,
    repo: str,
    *,
    licence: str = "",
    author: str = "",
    verdict: Sequence[str] = (),
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Put a ticket or a smaller network on the Hub, with a page made from provenance, figures and verdict.

    Args:
        what: a ticket, its file, or the folder of a smaller network or of a run that holds a ticket.
        repo: its name there, as `user/name`; it is made if there is none.
        licence: the licence's identifier, as `apache-2.0`. A network that began from somebody's weights has theirs.
        author: who made it.
        verdict: sentences of a check, as `[v.sentence for v in study.verdicts]`.
        private: whether a new repository is private.
        token: of the Hub; the one that `hf auth login` stored, or HF_TOKEN, if None.
        endpoint: the Hub's address; the usual one, or HF_ENDPOINT, if None.

    Returns:
        The address of the commit.

    Raises:
        TombolaError: the extra is missing, there is neither a ticket nor a network, or the Hub refuses.
    """
    hub, signed = _hub(), Signed(licence, author, tuple(verdict))
    with tempfile.TemporaryDirectory() as place:
        files = {}
        if isinstance(what, Ticket) or not (Path(what) / NETWORK).exists():
            ticket = what if isinstance(what, Ticket) else Ticket.load(_file_of_ticket(Path(what)))
            files[TICKET] = Path(place, TICKET)
            ticket.save(files[TICKET])
            page = card_of_ticket(ticket, repo, signed)
        else:
            folder = Path(what)
            said = check_files(folder)
            files = {name: folder / name for name in (*files_of(said), *EXPORTED) if (folder / name).is_file()}
            for name in TOKENIZER:
                if (folder / name).is_file():
                    files[name] = Path(place, name)
                    files[name].write_bytes(checked_file(name, content_of(folder / name)))
            plain = opener_of(said, repo).opener == "transformers"
            opener = opener_of(said, repo if plain else "small")
            code = "\n".join(line for line in (opener.code, opener.processor_code) if line)
            page = card_of_small(said.facts, repo, code, "transformers" if plain else "tombola", signed)
        Path(place, CARD).write_text(page, encoding="utf-8")
        files[CARD] = Path(place, CARD)
        with _refusals(repo):
            api = hub.HfApi(endpoint=endpoint, token=token, library_name="tombola")
            api.create_repo(repo, private=private, exist_ok=True)
            operations = [hub.CommitOperationAdd(name, str(path)) for name, path in files.items()]
            done = api.create_commit(repo, operations, commit_message="Pushed by Tombola")
    return str(done.commit_url)


def pull(
    repo: str, folder: str | Path, *, revision: str | None = None, token: str | None = None, endpoint: str | None = None
) -> Pulled:
    """Fetch a ticket or a smaller network from the Hub, and check it.

    Only the description, the configuration, safetensors, the files of a tokenizer or processor of transformers, and the
    page are fetched, whatever else the repository holds. Nothing is replaced that Tombola did not write.

    Args:
        repo: its name there, as `user/name`.
        folder: where to write it.
        revision: a commit, branch or tag; the newest of the main branch if None.
        token: of the Hub; as for `push`.
        endpoint: the Hub's address; as for `push`.

    Returns:
        What was fetched, and what opens it.

    Raises:
        TombolaError: the extra is missing, the Hub refuses, or what is there is neither a ticket nor a network, too
            large, damaged, or chooses code. Nothing is written then.
    """
    hub, folder = _hub(), Path(folder)
    with tempfile.TemporaryDirectory() as place:
        with _refusals(repo):
            api = hub.HfApi(endpoint=endpoint, token=token, library_name="tombola")
            told = api.model_info(repo, revision=revision, files_metadata=True)
            there = {own.rfilename: own.size for own in told.siblings or ()}
        is_small = NETWORK in there

        def fetch(names: Sequence[str]) -> list[str]:
            wanted = [name for name in names if name in there]
            for name in wanted:
                _check_size(repo, name, there[name])
            with _refusals(repo):
                for name in wanted:
                    api.hf_hub_download(repo, name, revision=told.sha, local_dir=place)
            return wanted

        if not is_small and TICKET not in there:
            raise TombolaError(f"{repo} holds neither {NETWORK} nor {TICKET}; give a repository that Tombola pushed to")
        if is_small:
            fetch([NETWORK])
            said = read_description(Path(place, NETWORK))
            names = fetch([*files_of(said), *TOKENIZER, CARD])
            check_files(Path(place))
            _check_target(folder, [*names, *said.beside])
            code = opener_of(said, str(folder)).code
        else:
            names = fetch([TICKET, CARD])
            Ticket.load(Path(place, TICKET))
            code = f'tb.Ticket.load("{folder / TICKET}")'
            taken = next((name for name in names if (folder / name).exists()), None)
            if taken is not None:
                raise FileError(f"{folder / taken} is there already; choose another folder, so that it stays")
        put(folder, {name: checked_file(name, content_of(Path(place, name))) for name in names})
    return Pulled(folder, "small" if is_small else "ticket", str(told.sha), code)


def _file_of_ticket(path: Path) -> Path:
    return path / TICKET if path.is_dir() else path


def _check_target(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder in which a smaller network would replace files that Tombola did not write."""
    check_place(folder)
    ours = written_by_us(folder)
    theirs = [name for name in names if name in TOKENIZER and name not in ours and (folder / name).exists()]
    if (folder / CARD).exists() and MADE.encode() not in content_of(folder / CARD):
        theirs.append(CARD)
    if theirs:
        raise FileError(f"{folder / theirs[0]} was not written by Tombola; choose another folder, so that it stays")


def _check_size(repo: str, name: str, size: int | None) -> None:
    """Refuse a file whose size is not known, or larger than it can be."""
    texts = LARGE_TEXT if name in TOKENIZER else SMALL_TEXT
    most = psutil.virtual_memory().total if name.endswith(".safetensors") else texts
    if size is None or size > most:
        what = "does not say how large it is" if size is None else f"has {size:,} bytes, more than it can have"
        raise TombolaError(f"{name} of {repo} {what}; nothing was fetched")


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise TombolaError("huggingface_hub is not installed; pip install 'tombola[hub]'") from error
    return huggingface_hub


@contextmanager
def _refusals(repo: str) -> Generator[None]:
    """Inside, what the Hub or the way there refuses becomes one sentence."""
    try:
        yield
    except TombolaError:
        raise
    except Exception as error:  # errors of its client, of HTTP and of files, of many types
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = " ".join(lines[:2]) or type(error).__name__
        raise TombolaError(
            f"the Hub did not take or give '{repo}': {said}; see that the name "
            "is user/name, that you are logged in (hf auth login), and that the Hub can be reached"
        ) from error
