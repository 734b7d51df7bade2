"""Masks, the selection that makes them, tickets and their file, and attaching a mask to a model."""

from tombola.tickets.attachment import AttachWarning, Handle, attach
from tombola.tickets.layer_budgets import Scope, as_density
from tombola.tickets.mask import Mask
from tombola.tickets.pattern_selection import select_pattern
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
from tombola.tickets.tensors import check_fits, check_values, device_of, digest_of, put_values, tensors_of
from tombola.tickets.ticket import Provenance, Ticket
from tombola.tickets.wrappers import bare, eager, unwrapped

__all__ = [
    "AttachWarning",
    "Handle",
    "InitialWeights",
    "Mask",
    "Provenance",
    "Scope",
    "ScoresNaN",
    "Seed",
    "Ticket",
    "TieWarning",
    "Values",
    "as_density",
    "attach",
    "bare",
    "batches_of_all",
    "buffers_of",
    "check_fits",
    "check_network",
    "check_values",
    "check_whole",
    "device_of",
    "digest_of",
    "eager",
    "is_spread",
    "joined",
    "kth_largest",
    "modules_of",
    "names_of",
    "own_network",
    "own_part",
    "parameters_of",
    "part_like",
    "paths_of",
    "places_of",
    "put_values",
    "same_on_all",
    "select",
    "select_pattern",
    "tensors_of",
    "unwrapped",
    "whole",
]
