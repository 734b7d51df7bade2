"""Tombola finds winning lottery tickets in PyTorch networks and proves that they win.

What can be imported from here stands in `__init__.pyi`, and is loaded when it is used: listing methods needs no torch.
"""

from importlib.metadata import version as _version

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
__version__ = _version("tombola")
