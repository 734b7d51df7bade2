"""Methods by the names of their papers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tombola.errors import unknown
from tombola.methods.iterative import Iterative
from tombola.methods.method import Method
from tombola.methods.one_shot import OneShot
from tombola.scores import Grasp, GraspFirstOrder, Magnitude, Random, Snip, SynFlow


@dataclass(frozen=True)
class Preset:
    """A named method: its settings, its paper, what it does in one line, and what its search costs."""

    method: Method
    paper: str
    summary: str
    cost: str

    @property
    def granularity(self) -> str:
        return self.method.granularity.name


METHODS: dict[str, Preset] = {
    "imp": Preset(
        Iterative(),
        "Frankle & Carbin, ICLR 2019",
        "train, remove the smallest 20 % of weights, rewind to the initialisation, again",
        "one full training a round",
    ),
    "imp-warm": Preset(
        Iterative(rewind="1ep"),
        "Frankle et al., ICML 2020",
        "as imp, rewinding to an early step of training instead of the initialisation",
        "one full training a round",
    ),
    "lrr": Preset(
        Iterative(rewind="learning-rate"),
        "Renda, Frankle, Carbin, ICLR 2020",
        "as imp, keeping the trained weights and rewinding only the learning rate",
        "one full training a round",
    ),
    "snip": Preset(
        OneShot(score=Snip()), Snip.paper, "keep the weights to which the loss is most sensitive", "one batch"
    ),
    "grasp": Preset(
        OneShot(score=Grasp()), Grasp.paper, "keep the weights that preserve the gradient's norm", "one batch"
    ),
    "grasp-first-order": Preset(
        OneShot(score=GraspFirstOrder()),
        GraspFirstOrder.paper,
        "keep the largest signed weight × gradient",
        "one batch",
    ),
    "synflow": Preset(
        OneShot(score=SynFlow(), rounds=100),
        SynFlow.paper,
        "keep the weights that carry the most flow of an all-ones input, in 100 rounds, without data",
        "100 forward-backwards of one sample",
    ),
    "random": Preset(
        OneShot(score=Random(), scope="layerwise"),
        Random.paper,
        "a random mask of the same density in every layer",
        "nothing",
    ),
    "erk": Preset(
        OneShot(score=Random(), scope="erk"),
        "Evci et al., ICML 2020",
        "a random mask with Erdős–Rényi-kernel layer densities",
        "nothing",
    ),
    "smart-ratio": Preset(
        OneShot(score=Random(), scope="smart-ratio"),
        "Su et al., NeurIPS 2020",
        "a random mask whose layer densities fall towards the output",
        "nothing",
    ),
    "magnitude-init": Preset(
        OneShot(score=Magnitude()),
        "the baseline of Frankle et al., ICLR 2021",
        "keep the largest initial weights",
        "nothing",
    ),
}


def method(name: str, **settings: Any) -> Method:
    """The method of this name, with settings replaced.

    Examples:
        >>> method("snip", density=0.05).density
        0.05
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return replace(METHODS[name].method, **settings)  # ty: ignore[invalid-argument-type]


def name_of(own: Method) -> str:
    """The name of the preset that a method is, whatever its density; else its type's name."""
    for name, preset in METHODS.items():
        if type(preset.method) is type(own) and replace(preset.method, density=own.density) == own:  # ty: ignore[invalid-argument-type]
            return name
    return type(own).__name__
