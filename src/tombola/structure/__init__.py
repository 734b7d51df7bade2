"""Units: what in a network can be pruned, and what lives and dies together."""

from tombola.structure.block_granularity import Blocks, BlockUnits
from tombola.structure.channel_cuts import Kept, channel_axes, cut_channels, kept_channels, replace_module
from tombola.structure.channel_granularity import ChannelUnits, SeparateChannels
from tombola.structure.channel_map import ChannelMap, moves_channels
from tombola.structure.channels_and_heads import HEAD, ChannelAndHeadUnits, ChannelsAndHeads
from tombola.structure.coupled_channels import Channels, CoupledNorms, CoupledUnits, FloorWarning
from tombola.structure.declared_parts import Part, parts_of
from tombola.structure.double_precision import AllInDouble
from tombola.structure.filter_granularity import Filters
from tombola.structure.granularity_protocol import (
    COUNTED,
    OF_PARTS,
    Granularity,
    UnitMap,
    check_granularity,
    check_is_granularity,
    check_plain,
    granularity,
    granularity_of,
    kept_share,
    sizes_of,
    with_widths,
)
from tombola.structure.graph import Probe
from tombola.structure.layers import (
    BATCH_NORMS,
    NORMS,
    is_depthwise,
    is_linear,
    is_producer,
    is_transposed,
    is_transposed_linear,
    scale_axis,
    shared,
)
from tombola.structure.meta_device import meta_twin
from tombola.structure.modes import Mode, in_mode
from tombola.structure.narrowing import narrow_parts, narrowed
from tombola.structure.norm_channels import norm_units
from tombola.structure.output_head import head_parameters
from tombola.structure.outputs import outputs_in
from tombola.structure.part_granularity import PartUnits
from tombola.structure.part_search import FoundParts, found_parts, is_count
from tombola.structure.partial_norm import PartialNorm, norm_form
from tombola.structure.passing import Passing, PassThrough, pass_through, passings, renumber_caches
from tombola.structure.placed_parts import Axes, Count, Place, PlacedPart, Removed, axes_of_parts
from tombola.structure.prunable_rule import Prunable, prunable
from tombola.structure.random_state import own_random_state, seed_torch
from tombola.structure.recurrent_layers import hidden_axes, is_recurrent, mend_sizes, resize_recurrent
from tombola.structure.residual_networks import Block, declare_blocks, residual_blocks
from tombola.structure.scale_free_norms import norms_behind, scale_undone
from tombola.structure.scaling import Site, fold, silenced_sites, sites_of
from tombola.structure.symmetries import Orders, Seat, Strand, Symmetries, Symmetry
from tombola.structure.symmetry_search import symmetries_of
from tombola.structure.trace import earlier_wiring, wiring_of
from tombola.structure.transformer_parts import PartKind, TransformerParts, TransformerUnits
from tombola.structure.two_layer_networks import Neurons, NeuronUnits, TwoLayerNetwork, two_layers
from tombola.structure.units import Slice, UnitGroup, Units, numbers_of
from tombola.structure.weight_granularity import NM, QueryKey, Weights
from tombola.structure.widths import check_names
from tombola.structure.wiring import EMPTY, INPUTS, NOBODY, PINNED, Wiring

__all__ = [
    "BATCH_NORMS",
    "COUNTED",
    "EMPTY",
    "HEAD",
    "INPUTS",
    "NM",
    "NOBODY",
    "NORMS",
    "OF_PARTS",
    "PINNED",
    "AllInDouble",
    "Axes",
    "Block",
    "BlockUnits",
    "Blocks",
    "ChannelAndHeadUnits",
    "ChannelMap",
    "ChannelUnits",
    "Channels",
    "ChannelsAndHeads",
    "Count",
    "CoupledNorms",
    "CoupledUnits",
    "Filters",
    "FloorWarning",
    "FoundParts",
    "Granularity",
    "Kept",
    "Mode",
    "NeuronUnits",
    "Neurons",
    "Orders",
    "Part",
    "PartKind",
    "PartUnits",
    "PartialNorm",
    "PassThrough",
    "Passing",
    "Place",
    "PlacedPart",
    "Probe",
    "Prunable",
    "QueryKey",
    "Removed",
    "Seat",
    "SeparateChannels",
    "Site",
    "Slice",
    "Strand",
    "Symmetries",
    "Symmetry",
    "TransformerParts",
    "TransformerUnits",
    "TwoLayerNetwork",
    "UnitGroup",
    "UnitMap",
    "Units",
    "Weights",
    "Wiring",
    "axes_of_parts",
    "channel_axes",
    "check_granularity",
    "check_is_granularity",
    "check_names",
    "check_plain",
    "cut_channels",
    "declare_blocks",
    "earlier_wiring",
    "fold",
    "found_parts",
    "granularity",
    "granularity_of",
    "head_parameters",
    "hidden_axes",
    "in_mode",
    "is_count",
    "is_depthwise",
    "is_linear",
    "is_producer",
    "is_recurrent",
    "is_transposed",
    "is_transposed_linear",
    "kept_channels",
    "kept_share",
    "mend_sizes",
    "meta_twin",
    "moves_channels",
    "narrow_parts",
    "narrowed",
    "norm_form",
    "norm_units",
    "norms_behind",
    "numbers_of",
    "outputs_in",
    "own_random_state",
    "parts_of",
    "pass_through",
    "passings",
    "prunable",
    "renumber_caches",
    "replace_module",
    "residual_blocks",
    "resize_recurrent",
    "scale_axis",
    "scale_undone",
    "seed_torch",
    "shared",
    "silenced_sites",
    "sites_of",
    "sizes_of",
    "symmetries_of",
    "two_layers",
    "wiring_of",
    "with_widths",
]
