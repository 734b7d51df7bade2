"""A callback for Lightning (`import lightning`); `tombola.integrations.pytorch_lightning` has it for the other package."""

from __future__ import annotations

from tombola.integrations.lightning_hooks import TicketHooks

try:
    from lightning.pytorch import Callback  # ty: ignore[unresolved-import]
except ImportError as error:
    raise ImportError("lightning is not installed; pip install 'tombola[lightning]'") from error


class TicketCallback(TicketHooks, Callback):
    __doc__ = TicketHooks.__doc__
