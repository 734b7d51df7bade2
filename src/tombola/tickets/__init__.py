"""Masks, the selection that makes them, tickets and their file, and attaching a mask to a model."""

from tombola.tickets.attachment import AttachWarning, attach
from tombola.tickets.handle import Handle
from tombola.tickets.layer_budgets import Scope, as_density
from tombola.tickets.mask import Mask
from tombola.tickets.optimizers import Optimizers, after_each_step, steppers_of
from tombola.tickets.others_masks import ZerosWarning, mask_of_pruned, mask_of_tensors, mask_of_zeros, prune_by
from tombola.tickets.pattern_selection import select_pattern
from tombola.tickets.recomputation import HeldTensors, Recomputation, called_with, recomputable
from tombola.tickets.selection import ScoresNaN, TieWarning, kth_largest, select
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
from tombola.tickets.tensors import check_fits, device_of, digest_of, put_values, tensors_of
from tombola.tickets.ticket import Dead, Provenance, Ticket, zeros_of
from tombola.tickets.wrappers import bare, eager, unwrapped

__all__ = [
    "AttachWarning",
    "Dead",
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
    "Ticket",
    "TieWarning",
    "Values",
    "ZerosWarning",
    "after_each_step",
    "as_density",
    "attach",
    "bare",
    "buffers_of",
    "called_with",
    "check_fits",
    "check_network",
    "device_of",
    "digest_of",
    "eager",
    "joined",
    "kth_largest",
    "mask_of_pruned",
    "mask_of_tensors",
    "mask_of_zeros",
    "modules_of",
    "names_of",
    "parameters_of",
    "paths_of",
    "places_of",
    "prune_by",
    "put_values",
    "recomputable",
    "select",
    "select_pattern",
    "steppers_of",
    "tensors_of",
    "unwrapped",
    "zeros_of",
]
