"""Units: what in a network can be pruned, and what lives and dies together."""

from tombola.structure.block_granularity import Blocks
from tombola.structure.channel_granularity import ChannelUnits, SeparateChannels
from tombola.structure.channel_map import ChannelMap
from tombola.structure.coupled_channels import Channels, CoupledNorms, CoupledUnits, FloorWarning
from tombola.structure.declared_parts import Part, parts_of, recount
from tombola.structure.filter_granularity import Filters
from tombola.structure.granularity_protocol import (
    COUNTED,
    Granularity,
    UnitMap,
    check_granularity,
    granularity,
    granularity_of,
    kept_share,
)
from tombola.structure.graph import Probe
from tombola.structure.layers import BATCH_NORMS, NORMS, TRANSPOSED, is_depthwise, is_producer, scale_axis, shared
from tombola.structure.meta_device import meta_twin
from tombola.structure.modes import Mode, in_mode
from tombola.structure.norm_channels import norm_units
from tombola.structure.norms_behind import norms_behind, scale_undone
from tombola.structure.outputs import outputs_in
from tombola.structure.part_granularity import PartUnits
from tombola.structure.prunable_rule import Prunable, prunable
from tombola.structure.random_state import own_random_state, seed_torch
from tombola.structure.residual_networks import Block, declare_blocks, residual_blocks
from tombola.structure.scaling import Site, fold, silenced_sites, sites_of
from tombola.structure.trace import wiring_of
from tombola.structure.two_layer_networks import Neurons, NeuronUnits, TwoLayerNetwork, two_layers
from tombola.structure.units import Slice, UnitGroup, Units, numbers_of
from tombola.structure.weight_granularity import NM, QueryKey, Weights
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
    "ChannelMap",
    "ChannelUnits",
    "Channels",
    "CoupledNorms",
    "CoupledUnits",
    "Filters",
    "FloorWarning",
    "Granularity",
    "Mode",
    "NeuronUnits",
    "Neurons",
    "Part",
    "PartUnits",
    "Probe",
    "Prunable",
    "QueryKey",
    "SeparateChannels",
    "Site",
    "Slice",
    "TwoLayerNetwork",
    "UnitGroup",
    "UnitMap",
    "Units",
    "Weights",
    "Wiring",
    "check_granularity",
    "declare_blocks",
    "fold",
    "granularity",
    "granularity_of",
    "in_mode",
    "is_depthwise",
    "is_producer",
    "kept_share",
    "meta_twin",
    "norm_units",
    "norms_behind",
    "numbers_of",
    "outputs_in",
    "own_random_state",
    "parts_of",
    "prunable",
    "recount",
    "residual_blocks",
    "scale_axis",
    "scale_undone",
    "seed_torch",
    "shared",
    "silenced_sites",
    "sites_of",
    "two_layers",
    "wiring_of",
]
