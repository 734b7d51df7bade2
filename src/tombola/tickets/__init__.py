"""Masks, the selection that makes them, tickets and their file, and attaching a mask to a model."""

from tombola.tickets.attachment import AttachWarning, attach
from tombola.tickets.copies import copied
from tombola.tickets.handle import Handle
from tombola.tickets.layer_budgets import (
    ErdosRenyi,
    Scope,
    SmartRatio,
    as_density,
    explicit_units,
    falls_short,
    quotas,
    shares_weights,
)
from tombola.tickets.mask import Mask
from tombola.tickets.optimizers import Optimizers, after_each_step, steppers_of
from tombola.tickets.others_masks import ZerosWarning, mask_of_pruned, mask_of_tensors, mask_of_zeros, prune_by
from tombola.tickets.pattern_selection import select_pattern
from tombola.tickets.recomputation import HeldTensors, Recomputation, called_with, gradients_taken, recomputable
from tombola.tickets.selection import ScoresNaN, TieWarning, kth_largest, select
from tombola.tickets.sharding import (
    batches_of_all,
    check_whole,
    is_spread,
    own_network,
    own_part,
    part_like,
    same_on_all,
    whole,
)
from tombola.tickets.start import InitialWeights, Seed, Values
from tombola.tickets.tensor_names import (
    buffers_of,
    check_network,
    joined,
    modules_of,
    names_of,
    parameters_of,
    paths_of,
    places_of,
)
from tombola.tickets.tensors import check_fits, check_values, device_of, digest_of, put_values, tensors_of, zero_dead
from tombola.tickets.ticket import Dead, Provenance, Ticket, zeros_of
from tombola.tickets.ticket_file import parts_of, write_file
from tombola.tickets.wrappers import bare, eager, unwrapped

__all__ = [
    "AttachWarning",
    "Dead",
    "ErdosRenyi",
    "Handle",
    "HeldTensors",
    "InitialWeights",
    "Mask",
    "Optimizers",
    "Provenance",
    "Recomputation",
    "Scope",
    "ScoresNaN",
    "Seed",
    "SmartRatio",
    "Ticket",
    "TieWarning",
    "Values",
    "ZerosWarning",
    "after_each_step",
    "as_density",
    "attach",
    "bare",
    "batches_of_all",
    "buffers_of",
    "called_with",
    "check_fits",
    "check_network",
    "check_values",
    "check_whole",
    "copied",
    "device_of",
    "digest_of",
    "eager",
    "explicit_units",
    "falls_short",
    "gradients_taken",
    "is_spread",
    "joined",
    "kth_largest",
    "mask_of_pruned",
    "mask_of_tensors",
    "mask_of_zeros",
    "modules_of",
    "names_of",
    "own_network",
    "own_part",
    "parameters_of",
    "part_like",
    "parts_of",
    "paths_of",
    "places_of",
    "prune_by",
    "put_values",
    "quotas",
    "recomputable",
    "same_on_all",
    "select",
    "select_pattern",
    "shares_weights",
    "steppers_of",
    "tensors_of",
    "unwrapped",
    "whole",
    "write_file",
    "zero_dead",
    "zeros_of",
]
