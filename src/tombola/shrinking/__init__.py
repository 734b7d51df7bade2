"""Smaller networks that compute what a masked one does, and sparse layers where measurements show that they pay."""

from tombola.shrinking.comparison import check_equal
from tombola.shrinking.cutting import axes_of, cut, within
from tombola.shrinking.export import to_onnx
from tombola.shrinking.flops import flop_counter, ready_to_count
from tombola.shrinking.int8 import Int8, to_int8
from tombola.shrinking.loading import load_small
from tombola.shrinking.network_description import PRETRAINED, WEIGHTS, read_description
from tombola.shrinking.onnx_network import OnnxNetwork
from tombola.shrinking.origin import Origin
from tombola.shrinking.plan import Plan
from tombola.shrinking.recalibration import AccuracyWarning, recalibrate
from tombola.shrinking.saving import save_small
from tombola.shrinking.small_folder import (
    FILES,
    NETWORK,
    Saved,
    add_facts,
    check_files,
    check_place,
    files_of,
    opener_of,
    put,
    written_by_us,
)
from tombola.shrinking.small_network import ShrinkWarning, preview, shrink, smaller, warn_if_whole
from tombola.shrinking.small_sizes import Size, SmallSizes
from tombola.shrinking.targets import (
    Reached,
    Target,
    Targets,
    TargetWarning,
    check_can_be_cut,
    check_takes_target,
    reach,
    target_of,
)
from tombola.shrinking.tokenizer_files import TOKENIZER, checked_file
from tombola.shrinking.unit_selection import select
from tombola.sparse_inference import (
    LayerTiming,
    SparseCopy,
    SparseProgram,
    SparsityWarning,
    interleaved,
    load_sparse,
    save_sparse,
    sparse,
    sparse_copy,
)

__all__ = [
    "FILES",
    "NETWORK",
    "PRETRAINED",
    "TOKENIZER",
    "WEIGHTS",
    "AccuracyWarning",
    "Int8",
    "LayerTiming",
    "OnnxNetwork",
    "Origin",
    "Plan",
    "Reached",
    "Saved",
    "ShrinkWarning",
    "Size",
    "SmallSizes",
    "SparseCopy",
    "SparseProgram",
    "SparsityWarning",
    "Target",
    "TargetWarning",
    "Targets",
    "add_facts",
    "axes_of",
    "check_can_be_cut",
    "check_equal",
    "check_files",
    "check_place",
    "check_takes_target",
    "checked_file",
    "cut",
    "files_of",
    "flop_counter",
    "interleaved",
    "load_small",
    "load_sparse",
    "opener_of",
    "preview",
    "put",
    "reach",
    "read_description",
    "ready_to_count",
    "recalibrate",
    "save_small",
    "save_sparse",
    "select",
    "shrink",
    "smaller",
    "sparse",
    "sparse_copy",
    "target_of",
    "to_int8",
    "to_onnx",
    "warn_if_whole",
    "within",
    "written_by_us",
]
