"""The claims about greedy forward selection: its bounds, and how much pre-training is enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tombola import zoo
from tombola.methods import Enough, forward_selection
from tombola.papers.claims.claim import Claim
from tombola.papers.claims.measurement import Measurement
from tombola.papers.claims.outcome import Expectation
from tombola.papers.claims.units import POINTS, Unit
from tombola.papers.pretraining import EnoughStudy, enough
from tombola.papers.pretraining.theory import logless, paper, squared_diameter, telescoped
from tombola.studies import Engine
from tombola.training import Recipe, SupervisedTask, half_squared_error

WOLFE = "Wolfe et al., How much pre-training is enough to discover a good subnetwork?, TMLR 2024 (arXiv 2108.00259)"
Kind = Literal["the dense mean", "in the hull", "anywhere"]
KINDS: tuple[Kind, ...] = ("the dense mean", "in the hull", "anywhere")
TAIL = 30
"""The picks from which on the fall of a loss is fitted."""

VIOLATIONS = Unit("violations", "", 1, 0.5)
RATIO = Unit("of the bound", "", 1, 1e-9)
POWER = Unit("powers of k", "", 1, 0.05)
EXPONENT = Unit("powers of m", "", 1, 0.05)
MISFIT = Unit("misfit", "", 1, 0.01)
STEPS = Unit("steps", "steps", 1, 1)
GAIN = Unit("points a doubling", "points", 100, 0.0005)


def instance(generator: torch.Generator, kind: Kind, signs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Activations, outgoing weights and targets of 5 to 60 neurons on 5 to 40 examples, Gaussian or signs alone.

    The targets are what all neurons give together, a random mean of them, or Gaussian.
    """
    neurons, examples = (int(torch.randint(5, most, (1,), generator=generator)) for most in (61, 41))
    hidden = torch.randn(examples, neurons, generator=generator, dtype=torch.float64)
    hidden = hidden.sign() if signs else hidden
    outgoing = torch.full((neurons, 1), 1 / neurons, dtype=torch.float64)
    shares = torch.rand(neurons, 1, generator=generator, dtype=torch.float64).log()
    targets = {
        "the dense mean": hidden @ outgoing,
        "in the hull": hidden @ (shares / shares.sum()),
        "anywhere": torch.randn(examples, 1, generator=generator, dtype=torch.float64),
    }
    return hidden, outgoing, targets[kind]


@dataclass(frozen=True)
class Bounds:
    """How near the loss of greedy selection comes to its bounds on random instances, and how fast it falls."""

    instances: int = 300
    picks: int = 300

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        generator = torch.Generator().manual_seed(seed)
        kinds = list(product(KINDS, (False, True)))
        over, worst = dict.fromkeys("ABC", 0), dict.fromkeys("ABC", 0.0)
        falls: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
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
                ratio = float((losses / bound)[1:].max())
                worst[name] = max(worst[name], ratio)
                over[name] += bool((losses > bound * (1 + 1e-9)).any())
            falls[kind].append(fall(losses))
        return {
            **{f"violations of ({name})": float(count) for name, count in over.items()},
            **{f"largest loss ÷ ({name}), from the second pick": ratio for name, ratio in worst.items()},
            "none": 0.0,
            "fall as 1/k": 1.0,
            **{f"fall, targets {kind}": fmean(falls[kind]) for kind in KINDS[:2]},
        }


def fall(losses: Tensor) -> float:
    """The power of k by which losses fall from pick 30 on, by least squares on logarithms."""
    places = torch.arange(TAIL, len(losses) + 1, dtype=torch.float64).log()
    apart = places - places.mean()
    return -float((apart * losses[TAIL - 1 :].cpu().clamp(min=1e-300).log()).sum() / apart.square().sum())


BOUNDS_UNITS = {
    **{f"violations of ({name})": VIOLATIONS for name in "ABC"},
    "none": VIOLATIONS,
    **{f"largest loss ÷ ({name}), from the second pick": RATIO for name in "ABC"},
    "fall as 1/k": POWER,
    **{f"fall, targets {kind}": POWER for kind in KINDS[:2]},
}


def bounds_protocol(own: Bounds, seeds: int, minutes: str) -> Measurement:
    ran = (
        f"{own.instances * seeds:,} random instances of {own.picks} picks: 5 to 60 neurons, Gaussian or signs, on 5 to "
        "40 examples; targets at the dense mean, in the neurons' hull, and anywhere. Losses are ½ of the mean squared "
        f"error in float64; the fall is that of ln loss over ln k from k = {TAIL}, mean over instances."
    )
    return Measurement(own, BOUNDS_UNITS, seeds, minutes, ran)


BOUNDS = Claim(
    id="greedy-bounds",
    title="Greedy selection keeps its proved bounds, and its loss falls as 1/k or faster",
    statement=(
        "After k picks the loss l(k) of greedy forward selection is at most l(1)/k + (k−1)/k · L + V · (H_k − 1)/(2k) "
        "(B), and √l(k) at most √L + √(V/(2k)) (C), with the whole network's loss L and the variance V of its neurons; "
        "where the targets lie in the neurons' hull, the loss falls as 1/k or faster."
    ),
    source=(
        f"{WOLFE}; Ye et al., Good Subnetworks Provably Exist, ICML 2020; (B) and (C) are proved in "
        "papers.pretraining.theory"
    ),
    differs=(
        "(A) is the paper's form as it is remembered, l(1)/k + D²/(2k) + (k−1)/k · L with the hull's diameter D: its "
        "violations are counted, and nothing is expected of them."
    ),
    protocols={
        "quick": bounds_protocol(Bounds(30), 2, "1"),
        "standard": bounds_protocol(Bounds(), 4, "2"),
        "full": bounds_protocol(Bounds(10_000), 10, "60"),
    },
    expected=(
        Expectation("none", "≥", "violations of (B)"),
        Expectation("none", "≥", "violations of (C)"),
        *(Expectation(f"fall, targets {kind}", "≥", "fall as 1/k") for kind in KINDS[:2]),
    ),
)


@dataclass(frozen=True)
class Growing:
    """When tickets of two-layer networks stop getting better, by the size of the data, and how that grows."""

    sizes: tuple[int, ...] = (1_000, 3_000, 10_000, 25_000, 50_000)
    steps: int = 3000
    width: float = 1.0
    lr: float = 50.0
    enough: Enough = field(default_factory=lambda: Enough(picks=100, growth=1.4, stop=False))

    def __call__(self, seed: int, engine: Engine, data_dir: Path | None) -> Mapping[str, float]:
        done = enough(self.task(data_dir), self.enough, sizes=self.sizes, steps=self.steps, seeds=[seed], engine=engine)
        return figures_of(done)

    def task(self, data_dir: Path | None) -> SupervisedTask:
        """Fashion-MNIST at 14×14, the last 10,000 training images for validation, and a two-layer network."""
        (images, labels), test = (zoo.data("fashion-mnist", data_dir)[split] for split in ("train", "test"))
        small = F.avg_pool2d(images, 2)
        data = {
            "train": (small[:50_000], labels[:50_000]),
            "validation": (small[50_000:], labels[50_000:]),
            "test": (F.avg_pool2d(test[0], 2), test[1]),
        }
        recipe = Recipe(lr=self.lr, schedule="constant", weight_decay=0.0, precision="float32")
        return SupervisedTask(zoo.model("two-layer", (1, 14, 14), 10, self.width), data, half_squared_error, recipe)

    @property
    def units(self) -> dict[str, Unit]:
        return {
            **{f"enough at {size:,}": STEPS for size in self.sizes},
            **{f"ticket at {size:,}": POINTS for size in self.sizes},
            **{f"gain {when} it, {size:,}": GAIN for size in self.sizes for when in ("before", "after")},
            "exponent": EXPONENT,
            "the formula's exponent": EXPONENT,
            "misfit of a power law": MISFIT,
            "misfit of a logarithm": MISFIT,
            "measured ÷ predicted with c of smaller sizes": RATIO,
        }


def figures_of(done: EnoughStudy) -> dict[str, float]:
    """A study's figures by name, of one seed."""
    found: dict[str, float] = {}
    for run in done.runs:
        first, last, size = run.curve[0], run.curve[-1], f"{run.examples:,}"
        found |= {f"enough at {size}": float(run.saturation.step), f"ticket at {size}": run.saturation.metric}
        before = gain(first.step, first.ticket, run.saturation.step, run.saturation.metric)
        found |= {f"gain before it, {size}": before}
        found |= {f"gain after it, {size}": gain(run.saturation.step, run.saturation.metric, last.step, last.ticket)}
    growth, largest = done.growth, done.sizes[-1]
    said = done.said(largest, done.fitted(largest))
    assert growth is not None
    assert said is not None
    return found | {
        "exponent": growth.exponent,
        "the formula's exponent": 2.0,
        "misfit of a power law": growth.power_misfit,
        "misfit of a logarithm": growth.logarithm_misfit,
        "measured ÷ predicted with c of smaller sizes": done.steps[largest] / said,
    }


def gain(step: int, metric: float, later: int, then: float) -> float:
    """What each doubling of the steps between two tickets brought."""
    doublings = math.log2(later / step)
    return (then - metric) / doublings if doublings else 0.0


def growing_protocol(own: Growing, seeds: int, minutes: str) -> Measurement:
    ran = (
        f"Networks of {1000 * own.width:,.0f} tanh neurons in mean-field form on random parts of "
        f"{', '.join(f'{size:,}' for size in own.sizes)} images, trained for {own.steps:,} steps of 128 with SGD "
        f"(learning rate {own.lr:g}, momentum 0.9, half squared error to one-hot classes); greedy tickets of "
        f"{own.enough.picks} picks on {own.enough.examples:,} training images after each {own.enough.growth:g} times "
        "as many steps, judged on 3,000 validation images, without fine-tuning. Enough is the first ticket within "
        f"{100 * own.enough.tolerance:g} point of the best, by medians of three neighbours. Misfits are root mean "
        "squares of ln(measured ÷ fitted) over the sizes of one seed. The test split is not read."
    )
    return Measurement(own, own.units, seeds, minutes, ran)


QUICK = Growing((300, 1000, 3000), 150, 0.1, 5.0, Enough(20, growth=2.0, stop=False))
STANDARD = Growing()
FIRST, *_, LAST = (f"{size:,}" for size in STANDARD.sizes)

ENOUGH = Claim(
    id="enough-pretraining",
    title="Tickets stop getting better after some pre-training, later for larger data, logarithmically",
    statement=(
        "The accuracy of two-layer networks pruned greedily, without fine-tuning, saturates with the iterations of "
        "pre-training; the larger the data set, the later, and the number needed grows logarithmically with its size."
    ),
    source=WOLFE,
    differs=(
        "Fashion-MNIST at 14×14 for MNIST; 1,000 neurons and 100 picks for (as remembered) 10,000 and 200; neurons are "
        "chosen on at most 5,000 training images."
    ),
    protocols={
        "quick": growing_protocol(QUICK, 2, "1"),
        "standard": growing_protocol(STANDARD, 3, "20"),
        "full": growing_protocol(Growing(steps=8000, width=10.0, lr=500.0, enough=Enough(200, stop=False)), 10, "days"),
    },
    expected=(
        Expectation(f"gain before it, {FIRST}", ">", f"gain after it, {FIRST}"),
        Expectation(f"gain before it, {LAST}", ">", f"gain after it, {LAST}"),
        Expectation("enough at 10,000", ">", f"enough at {FIRST}"),
        Expectation(f"enough at {LAST}", ">", "enough at 10,000"),
        Expectation("misfit of a power law", ">", "misfit of a logarithm"),
    ),
)

GREEDY = (BOUNDS, ENOUGH)
