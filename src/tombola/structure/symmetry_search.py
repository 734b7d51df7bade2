"""Finds the units of a network that can change places, and proves on an example that they can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from tombola.doors import DoorError
from tombola.errors import TombolaError
from tombola.structure.channel_map import ChannelMap
from tombola.structure.graph import Probe
from tombola.structure.layers import BATCH_NORMS, entering, is_depthwise, is_producer, normed_together
from tombola.structure.part_search import found_parts
from tombola.structure.placed_parts import PlacedPart
from tombola.structure.symmetries import Seat, Strand, Symmetries, Symmetry
from tombola.structure.symmetry_trials import proved
from tombola.structure.trace import wiring_of
from tombola.structure.wiring import EMPTY, INPUTS, PINNED, Wiring
from tombola.tickets import joined, modules_of, tensors_of


def symmetries_of(model: nn.Module, probe: Probe) -> Symmetries:
    """The units of a network that can change places without changing its outputs: channels, neurons, attention heads.

    They come from the trace of its channels and from its heads and hidden neurons. Units that share an axis, as those
    of a residual stream, move together. Each symmetry is tried on the example: a copy of the network in double
    precision, with its numbers shaken, must give the same outputs after random moves. What does not is left out.

    Args:
        model: the network; it stays as it is.
        probe: calls it on an example of its inputs.

    Raises:
        TombolaError: if no unit of the network can change places.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> [(own.name, own.blocks) for own in symmetries_of(model, lambda network: network(torch.ones(4, 2))).found]
        [('0', 3)]
    """
    modules = modules_of(model)
    try:
        wiring, reason = wiring_of(model, probe), ""
    except DoorError:
        raise
    except TombolaError as error:
        wiring, reason = EMPTY, str(error)
    candidates = _of_wiring(wiring, modules)
    taken = {(seat.tensor, seat.dim) for own in candidates for strand in own.strands for seat in strand.seats}
    tensors = tensors_of(model)
    for part in found_parts(model, probe).parts:
        if not any((place.tensor, place.dim) in taken for place in part.places):
            candidates.append(_of_part(part, tensors))
    found = proved(candidates, model, probe)
    if not found:
        why = f" ({reason})" if reason else ""
        raise TombolaError(
            f"no unit of this network can be told to change places without changing what it computes{why}; its units "
            "cannot be matched with another network's"
        )
    return Symmetries(tuple(found), _fixed(found, wiring, modules, reason))


def _fixed(found: list[Symmetry], wiring: Wiring, modules: Mapping[str, nn.Module], reason: str) -> dict[str, str]:
    """The layers none of whose outputs can move, but for those that give the network's outputs."""
    moving = {(seat.tensor, seat.dim) for own in found for strand in own.strands for seat in strand.seats}
    outputs = {g.name for g in wiring.groups if g.slices and not any(part.scored for part in g.slices)}
    fixed = {}
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if not is_producer(module) or weight is None or name in outputs - wiring.lost.keys():
            continue
        if any(
            (joined(name, own), dim) in moving
            for own in ("weight", "bias")
            for dim in (0, 1)
            if (own, dim) != ("weight", 1)
        ):
            continue
        lost = wiring.lost.get(name)
        tied = f"they reach '{lost}', where they cannot be followed" if lost else "they are tied to what cannot move"
        fixed[name] = reason or tied
    return fixed


def _of_wiring(wiring: Wiring, modules: Mapping[str, nn.Module]) -> list[Symmetry]:
    """The symmetries of channels: what is tied along an axis is one unit, what a layer takes in groups is a block."""
    sizes = [group.size for group in wiring.groups]
    starts = np.concatenate([[1], 1 + np.cumsum(sizes)]).astype(int)
    total = int(starts[-1])
    group_of = np.repeat(np.arange(-1, len(sizes)), [1, *sizes])
    ties = torch.cat([wiring.tied(wiring.grouped), _through_maps(wiring, modules, group_of)], 1).numpy()
    in_groups = _tied_by_groups(ties, wiring, modules, group_of, starts)
    unit_of, block_of = _components(ties[:, ~in_groups], total), _components(ties, total)
    still = {int(unit_of[PINNED])}

    places: dict[int, list[tuple[int, int]]] = {}
    for number in range(1, total):
        if int(unit_of[number]) not in still:
            at = int(group_of[number])
            places.setdefault(int(unit_of[number]), []).append((at, number - int(starts[at])))
    blocks: dict[int, dict[tuple[tuple[int, int], ...], list[int]]] = {}
    for unit, own in places.items():  # in the order of each unit's first channel
        kind = tuple(sorted(Counter(at for at, _ in own).items()))
        first = int(starts[own[0][0]]) + own[0][1]
        blocks.setdefault(int(block_of[first]), {}).setdefault(kind, []).append(unit)
    pinned_block = int(block_of[PINNED])
    alike: dict[tuple, list[int]] = {}
    for block, kinds in blocks.items():
        alone = (block,) if block == pinned_block else ()
        alike.setdefault((*sorted((kind, len(units)) for kind, units in kinds.items()), *alone), []).append(block)

    symmetries: list[Symmetry] = []
    for members in alike.values():
        kinds = list(blocks[members[0]])
        strands = []
        for kind in kinds:
            units = [unit for block in members for unit in blocks[block][kind]]
            seats = tuple(_seats(kind, [places[unit] for unit in units], wiring, modules))
            strands.append((kind, Strand(seats, len(blocks[members[0]][kind]))))
        if len(members) > 1:
            name = wiring.groups[min(at for kind, _ in strands for at, _ in kind)].name
            symmetries.append(Symmetry(_free(name, symmetries), len(members), tuple(own for _, own in strands)))
            continue
        for kind, strand in strands:
            if strand.size > 1:
                name = wiring.groups[kind[0][0]].name
                symmetries.append(Symmetry(_free(name, symmetries), strand.size, (Strand(strand.seats),)))
    return [own for own in symmetries if own.tensors]


def _free(name: str, taken: list[Symmetry]) -> str:
    names, plain = {own.name for own in taken}, name.removesuffix(INPUTS)
    return next(own for n in range(1, 2 + len(names)) if (own := plain if n == 1 else f"{plain} ({n})") not in names)


def _seats(kind: tuple, places: list[list[tuple[int, int]]], wiring: Wiring, modules: Mapping[str, nn.Module]):
    for at, _ in kind:
        group = wiring.groups[at]
        positions = torch.tensor([sorted(place for own, place in unit if own == at) for unit in places])
        for part in group.slices:
            assert part.dim is not None
            yield Seat(part.parameter, part.dim, torch.tensor(part.positions)[positions].flatten(1))
        plain = group.name.removesuffix(INPUTS)
        module = modules.get(plain)
        groups = getattr(module, "groups", 1)
        if group.name.endswith(INPUTS):
            if groups > 1 and not is_depthwise(module):
                yield Seat(joined(plain, "weight"), 1, positions, groups)
            continue
        for norm in (group.name, wiring.norms.get(group.name, "")):
            if isinstance(modules.get(norm), BATCH_NORMS):
                for own in ("running_mean", "running_var"):
                    if getattr(modules[norm], own) is not None:
                        yield Seat(joined(norm, own), 0, positions)


def _through_maps(wiring: Wiring, modules: Mapping[str, nn.Module], group_of: np.ndarray) -> Tensor:
    """Pairs of an input and the output that equals it, of modules that move channels: they keep their places."""
    maps = [
        bool(group.name.endswith(INPUTS) and isinstance(modules.get(group.name.removesuffix(INPUTS)), ChannelMap))
        for group in wiring.groups
    ]
    enters = np.array([False, *maps])[group_of[wiring.flows[0].numpy()] + 1]
    return wiring.flows[:, torch.from_numpy(enters)]


def _tied_by_groups(
    ties: np.ndarray, wiring: Wiring, modules: Mapping[str, nn.Module], group_of: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Which pairs are tied only since a grouped convolution, or a norm over several channels, takes them together."""
    grouped = np.zeros(len(wiring.groups) + 1, bool)
    partner = np.arange(len(wiring.groups) + 1)
    numbers = {group.name: at + 1 for at, group in enumerate(wiring.groups)}
    for name, at in numbers.items():
        plain = name.removesuffix(INPUTS)
        convolution = modules.get(plain)
        norm = modules.get(wiring.norms.get(name, name))
        many = is_producer(convolution) and getattr(convolution, "groups", 1) > 1 and not is_depthwise(convolution)
        grouped[at] = many or (not name.endswith(INPUTS) and normed_together(norm) > 1)
        if many and entering(plain) in numbers:
            partner[numbers[entering(plain)]] = numbers[plain]
    first, second = group_of[ties[0]] + 1, group_of[ties[1]] + 1
    return grouped[second] & (partner[first] == partner[second])


def _components(pairs: np.ndarray, total: int) -> np.ndarray:
    graph = coo_array((np.ones(pairs.shape[1], bool), (pairs[0], pairs[1])), shape=(total, total))
    return connected_components(graph, directed=False)[1]


def _of_part(part: PlacedPart, tensors: Mapping[str, Tensor]) -> Symmetry:
    """The symmetry of heads or hidden neurons: in a head, what values are made of may move, and what is compared."""
    strands = []
    for roles in (("makes",), ("value", "takes")):
        places = [place for place in part.places if place.role in roles and place.tensor in tensors]
        sizes = {place.inner for place in places}
        if len(sizes) != 1:
            return _whole(part, tensors)
        size, seats = sizes.pop(), []
        for place in places:
            each = torch.tensor([place.positions(unit, part.size) for unit in range(part.size)])
            each = each.reshape(part.size, place.outer, size).transpose(1, 2)
            seats.append(Seat(place.tensor, place.dim, each.reshape(part.size * size, place.outer)))
        strands.append(Strand(tuple(seats), size))
    if any(place.role == "beside" for place in part.places):
        return _whole(part, tensors)
    return Symmetry(part.name, part.size, tuple(strands))


def _whole(part: PlacedPart, tensors: Mapping[str, Tensor]) -> Symmetry:
    seats = tuple(
        Seat(place.tensor, place.dim, torch.tensor([place.positions(unit, part.size) for unit in range(part.size)]))
        for place in part.places
        if place.tensor in tensors
    )
    return Symmetry(part.name, part.size, (Strand(seats),))
