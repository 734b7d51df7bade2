"""The mask of the best units of a network, at a density or a target."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Unpack

from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.scores import Forward, Inputs, forward
from tombola.shrinking.small_sizes import SmallSizes
from tombola.shrinking.targets import Targets, check_takes_target, reach, target_of
from tombola.structure import (
    OF_PARTS,
    CoupledUnits,
    FloorWarning,
    Granularity,
    UnitMap,
    Weights,
    check_granularity,
    check_is_granularity,
    kept_share,
    sizes_of,
    with_widths,
)
from tombola.tickets import Mask, Scope, TieWarning, tensors_of
from tombola.tickets import select as select_weights


def select(
    scores: Mapping[str, Tensor],
    density: float | None = None,
    *,
    scope: Scope = "global",
    within: Mask | None = None,
    floor: int | Mapping[str, int] = 0,
    granularity: Granularity | None = None,
    model: nn.Module | None = None,
    example: Inputs | None = None,
    forward: Forward = forward,
    **targets: Unpack[Targets],
) -> Mask:
    """The mask that keeps the weights, or the units, with the highest scores.

    Without a granularity, exactly round-half-even(density · n) of n weights stay: see `tombola.tickets.select`. With
    one, whole channels, heads, neurons or blocks stay or go, with all that lives and dies with them, so that
    `tombola.shrink` can cut them out.

    Args:
        scores: one tensor a layer, by name; larger = keep.
        density: the kept share of all weights or units, in (0, 1]; None if `scope` is a mapping, or a target is given.
        scope: how layers share the density: `global`, `layerwise`, a rule of random masks, or a density for each layer,
            or for each group of units as `Sensitivity.scope` gives it.
        within: an earlier mask of weights; only what it keeps can be kept.
        floor: weights or units that each layer keeps at least.
        granularity: what is removed together, as `tb.Channels()`.
        model: the network, for a granularity.
        example: a batch of a few samples, on which the network can be called.
        forward: calls the network on the example.
        **targets: what the smaller network shall be, in place of a density: `flops`, `parameters`, `speedup` and
            `latency` as of `tombola.shrinking.Target`. `round_to` and `protect` as of `tombola.Channels`.

    Returns:
        The mask of weights.

    Raises:
        TombolaError: if arguments are missing or contradict each other, or the target cannot be reached.

    Examples:
        >>> import torch
        >>> import tombola as tb
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> scores, example = tb.scores.magnitude(model), torch.ones(1, 4)
        >>> mask = tb.select(scores, flops=0.5, granularity=tb.Channels(), model=model, example=example)
        >>> tb.shrink(model, mask, example=example)[0]
        Linear(in_features=4, out_features=4, bias=True)
    """
    if granularity is None:
        if targets:
            raise TombolaError(
                f"{next(iter(targets))} needs units that can be cut out; give granularity=tb.Channels(), model= and "
                "example="
            )
        return select_weights(scores, density, scope=scope, within=within, floor=floor)
    if model is None or example is None:
        raise TombolaError("units are found by calling the network; give model= and example=, inputs that it takes")
    if not isinstance(floor, int):
        raise TombolaError("the floor of units is one number; give that, or protect=")
    target = target_of(targets)
    if target.asked:
        check_takes_target(granularity)
    if target.asked and isinstance(granularity, Weights):
        raise TombolaError(
            "single weights take no target here, since a network computes with their zeros; give a density, or "
            "granularity=tb.Channels(), heads, neurons or blocks"
        )
    check_is_granularity(granularity)
    chosen = with_widths(granularity, targets.get("round_to", 1), targets.get("protect", ()))
    check_granularity(chosen, 1.0 if density is None else density, scope)
    if target.asked and density is not None:
        raise TombolaError(f"density and {target} both say how much stays; leave one out")
    sizes = SmallSizes(model, example, forward)
    units, parameters = chosen.units(model, sizes.probe), tensors_of(model)
    if target.asked and isinstance(chosen, OF_PARTS):
        floor = max(floor, 1)  # else the fewest units that a density can ask for leave some part none
    inside = None if within is None else _kept_in(units, scores, within)

    def choose(share: float | None) -> Mask:
        return units.expand(units.choose(scores, share, scope=scope, within=inside, floor=floor), parameters)

    if not target.asked:
        return choose(None if density is None else kept_share(units, density))
    if isinstance(scope, Mapping):
        raise TombolaError(f"{target} solves for a density, and scope gives one for each group; leave one out")
    with warnings.catch_warnings():
        for category in (TieWarning, FloorWarning):  # of choices that are only counted
            warnings.simplefilter("ignore", category)
        found = reach(target, choose, sum(sizes_of(units).values()), sizes, model, sizes.probe)
    return choose(found.density)  # again, to be heard of floors and ties


def _kept_in(units: UnitMap, scores: Mapping[str, Tensor], mask: Mask) -> Mask:
    """The units of which a mask of weights keeps something."""
    reduce = getattr(units, "worths", None) or getattr(units, "reduce", None)
    if reduce is None:
        raise TombolaError("an earlier mask of these units cannot be read; leave within= out")
    alive = reduce({name: mask[name].double() for name in mask})
    if isinstance(units, CoupledUnits):
        alive = units.families.worths(alive)
    groups = units.choose(scores, 1.0, scope="global", within=None, floor=0)
    return Mask.of({name: alive[name] > 0 for name in groups})
