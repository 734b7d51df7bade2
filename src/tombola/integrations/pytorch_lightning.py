"""A callback for Lightning under its earlier name (`import pytorch_lightning`), whose classes are others."""

from __future__ import annotations

from tombola.integrations.lightning_hooks import TicketHooks

try:
    from pytorch_lightning import Callback  # ty: ignore[import-not-found]
except ImportError as error:
    raise ImportError("pytorch_lightning is not installed; pip install pytorch-lightning") from error


class TicketCallback(TicketHooks, Callback):
    __doc__ = TicketHooks.__doc__
