"""Energy and carbon as codecarbon estimates them, without network, file or log. This file alone knows codecarbon.

Trackers and their tasks are documented; not so what a finished task says of itself and the table of countries, which
are as here in 3.3. The bound in pyproject.toml is the next major version, before which what is documented should stay;
if the rest changes sooner, that is one sentence here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from tombola.doors import Door
from tombola.errors import TombolaError
from tombola.training.cost import Cost

if TYPE_CHECKING:
    from codecarbon import OfflineEmissionsTracker

DOOR = Door("codecarbon", ">=3.3,<4", "training/energy.py")


@dataclass
class Reading:
    """What a meter read: mean power in kW, and the grid's kg of CO₂e a kWh; 0 until it ends, and without a meter."""

    power: float = 0.0
    intensity: float = 0.0

    def price(self, cost: Cost) -> Cost:
        """The cost with its energy, mean power × seconds, and its carbon, energy × the grid's kg a kWh."""
        energy = self.power * cost.seconds / 3600
        return replace(cost, energy=energy, carbon=energy * self.intensity)


@dataclass(frozen=True)
class Meter:
    """Estimates the energy in kWh and the CO₂e in kg of what runs here, on the grid of a country (extra `energy`).

    country: its ISO code of three letters, as DEU. codecarbon counts what this process and its children draw:
    the processor's rated power × the share of its cores' time that they took (all of the processor where RAPL can be
    read), their memory, and every visible GPU as a whole. Raises TombolaError for a country that it does not know,
    and where it is not installed.
    """

    country: str

    def __post_init__(self) -> None:
        _tracker(self.country, os.getpid())

    @contextmanager
    def reading(self) -> Generator[Reading]:
        """Read what the block draws; readings do not nest."""
        tracker, reading = _tracker(self.country, os.getpid()), Reading()
        tracker.start_task()
        try:
            yield reading
        finally:
            used = tracker.stop_task()
            energy, seconds, carbon = (DOOR.part(used, own) for own in ("energy_consumed", "duration", "emissions"))
            reading.power = 3600 * energy / seconds
            reading.intensity = carbon / energy if energy else 0.0


@cache
def _tracker(country: str, process: int) -> OfflineEmissionsTracker:
    """One tracker a process and country: making one takes a second, reading it milliseconds."""
    try:
        import codecarbon.input
        from codecarbon import OfflineEmissionsTracker
    except ImportError as error:
        raise TombolaError(f"{error.name} is not installed; pip install 'tombola[energy]'") from error
    source = DOOR.part(codecarbon, "input.DataSource")()
    if country not in DOOR.part(source, "get_global_energy_mix_data")():
        raise TombolaError(f"there is no country '{country}'; give an ISO code of three letters, as DEU")
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    tracker = OfflineEmissionsTracker(
        country_iso_code=country,
        tracking_mode="process",
        allow_multiple_runs=True,
        output_methods=[],
        log_level="error",
        emissions_endpoint=None,
        electricitymaps_api_token=None,
        cloud_provider=None,
    )
    tracker.start_task()
    tracker.stop_task()
    return tracker
