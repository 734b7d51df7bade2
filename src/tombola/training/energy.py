"""Energy and carbon as codecarbon estimates them, without network, file or log. This file alone knows codecarbon.

codecarbon documents trackers and their tasks. It does not document the attributes of a finished task and the table of
countries, which are as here in 3.3. pyproject.toml admits versions up to the next major one; if an undocumented part
changes before that, `DOOR` raises an error of one sentence.
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
    """What a meter read, once its block has ended; zeros until then, and without a meter.

    Args:
        power: mean power in kW.
        intensity: the grid's kg of CO₂e a kWh.
    """

    power: float = 0.0
    intensity: float = 0.0

    def price(self, cost: Cost) -> Cost:
        """Add energy (mean power × seconds) and carbon (energy × intensity of the grid) to a cost.

        Examples:
            >>> priced = Reading(power=0.1, intensity=0.4).price(Cost(seconds=36000))
            >>> priced.energy, priced.carbon
            (1.0, 0.4)
        """
        energy = self.power * cost.seconds / 3600
        return replace(cost, energy=energy, carbon=energy * self.intensity)


@dataclass(frozen=True)
class Meter:
    """Estimates the energy in kWh and the CO₂e in kg of what runs here, on the grid of a country (extra `energy`).

    codecarbon counts what this process and its children draw: the processor's rated power × the share of its cores'
    time that they took (the whole processor where RAPL can be read), their memory, and every visible GPU as a whole.

    Args:
        country: its ISO code of three letters, as DEU.

    Raises:
        TombolaError: for a country that codecarbon does not know, and where codecarbon is not installed.
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
            task = tracker.stop_task()
            energy, seconds, carbon = (DOOR.part(task, name) for name in ("energy_consumed", "duration", "emissions"))
            reading.power = 3600 * energy / seconds
            reading.intensity = carbon / energy if energy else 0.0


@cache
def _tracker(country: str, process: int) -> OfflineEmissionsTracker:
    """One tracker for each process and country: to make one takes a second, to read it milliseconds.

    process: the process's number, so that a forked process makes a tracker of its own.
    """
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
    tracker.start_task()  # the first task reads the hardware; the measured ones shall not wait for that
    tracker.stop_task()
    return tracker
