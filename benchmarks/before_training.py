"""Tickets before training: methods that look at the untrained network, beside each other and their controls.

    python -m benchmarks.before_training lenet            # LeNet-300-100, Fashion-MNIST; 5, 2 and 0.5 %; ten seeds
    python -m benchmarks.before_training resnet           # ResNet-20 on the bench; 5 and 1 %; three seeds
    python -m benchmarks.before_training lenet --quick    # two seeds, one epoch: does it run?

Finished runs are kept under --out, so that a stopped study goes on. The tables are Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import tombola as tb
from tombola.evidence.statistics import interval
from tombola.studies import Engine, Result, Serial, Store, TaskOptions, make_task
from tombola.training import Recipe, bars


@dataclass(frozen=True)
class Setting:
    """What is trained: a network and its recipe, at some densities, over some seeds."""

    task: TaskOptions
    densities: tuple[float, ...]
    seeds: int


TOGETHER = Recipe(epochs=10, precision="float32")
"""In bf16 small networks do not train together."""
SETTINGS = {
    "lenet": Setting(TaskOptions("fashion-mnist", model="lenet-300-100", recipe=TOGETHER), (0.05, 0.02, 0.005), 10),
    "resnet": Setting(TaskOptions("fashion-mnist-14", model="resnet20", recipe=Recipe(epochs=10)), (0.05, 0.01), 3),
}
METHODS: Mapping[str, Mapping[str, object]] = {
    "snip": {},
    "grasp": {},
    "iter-snip": {},
    "force": {},
    "synflow": {},
    "prospr": {},
    "concrete-ticket-search": {},
    "gem-miner": {},
}
CONTROLS = ("shuffle", "fresh-init", "random")


def study(setting: Setting, methods: Sequence[str], out: Path) -> tb.Study:
    """All methods at all densities, each with its controls and the dense network."""
    task = make_task(setting.task)
    subjects = [tb.method(name, density=d, **METHODS[name]) for name in methods for d in setting.densities]
    with bars() as shown:
        engine = Engine(Store(out), Serial("cpu", bars=shown))
        return tb.compare(task, subjects, seeds=setting.seeds, controls=CONTROLS, engine=engine)


def tables(found: tb.Study, densities: Sequence[float]) -> Iterator[str]:
    """Accuracy, controls, checks and cost; then what each layer keeps."""
    dense = _of(found.results, "", "", 1.0)
    yield f"Dense: {100 * mean(result.metric for result in dense):.2f} %."
    yield "| method | density | ticket | shuffle | fresh-init | random | checks passed | search, epochs | search, s |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for verdict in found.verdicts:
        arms = {control: _of(found.results, verdict.subject, control, verdict.density) for control in ("", *CONTROLS)}
        accuracies = [f"{100 * mean(result.metric for result in arms[control]):.2f}" for control in arms]
        passed = [c for c in CONTROLS if _better(arms[""], arms[c])]
        cost = [mean(float(result.search.get(key, 0.0)) for result in arms[""]) for key in ("dense_epochs", "seconds")]
        cells = [verdict.subject, f"{100 * verdict.density:g} %", *accuracies, f"{len(passed)} of {len(CONTROLS)}"]
        yield f"| {' | '.join([*cells, f'{cost[0]:.3g}', f'{cost[1]:.3g}'])} |"
    for density in densities:
        yield f"Kept of each layer at {100 * density:g} %, in percent, mean over seeds:"
        subjects = [verdict.subject for verdict in found.verdicts if verdict.density == density]
        layers = list(_of(found.results, subjects[0], "", density)[0].layers)
        yield f"| method | {' | '.join(layers)} |"
        yield f"| --- |{' --- |' * len(layers)}"
        for subject in subjects:
            results = _of(found.results, subject, "", density)
            shares = [mean(result.layers[layer][0] / result.layers[layer][1] for result in results) for layer in layers]
            yield f"| {subject} | {' | '.join(f'{100 * share:.2f}' for share in shares)} |"


def _of(results: Sequence[Result], method: str, control: str, density: float) -> list[Result]:
    named = (result for result in results if (result.method, result.control) == (method, control))
    return sorted((own for own in named if abs(own.density - density) < 1e-9), key=lambda result: result.seed)


def _better(ticket: Sequence[Result], control: Sequence[Result]) -> bool:
    """Whether the 95 % interval of the paired difference lies above 0."""
    pairs = zip(ticket, control, strict=True)
    _, low, _ = interval([own.metric - other.metric for own, other in pairs])
    return low > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=SETTINGS)
    parser.add_argument("--out", type=Path, default=Path("runs/before-training"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--quick", action="store_true")
    words = parser.parse_args()
    setting = SETTINGS[words.network]
    if words.quick:
        setting = replace(setting, task=replace(setting.task, recipe=Recipe(epochs=1)), seeds=2)
    if words.seeds:
        setting = replace(setting, seeds=words.seeds)
    print("\n".join(tables(study(setting, words.methods, words.out / words.network), setting.densities)))


if __name__ == "__main__":
    main()
