"""A made-up study: runs whose accuracy falls with sparsity, and more so for controls."""

from __future__ import annotations

import math
import random

from tombola.evidence import Verdict, judge
from tombola.studies.result import Result

SIZES = {"conv1.weight": 432, "layer1.0.conv1.weight": 2304, "layer2.0.conv1.weight": 4608, "fc.weight": 640}
OFFSETS = {"": 0.0, "shuffle": -0.02, "fresh-init": -0.012, "random": -0.06}
QUALITY = {"imp": 0.001, "snip": -0.01, "gem-miner": -0.002}


def run(method: str, control: str, density: float, seed: int, **changes) -> Result:
    """A made-up run whose accuracy falls with sparsity, and more so for controls."""
    noise = random.Random(repr((method, control, density, seed))).gauss(0, 0.0012)
    loss_of_sparsity = 0.002 * math.log10(1 / density)
    metric = 0.91 + QUALITY.get(method, 0.0) + OFFSETS.get(control, 0.0) * math.log10(1 / density) - loss_of_sparsity
    metric += noise
    fields = {
        "method": method,
        "control": control,
        "density": density,
        "weight_density": density,
        "seed": seed,
        "metric": metric,
        "loss": 1 - metric,
        "validation": metric + 0.002,
        "epochs": 8,
        "history": tuple(
            {"epoch": e, "lr": 0.1, "train_loss": 1 / e, "validation_metric": metric - 0.2 / e} for e in range(1, 9)
        ),
        "layers": {n: (round(min(1, density * (3 - i * 0.7)) * s), s) for i, (n, s) in enumerate(SIZES.items())},
        "search": {} if not method else ledger(len(method) ** 2 / density / 10),
        "training": ledger(8),
        "settings": {"recipe": {"epochs": 8, "lr": 0.1}, "method": {"name": method, "density": density}, "seed": seed},
        "digest": f"{method or 'dense'}{control}{density}{seed}",
        "source": "0f3a",
        "command": f"tombola train {method or 'dense'} --density {density} --seed {seed}",
    }
    return Result(**(fields | changes))


def ledger(epochs: float) -> dict[str, float]:
    """The cost of so many epochs over 20,000 samples."""
    return {
        "samples_forward": 20000 * epochs,
        "samples_backward": 20000 * epochs,
        "flops": 3e12 * epochs,
        "seconds": 2.1 * epochs,
        "peak_memory": 3e8,
        "dense_epochs": epochs,
        "step_memory": 2e6,
    }


def study(methods=tuple(QUALITY), densities=(0.2, 0.05), seeds=3) -> tuple[list[Result], list[Verdict]]:
    """Runs of methods with their controls and of the dense network, and the verdict of each method and density."""
    dense = [run("", "", 1.0, seed) for seed in range(seeds)]
    results, verdicts = list(dense), []
    for method in methods:
        for density in densities:
            arms = {c: [run(method, c, density, seed) for seed in range(seeds)] for c in OFFSETS}
            results += [r for arm in arms.values() for r in arm]
            metrics = {c or "ticket": [r.metric for r in arm] for c, arm in arms.items()}
            verdicts.append(judge(method, density, metrics | {"dense": [r.metric for r in dense]}, range(seeds)))
    return results, verdicts
