"""Units: what in a network can be pruned, and what lives and dies together."""

from tombola.structure.blocks import Blocks
from tombola.structure.channels import Channels, ChannelUnits
from tombola.structure.filters import Filters
from tombola.structure.granularities import COUNTED, Granularity, UnitMap, granularity, granularity_of, kept_share
from tombola.structure.graph import Probe, tensors_in
from tombola.structure.inner import Inner, inner_of, recount
from tombola.structure.inside import Inside
from tombola.structure.layers import BATCH_NORMS, NORMS, TRANSPOSED, is_depthwise, is_producer, shared
from tombola.structure.modes import Mode, in_mode
from tombola.structure.moves import MovesChannels
from tombola.structure.norms import norm_units
from tombola.structure.prunable_rule import Prunable, prunable
from tombola.structure.random_state import own_random_state, seed_torch
from tombola.structure.residual import Block, declare_blocks, residual_blocks
from tombola.structure.scaling import Site, fold, silenced_sites, sites_of
from tombola.structure.single import NM, QueryKey, Weights
from tombola.structure.trace import wiring_of
from tombola.structure.two_layer import Neurons, NeuronUnits, TwoLayers, two_layers
from tombola.structure.units import Slice, UnitGroup, Units, numbers_of
from tombola.structure.wiring import INPUTS, NOBODY, PINNED, Wiring

__all__ = [
    "BATCH_NORMS",
    "COUNTED",
    "INPUTS",
    "NM",
    "NOBODY",
    "NORMS",
    "PINNED",
    "TRANSPOSED",
    "Block",
    "Blocks",
    "ChannelUnits",
    "Channels",
    "Filters",
    "Granularity",
    "Inner",
    "Inside",
    "Mode",
    "MovesChannels",
    "NeuronUnits",
    "Neurons",
    "Probe",
    "Prunable",
    "QueryKey",
    "Site",
    "Slice",
    "TwoLayers",
    "UnitGroup",
    "UnitMap",
    "Units",
    "Weights",
    "Wiring",
    "declare_blocks",
    "fold",
    "granularity",
    "granularity_of",
    "in_mode",
    "inner_of",
    "is_depthwise",
    "is_producer",
    "kept_share",
    "norm_units",
    "numbers_of",
    "own_random_state",
    "prunable",
    "recount",
    "residual_blocks",
    "seed_torch",
    "shared",
    "silenced_sites",
    "sites_of",
    "tensors_in",
    "two_layers",
    "wiring_of",
]
