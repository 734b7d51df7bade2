"""What one run came to, as plain numbers that go to JSON and come back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tombola.files import FORMAT, read_as
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
    history: tuple[dict[str, int | float], ...]
    layers: dict[str, tuple[int, int]]
    search: dict[str, int | float]
    training: dict[str, int | float]
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
        return json.dumps({"format": FORMAT, **asdict(self)})

    @staticmethod
    def of(content: dict[str, Any]) -> Result:
        """A result from what JSON holds of it; fields that a newer version adds are left out.

        Raises:
            ValueError: something is missing, or is not what it should be.
        """
        return read_as(Result, content).upgraded()

    def upgraded(self) -> Result:
        """The same result with its settings in today's form."""
        return replace(self, settings=upgraded_run(self.settings))
