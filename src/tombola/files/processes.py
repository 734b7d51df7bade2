"""Processes: which is this one, and does another one still live?"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import psutil


def _host() -> str:
    """A name of this machine since it started, as processes see it: containers with one name are told apart."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts.append(boot.read_text().strip())
    namespace = Path("/proc/self/ns/pid")
    if namespace.is_symlink():
        parts.append(os.readlink(namespace))
    return hashlib.blake2b("/".join(parts).encode(), digest_size=4).hexdigest()


HOST = _host()


def started(process: int | None = None) -> float:
    """When a process began, this one if none is given, in seconds after the machine did: no clock that is set moves it.

    It tells apart processes that got the same number.
    """
    return psutil.Process(process).create_time() - psutil.boot_time()


def is_alive(process: int, since: float | None = None) -> bool:
    """Whether a process of this host lives: one of that number, that began then if that is known."""
    try:
        found = psutil.Process(process)
        return found.status() != psutil.STATUS_ZOMBIE and (since is None or abs(started(process) - since) < 1)
    except (psutil.Error, ValueError, OverflowError):  # the latter for numbers that no process can have
        return False
