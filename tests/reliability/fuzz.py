"""Feed damaged and hostile files to the commands: no crash, no raw error, no code, no file outside, below 1 GB.

Run `python tests/reliability/fuzz.py`; with `--part 2/50` it takes the second fiftieth of the files. It prints a table
and exits 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import small_folders
from safetensors.torch import load as load_tensors
from warm import Ended, limit_memory, on_two_cores, part_of, preload, run

from tombola import TombolaError
from tombola.tickets.ticket_file import write_file
from tombola.training.checkpoint import DIGEST, MAGIC

TINY = ["--width", "0.1", "--recipe.epochs", "1", "--recipe.batch", "512"]
GIGABYTE = 2**30
COUNTS = {"ticket": 10_000, "result": 1_000, "study": 1_000, "settings": 1_000, "checkpoint": 1_000}
COUNTS |= {"small": 1_000, "pulled": 1_000}
PROCESSES = 200
"""Of the tickets, how many are given to a command that is started and not forked."""
CODE = ["canary:data", "os:abort", "os:system", "canary:Net"]
CANARY = "open('sang', 'w').close()\ndef data(): open('sang', 'w').close()\nNet = data\n"
CHOOSING = ["auto_map", "_attn_implementation", "attn_implementation", "quantization_config", "architectures"]
CHOOSING += ["model_type", "name_or_path", "_name_or_path", "tokenizer_class", "tokenizer_file", "vocab_file", "file"]
CHOOSING += ["chat_template", "origin", "beside", "inside", "name", "library", "arguments", "custom_generate"]
CHOOSING += ["processor_class", "backbone"]
CHOSEN = [*CODE, {"AutoModel": "canary.Net"}, ["canary.Net", None]]
EXTRA = [
    "setup.py",
    "modeling.py",
    "canary.py",
    "../../escaped",
    "adapter_config.json",
    "config.json",
    "tokenizer.json",
]
EXTRA += ["tokenizer_config.json", "pytorch_model.bin", "ticket.safetensors", "weights.safetensors"]
NASTY: list[Any] = [
    *(None, True, 0, -1, 1e308, 2**63, -(2**70), 0.1, "", "x", [], {}, [[]], {"a": {}}, "NaN", "1e999", "a\x00b"),
    *(
        "\x1b]0;x\x07",
        "imp[/b]",
        "[link=file:///]x[/link]",
        "\ud800",
        "<script>1</script>",
        "../../../escaped",
        "/etc/passwd",
    ),
    *("--out", "-", "$(touch sang)", "`touch sang`", "x" * 10_000, "random@1", *CODE),
]


@dataclass(frozen=True)
class Case:
    """One file and the command that reads it."""

    kind: str
    number: int
    root: Path
    processes: int

    def __call__(self) -> tuple[str, int, str, str]:
        draw = random.Random(f"{self.kind}{self.number}")
        folder = self.root / f"{self.kind}-{self.number}"
        shutil.copytree(self.root / f"whole-{self.kind}", folder)
        before = _listing(self.root, but=folder)
        words, first = globals()[f"_{self.kind}"](folder, draw), limit_memory(2 * GIGABYTE)
        if callable(words):
            words, first = [self.kind], partial(_instead, words, first)
        if self.kind == "ticket" and self.number < self.processes:
            ended = _started(words, folder)
        else:
            ended = run(words, folder, first, 600)
        what = _wrong(ended, folder) or _outside(before, _listing(self.root, but=folder))
        kept = self.root.parent / "kept" / folder.name
        if what:
            kept.parent.mkdir(exist_ok=True)
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            what = f"{what} ({' '.join(words)} in {kept})"
        shutil.rmtree(folder)
        return self.kind, self.number, what, "ran" if ended.status == 0 else "refused"


def _instead(work: Callable[[], int], before: Callable[[], None]) -> None:
    """In place of a command, work of Python's; what is refused ends it as it ends a command."""
    before()
    try:
        status = work()
    except TombolaError as error:
        print(f"tombola: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _wrong(ended: Ended, folder: Path) -> str:
    if ended.status not in (0, 2):
        return f"status {ended.status}: {ended.err[-400:]}"
    if "Traceback" in ended.err or "panicked" in ended.err:
        return f"a raw error: {ended.err[-400:]}"
    if any(letter in ended.out + ended.err for letter in "\x1b\x07\x00"):
        return "a control character on the terminal"
    if ended.memory > _BASE + GIGABYTE:
        return f"{ended.memory / GIGABYTE:.1f} GB"
    return "code ran" if (folder / "sang").exists() else ""


def _listing(root: Path, but: Path) -> set[str]:
    """What lies outside the cases' folders."""
    return {path.name for place in (root, root.parent) for path in place.iterdir() if "-" not in path.name}


def _outside(before: set[str], after: set[str]) -> str:
    return f"files outside the folder: {after - before}" if after - before - {"kept"} else ""


def _started(words: list[str], folder: Path) -> Ended:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tombola.cli", *words], cwd=folder, capture_output=True, check=False, timeout=900
        )
    except subprocess.TimeoutExpired:
        return Ended(124, "", "it hangs", 0)
    return Ended(done.returncode, *(out.decode(errors="replace") for out in (done.stdout, done.stderr)), 0)


def _ticket(folder: Path, draw: random.Random) -> list[str]:
    """Bytes are damaged, or fields replaced and the digest made right."""
    path = folder / "t.safetensors"
    if draw.random() < 0.4:
        path.write_bytes(_damaged(path.read_bytes(), draw))
    else:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        content, tensors = json.loads(header["__metadata__"]["tombola"]), load_tensors(data)
        content.pop("digest")
        for _ in range(draw.randint(1, 3)):
            content = _changed(content, draw)
        for name in draw.sample(sorted(tensors), draw.choice([0, 0, 0, 1])):
            tensor = tensors.pop(name)
            if draw.random() < 0.5:
                tensors[draw.choice([name, f"{name}x", "mask/\x1b", "values/1.weight"])] = tensor[: draw.randint(0, 9)]
        try:
            write_file(path, content, tensors)
        except (TypeError, ValueError, AttributeError):  # no file can hold this
            path.write_bytes(_damaged(data, draw))
    commands = {
        "train": ["train", "t.safetensors", *TINY, "--out", "out"],
        "dense": ["train", "t.safetensors", "--recipe.epochs", "1", "--out", "out", "--json"],
        "check": ["check", "t.safetensors", "--seeds", "1", "--controls", "random", *TINY, "--out", "out"],
        "shrink": ["shrink", "t.safetensors", *TINY, "--out", "out"],
        "robustness": ["robustness", "t.safetensors", "--seeds", "1", *TINY, "--out", "out"],
    }
    return commands[draw.choices(list(commands), [6, 2, 1, 1, 1])[0]]


def _result(folder: Path, draw: random.Random) -> list[str]:
    _spoil(next((folder / "t").rglob("result.json")), draw)
    return draw.choice([["report", "t"], TRAIN])


def _study(folder: Path, draw: random.Random) -> list[str]:
    _spoil(folder / "t" / "study.json", draw)
    return ["report", "t"]


def _settings(folder: Path, draw: random.Random) -> list[str]:
    _spoil(folder / "t" / "settings.json", draw)
    return TRAIN


def _checkpoint(folder: Path, draw: random.Random) -> list[str]:
    path = draw.choice(sorted((folder / "t" / "stages").glob("*.pt")))
    data = path.read_bytes()
    damaged = _damaged(data, draw)
    if draw.random() < 0.5:  # with a digest that is right
        content = _damaged(data[len(MAGIC) + DIGEST :], draw)
        damaged = MAGIC + hashlib.blake2b(content, digest_size=DIGEST).digest() + content
    path.write_bytes(damaged)
    return FIND


def _small(folder: Path, draw: random.Random) -> Callable[[], int] | list[str]:
    """The folder of a smaller network, opened in Python, or written again by the command."""
    name = draw.choice(small_folders.NAMES)
    _spoil_folder(folder / name, draw)
    if draw.random() < 0.05:
        return ["shrink", "t.safetensors", *TINY, "--out", name]
    return partial(small_folders.opened, folder / name)


def _pulled(folder: Path, draw: random.Random) -> Callable[[], int]:
    """A repository with such a folder, or a ticket, and whatever else, fetched and opened."""
    name = draw.choice([*small_folders.NAMES, "ticket"])
    _spoil_folder(folder / name, draw)
    more, sizes = {}, {}
    for _ in range(draw.choice([0, 1, 2])):
        more[draw.choice([*EXTRA, *small_folders.files_in(folder / name)])] = draw.choice([b"{}", CANARY.encode(), b""])
    if draw.random() < 0.1:
        sizes[draw.choice(sorted(small_folders.files_in(folder / name)))] = draw.choice([None, -1, 2**60, 0, 5])
    return partial(small_folders.pulled, folder / name, folder / "back", more, sizes)


def _spoil_folder(folder: Path, draw: random.Random) -> None:
    """Spoil one or two files of a folder, put fields that choose code into one, or take one away."""
    (folder / "canary.py").write_text(CANARY)
    paths = sorted(own for own in folder.iterdir() if own.suffix != ".py")
    for path in draw.sample(paths, min(len(paths), draw.choice([1, 1, 2]))):
        kind = draw.random()
        if path.suffix == ".json" and kind < 0.3:
            content = json.loads(path.read_text())
            for _ in range(draw.choice([1, 1, 2])):
                inner = draw.choice([own for own in (content, *content.values()) if isinstance(own, dict)])
                inner[draw.choice(CHOOSING)] = draw.choice(
                    [*NASTY, *CODE, {"AutoModel": "canary.Net"}, ["canary.Net", None]]
                )
            path.write_text(json.dumps(content))
        elif path.suffix == ".json":
            _spoil(path, draw)
        elif kind < 0.1:
            path.unlink()
        else:
            path.write_bytes(_damaged(path.read_bytes(), draw))


def _spoil(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.3:
        path.write_bytes(_damaged(path.read_bytes(), draw))
        return
    content = json.loads(path.read_text())
    for _ in range(draw.randint(1, 2)):
        content = _changed(content, draw)
    text = json.dumps(content)
    path.write_text(text.replace('"NaN"', "NaN").replace('"1e999"', "1e999") if draw.random() < 0.5 else text)


def _damaged(data: bytes, draw: random.Random) -> bytes:
    """Bits turned, bytes cut off, doubled, or random."""
    content = bytearray(data)
    kind = draw.randrange(5)
    if kind == 0:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del content[draw.randrange(len(content)) :]
    elif kind == 2:
        at = draw.randrange(len(content))
        content[at:at] = content[at : at + draw.randint(1, 64)]
    elif kind == 3:
        at = draw.randrange(min(len(content), 4096))
        content[at : at + 8] = draw.randbytes(8)
    else:
        content = bytearray(draw.randbytes(draw.choice([0, 1, 8, 100, 5000])))
    return bytes(content)


def _changed(value: Any, draw: random.Random) -> Any:
    """The value with one part replaced, removed, added, or nested deep."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        changed = dict(value)
        kind = draw.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2:
            new = draw.choice(
                ["out", "fresh", "trust", "recipe.epochs", "data-dir", "x\x1b", "format", *map(str, NASTY)]
            )
            changed[new] = draw.choice(NASTY)
        else:
            changed[key] = _changed(value[key], draw)
        return changed
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], _changed(value[at], draw), *value[at + draw.choice([1, 1, 0]) :]]
    if draw.random() < 0.02:
        deep: Any = 1
        for _ in range(draw.choice([10, 100, 900])):
            deep = [deep]
        return deep
    return draw.choice(NASTY)


TRAIN = ["train", "random", "--density", "0.5", *TINY, "--out", "t"]
FIND = ["find", "imp", "--density", "0.5", *TINY, "--out", "t"]
_BASE = 0


def _prepare(root: Path) -> None:
    """The files that are spoiled, as the commands write them, and a module that tells when it is imported."""
    for kind in COUNTS:
        folder = root / f"whole-{kind}"
        folder.mkdir()
        (folder / "canary.py").write_text(CANARY)
        if kind == "ticket":
            _must(run([*FIND[:-1], "found"], folder))
            shutil.move(folder / "found" / "ticket.safetensors", folder / "t.safetensors")
            shutil.rmtree(folder / "found")
        elif kind in ("small", "pulled"):
            _must(run([*FIND[:-1], "ticket"], folder))
            shutil.copy(folder / "ticket" / "ticket.safetensors", folder / "t.safetensors")
            for path in (folder / "ticket").iterdir():
                if path.name != "ticket.safetensors":
                    path.unlink()
            _must(run([kind], folder, partial(_instead, partial(small_folders.make, folder), lambda: None)))
        elif kind == "study":
            words = ["compare", "random", "--densities", "0.5", "--seeds", "2", *TINY, "--out", "t"]
            _must(run(words, folder))
        elif kind == "checkpoint":
            process = run(FIND, folder, _end_before_the_ticket)
            assert process.status == 137
            assert list((folder / "t" / "stages").glob("*.pt"))
        else:
            _must(run(TRAIN, folder))


def _end_before_the_ticket() -> None:
    from tombola.studies.run_folder import RunFolder

    RunFolder.finish_search = lambda *_: os._exit(137)


def _must(ended: Ended) -> Ended:
    assert ended.status == 0, ended.err
    return ended


def _tried(case: Callable[[], tuple[str, int, str, str]]) -> tuple[str, int, str, str]:
    return case()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="1/1", help="of all files, as 2/50 for the second fiftieth")
    parser.add_argument("--only", choices=COUNTS, help="files of one kind")
    options = parser.parse_args()
    global _BASE
    with tempfile.TemporaryDirectory() as top:
        root = Path(top) / "cases"
        root.mkdir()
        preload(["compare", "random", "--densities", "0.5", "--seeds", "1", *TINY, "--out", "t"])
        preload(["robustness", "snip", "--densities", "0.5", "--seeds", "1", *TINY, "--out", "t"])
        _prepare(root)
        _BASE = _must(run(["methods"], root / "whole-result")).memory
        kinds = [options.only] if options.only else list(COUNTS)
        cases = [Case(kind, number, root, PROCESSES) for kind in kinds for number in range(COUNTS[kind])]
        cases = part_of(cases, options.part)
        ended: Counter[tuple[str, str]] = Counter()
        wrong = []
        for kind, number, what, how in on_two_cores(_tried, cases):
            ended[kind, how] += 1
            if what:
                wrong.append(f"{kind} {number}: {what}")
                print(wrong[-1], flush=True)
            if sum(ended.values()) % 500 == 0:
                print(f"{sum(ended.values())} of {len(cases)}", flush=True)
        if wrong and (Path(top) / "kept").exists():
            shutil.copytree(Path(top) / "kept", "fuzz-kept", dirs_exist_ok=True)
    for kind in kinds:
        print(f"{kind:10} {ended[kind, 'refused']:6} refused in a sentence {ended[kind, 'ran']:6} ran")
    print(f"{sum(ended.values())} files, {len(wrong)} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
