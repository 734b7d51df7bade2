"""A callback for Lightning (`import lightning`); for its other package see `tombola.integrations.pytorch_lightning`."""

from __future__ import annotations

from tombola.integrations.lightning_hooks import TicketHooks

try:
    from lightning.pytorch import Callback  # ty: ignore[import-not-found]
except ImportError as error:
    raise ImportError("lightning is not installed; pip install 'tombola[lightning]'") from error


class TicketCallback(TicketHooks, Callback):
    __doc__ = TicketHooks.__doc__
