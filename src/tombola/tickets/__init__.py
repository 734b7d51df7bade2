"""Masks, the selection that makes them, tickets and their file, and attaching a mask to a model."""

from tombola.tickets.attachment import AttachWarning, Handle, attach
from tombola.tickets.files import unwritable, write_atomically
from tombola.tickets.mask import Mask
from tombola.tickets.pattern import select_pattern
from tombola.tickets.selection import ScoresNaN, TieWarning, kth_largest, select
from tombola.tickets.shares import Scope
from tombola.tickets.start import InitialWeights, Seed, Values
from tombola.tickets.tensors import check_fits, device_of, digest_of, modules_of, plain_name, put_values, tensors_of
from tombola.tickets.ticket import Provenance, Ticket

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
    "attach",
    "check_fits",
    "device_of",
    "digest_of",
    "kth_largest",
    "modules_of",
    "plain_name",
    "put_values",
    "select",
    "select_pattern",
    "tensors_of",
    "unwritable",
    "write_atomically",
]
