"""The options on how a command runs, and how it prints costs and verdicts."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tombola.errors import FileError
from tombola.files import content_of
from tombola.report.prose import number
from tombola.studies import Engine, Processes, Serial, Store, Study
from tombola.training import Meter, bars, chosen_device

GENERATOR = b'<meta name="generator" content="Tombola">'
PICTURES = (
    "overview",
    "accuracy",
    "differences",
    "layers",
    "training",
    "cost",
    "savings",
    "robustness",
    "ranking",
    "sanity",
    "enough",
    "curves",
)
PICTURES += ("stability", "solutions", "growth", "bounds", "network", "boundary", "rates", "pruned", "sensitivity")
"""What the pictures beside a report are called."""
PAGES = ("report.html", "sparsest.html", "enough.html", "stability.html")
STUDIES = {
    "study.json": (b'{"format":', b'{"results":'),
    "sparsest.json": (b'{"sentence":',),
    "stability.json": (b'{"subject":',),
    "transfer.json": (b'{"transferred":',),
    "sensitivity.json": (b'{"metric":',),
}
"""How the files of studies begin, of this version and of the first."""


@dataclass(frozen=True)
class RunOptions:
    """How to run."""

    device: str = "auto"
    """where to compute: auto (CUDA if there is one), cpu, cuda, cuda:1, …"""
    workers: int = 1
    """number of runs at once: processes with one thread each, or one for each GPU"""
    json: bool = False
    """print one line of JSON and nothing else, for programs"""
    fresh: bool = False
    """repeat finished runs instead of reading their results"""
    exact: bool = False
    """read a finished run only if its threads and device were those of this run; else repeat it and keep both"""
    trust: bool = False
    """import the code that a ticket's file names as its data or model; only for files of people you trust"""
    country: str = ""
    """your country's ISO code, such as DEU: estimates energy and CO₂e from its grid (pip install 'tombola[energy]')"""

    @property
    def meter(self) -> Meter | None:
        """What measures energy; None without a country, whose grid it must know."""
        return Meter(self.country) if self.country else None


@contextmanager
def engine(options: RunOptions, root: Path) -> Generator[Engine]:
    """The engine that carries out a command's runs: one after another, or several at once in processes of their own.

    Args:
        options: the device, and which finished runs may be read.
        root: the folder of the runs.
    """
    refuse_foreign(root)
    device = chosen_device(options.device)
    with bars(not options.json) as progress:
        store = Store(root, options.fresh, options.exact)
        if options.workers == 1:
            yield Engine(store, Serial(device, progress, options.meter))
        else:
            yield Engine(store, Processes(options.workers, device, progress, options.meter))


def refuse_foreign(root: Path) -> None:
    """Refuse a folder in which a report would replace files that Tombola did not write.

    A picture does not say who drew it: it counts as Tombola's beside a page or study that is.

    Raises:
        FileError: there are such files.
    """
    marked = {root / name: _holds(root / name, GENERATOR) for name in PAGES}
    marked |= {root / name: _begins(root / name, starts) for name, starts in STUDIES.items()}
    ours = any(marked.values())
    pictures = [path for name in PICTURES for path in (root / f"{name}.{kind}" for kind in ("png", "svg", "pdf"))]
    for path, own in (marked | dict.fromkeys(pictures, ours)).items():
        if not own and (path.exists() or path.is_symlink()):
            raise FileError(f"{path} was not written by Tombola; choose another --out, so that it stays")


def _holds(path: Path, mark: bytes) -> bool:
    return path.is_file() and mark in content_of(path)


def _begins(path: Path, starts: tuple[bytes, ...]) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).startswith(starts)


def work(cost: Mapping[str, float]) -> str:
    """The seconds of a cost, with energy and CO₂e if they were estimated.

    Args:
        cost: a ledger with seconds, energy in kWh and carbon in kg.

    Examples:
        >>> work({"seconds": 2.0, "energy": 0.003, "carbon": 0.001})
        '2.0 s, about 3 Wh and 1 g CO₂e'
    """
    seconds, energy, carbon = (cost.get(key, 0.0) for key in ("seconds", "energy", "carbon"))
    estimated = f", about {number(1000 * energy)} Wh and {number(1000 * carbon)} g CO₂e" if energy else ""
    return f"{seconds:.1f} s{estimated}"


def dense_epochs(count: float) -> str:
    """A number of dense epochs with its noun.

    Examples:
        >>> dense_epochs(1.0), dense_epochs(0.25)
        ('1 dense epoch', '0.25 dense epochs')
    """
    return f"{count:.4g} dense epoch{'s' * (count != 1)}"


def verdicts_json(study: Study) -> list[dict[str, Any]]:
    """Each verdict of a study as JSON's types, with its sentence."""
    return [asdict(verdict) | {"sentence": verdict.sentence, "reason": verdict.reason} for verdict in study.verdicts]
