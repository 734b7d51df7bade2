"""What one run came to, as plain numbers that go to JSON and come back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import msgspec

from tombola.evidence import fixed
from tombola.files import FORMAT, check_format, json_of, printable, read_as
from tombola.studies.legacy import upgraded_run
from tombola.training import fingerprint

CHECK, SEAL = "check", "seal"
"""Where JSON has the digest of what it says; and at its end, that of its text, which is quicker to check."""


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Row = Annotated[dict[str, int | float], msgspec.Meta(max_length=64)]
"""Ranges that are checked when a result is read."""


@dataclass(frozen=True, repr=False)
class Result:
    """What one finished run came to.

    Args:
        method: the search; "" for the dense network.
        control: which control of it; "" for the ticket itself.
        density: the share of units that was asked for.
        weight_density: the share of prunable weights that is kept.
        seed: of the run.
        metric: on the test split, which is read once, at the end; as a share.
        loss: likewise.
        validation: the metric on the validation split.
        epochs: how many were trained.
        history: one row an epoch.
        layers: by tensor, how many weights are kept, of how many.
        search: the cost of the search, as `training.Cost`.
        training: the cost of the training.
        settings: what the run is.
        digest: the name of its folder.
        source: a digest of the package's source that made it.
        collapsed: the layers of which nothing is left.
        network_density: the share of all parameters that is kept, those included that cannot be pruned; None in older
            results.
        effective_density: the share of weights that lie on a path from input to output; None where that is not known.
        alive_flops: FLOPs of a training step of the network without the units that the ticket leaves wholly dead, as a
            share of the dense network's; None for controls, and where that is not known.
        epochs_spent: the training that the start of the ticket already had.
        whole: the validation metric of the network that the ticket was cut out of, where the search measured it.
        before: the validation metric of the ticket before it trained, where the search measured it.
        ticket: the ticket's file.
        command: what to type to make the result again.
        country: whose grid energy and carbon are estimated for; "" where they are not.
        robustness: what `robust.Robustness` measured, by name.
        together: how many networks trained at once, this one counted; they shared seconds and energy evenly.
        alone: why the network could not train with others, where small networks did.
        measured: further measures on the test split, by name.
    """

    method: str
    control: str
    density: Share
    weight_density: Share
    seed: Count
    metric: float
    loss: float
    validation: float
    epochs: Count
    history: tuple[Row, ...]
    layers: dict[str, tuple[int, int]]
    search: dict[str, int | float]
    training: dict[str, int | float]
    settings: dict[str, Any]
    digest: str
    source: str
    collapsed: tuple[str, ...] = ()
    network_density: float | None = None
    effective_density: float | None = None
    alive_flops: float | None = None
    epochs_spent: float = 0.0
    whole: float | None = None
    before: float | None = None
    ticket: str = ""
    command: str = ""
    country: str = ""
    robustness: dict[str, float] = field(default_factory=dict)
    together: Count = 1
    alone: str = ""
    measured: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        metric = f"{fixed(100 * self.metric)} % on the test split"
        return (
            f"{self.arm} at density {self.density:.4g}, seed {self.seed}: {metric}, "
            f"loss {self.loss:.4g}, after {self.epochs} epoch{'s' * (self.epochs != 1)}"
        )

    __repr__ = __str__

    @property
    def arm(self) -> str:
        """Its place in a comparison: "dense", "imp", "imp · shuffle"."""
        return " · ".join(part for part in (self.method, self.control) if part) or "dense"

    def to_json(self) -> str:
        """One line of JSON, with a digest that finds damage."""
        content = {"format": FORMAT, **asdict(self)}
        # To JSON and back, and safe to show: as it is when it has been read.
        text = json.dumps({**content, CHECK: fingerprint(printable(json.loads(json.dumps(content))))})[:-1]
        return f'{text}, "{SEAL}": "{fingerprint(text)}"}}'

    @staticmethod
    def read(text: str) -> Result:
        """A result from its JSON; ValueError if it is damaged."""
        said, _, seal = text.rpartition(f', "{SEAL}": ')
        return Result.of(json_of(text), is_whole=seal.rstrip() == f'"{fingerprint(said)}"}}')

    @staticmethod
    def of(content: dict[str, Any], is_whole: bool = False) -> Result:
        """A result from what `json_of` read; fields that a newer version adds are left out.

        Args:
            content: what the JSON holds.
            is_whole: its text is known to be as it was written.

        Raises:
            ValueError: something is missing, or is not what it should be.
        """
        if isinstance(content, dict) and CHECK in content and not is_whole:  # the first version wrote none
            check_format(content)
            said = {key: value for key, value in content.items() if key not in (CHECK, SEAL)}
            if content[CHECK] != fingerprint(said):
                raise ValueError("its contents do not match its digest")
        return read_as(Result, content).upgraded()

    def upgraded(self) -> Result:
        """The same result with its settings in today's form."""
        today = upgraded_run(self.settings)
        return self if today is self.settings else replace(self, settings=today)
