"""How greedy forward selection keeps its bounds, on random instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from tombola.methods import forward_selection
from tombola.papers.claims.units import RATIO, Unit
from tombola.papers.pretraining.theory import logless, paper, squared_diameter, telescoped
from tombola.studies import Engine

Kind = Literal["the dense mean", "in the hull", "anywhere"]
KINDS: tuple[Kind, ...] = ("the dense mean", "in the hull", "anywhere")
TAIL = 30
"""The pick from which on the fall of a loss is fitted."""

VIOLATIONS = Unit("violations", "", 1, 0.5)
POWER = Unit("powers of k", "", 1, 0.05)


def instance(generator: torch.Generator, kind: Kind, signs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a random instance of greedy selection: 5 to 60 neurons on 5 to 40 examples.

    Args:
        generator: where the random numbers come from.
        kind: which targets: the mean of all neurons, a random mean of them, or Gaussian.
        signs: whether activations are −1 and 1, in place of Gaussian.

    Returns:
        Activations (examples × neurons), outgoing weights (neurons × 1) and targets (examples × 1), in float64.
    """
    neurons, examples = (int(torch.randint(5, end, (1,), generator=generator)) for end in (61, 41))
    hidden = torch.randn(examples, neurons, generator=generator, dtype=torch.float64)
    hidden = hidden.sign() if signs else hidden
    outgoing = torch.full((neurons, 1), 1 / neurons, dtype=torch.float64)
    # Normalised logarithms of uniform numbers are uniform over the simplex. All targets are drawn, whatever the kind,
    # so that the generator moves on by the same number of draws.
    logs = torch.rand(neurons, 1, generator=generator, dtype=torch.float64).log()
    targets = {
        "the dense mean": hidden @ outgoing,
        "in the hull": hidden @ (logs / logs.sum()),
        "anywhere": torch.randn(examples, 1, generator=generator, dtype=torch.float64),
    }
    return hidden, outgoing, targets[kind]


@dataclass(frozen=True)
class Bounds:
    """How near the loss of greedy selection comes to its bounds on random instances, and how fast it falls.

    Args:
        instances: how many instances a seed draws; three kinds of targets and two of activations take turns.
        picks: how many neurons are picked in each instance.
    """

    instances: int = 300
    picks: int = 300

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        generator = torch.Generator().manual_seed(seed)
        kinds = list(product(KINDS, (False, True)))
        violations, largest = dict.fromkeys("ABC", 0), dict.fromkeys("ABC", 0.0)
        powers: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
        for number in range(self.instances):
            kind, signs = kinds[number % len(kinds)]
            hidden, outgoing, targets = instance(generator, kind, signs)
            picked = forward_selection(hidden, outgoing, targets, self.picks)
            bounds = {
                "A": paper(picked, squared_diameter(hidden, outgoing)),
                "B": telescoped(picked),
                "C": logless(picked),
            }
            losses = picked.losses
            for name, bound in bounds.items():
                # After the first pick the bound (B) is the loss itself.
                ratio = float((losses / bound)[1:].max())
                largest[name] = max(largest[name], ratio)
                violations[name] += bool((losses > bound * (1 + 1e-9)).any())
            powers[kind].append(fall(losses))
        return {
            **{f"violations of ({name})": float(count) for name, count in violations.items()},
            **{f"largest loss ÷ ({name}), from the second pick": ratio for name, ratio in largest.items()},
            "none": 0.0,
            "fall as 1/k": 1.0,
            **{f"fall, targets {kind}": fmean(powers[kind]) for kind in KINDS[:2]},
        }

    @property
    def units(self) -> dict[str, Unit]:
        return {
            **{f"violations of ({name})": VIOLATIONS for name in "ABC"},
            "none": VIOLATIONS,
            **{f"largest loss ÷ ({name}), from the second pick": RATIO for name in "ABC"},
            "fall as 1/k": POWER,
            **{f"fall, targets {kind}": POWER for kind in KINDS[:2]},
        }

    def ran(self, seeds: int) -> str:
        """What was done, in words."""
        return (
            f"{self.instances * seeds:,} random instances of {self.picks} picks: 5 to 60 neurons, Gaussian or signs, "
            "on 5 to 40 examples; targets at the dense mean, in the neurons' hull, and anywhere. Losses are ½ of the "
            f"mean squared error in float64; the fall is that of ln loss over ln k from k = {TAIL}, mean over "
            "instances."
        )


def fall(losses: Tensor) -> float:
    """The power of k by which losses fall from pick 30 on, by least squares on logarithms."""
    log_k = torch.arange(TAIL, len(losses) + 1, dtype=torch.float64).log()
    centred = log_k - log_k.mean()
    return -float((centred * losses[TAIL - 1 :].cpu().clamp(min=1e-300).log()).sum() / centred.square().sum())
