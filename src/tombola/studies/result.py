"""What one run came to, as plain numbers that go to JSON and come back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from tombola.errors import TombolaError
from tombola.fields import known_fields
from tombola.studies.legacy import upgraded_run


@dataclass(frozen=True)
class Result:
    """One finished run.

    method: name of the search, "" for dense; control: which control of it, "" for the ticket itself;
    density: asked share of units; weight_density: kept share of prunable weights; metric and loss: on the test
    split, read once, at the end; history: one row an epoch; layers: tensor → (kept, size); search and
    training: cost as in `training.Cost`; epochs_spent: training that its start already had; effective_density:
    kept share that lies on a path from input to output; whole, before: on the validation split, the metric of the
    network that a ticket was cut out of and the ticket's before any training, where its search measured them; ticket:
    its file; command: what makes this result again; country: the one whose grid energy and carbon are estimated for, ""
    where they are not; robustness: what `evidence.Robustness` measured of it, by name; together: how many networks
    trained at once with this one counted, which shared seconds, energy and carbon evenly; alone: why it could not be
    trained with others, where small networks were.
    """

    method: str
    control: str
    density: float
    weight_density: float
    seed: int
    metric: float
    loss: float
    validation: float
    epochs: int
    history: tuple[dict[str, float], ...]
    layers: dict[str, tuple[int, int]]
    search: dict[str, float]
    training: dict[str, float]
    settings: dict[str, Any]
    digest: str
    source: str
    collapsed: tuple[str, ...] = ()
    effective_density: float | None = None
    epochs_spent: float = 0.0
    whole: float | None = None
    before: float | None = None
    ticket: str = ""
    command: str = ""
    country: str = ""
    robustness: dict[str, float] = field(default_factory=dict)
    together: int = 1
    alone: str = ""

    @property
    def arm(self) -> str:
        """Its place in a comparison: "dense", "imp", "imp · shuffle"."""
        return " · ".join(part for part in (self.method, self.control) if part) or "dense"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of(content: dict[str, Any]) -> Result:
        """A result from what JSON made of it; what a newer version adds is left out.

        TombolaError for what is missing or is not what it should be.
        """
        typed = known_fields(Result, content)
        try:
            typed["settings"] = upgraded_run(typed["settings"])
            typed["history"] = tuple(typed["history"])
            typed["layers"] = {name: (kept, size) for name, (kept, size) in typed["layers"].items()}
            typed["collapsed"] = tuple(typed.get("collapsed", ()))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TombolaError(
                f"its history, layers or collapsed layers are not listed as they should be ({error})"
            ) from error
        return Result(**typed)
