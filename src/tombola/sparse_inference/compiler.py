"""The kernels, compiled by the system's compiler on first use and kept for this processor."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

from tombola.errors import TombolaError
from tombola.files import content_of, write_atomically

FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-pthread")
SECONDS = 120
"""How long the compiler may take."""


class NoKernels(Exception):
    """The kernels cannot be compiled or loaded here; the message says why."""


@cache
def kernels() -> ctypes.CDLL:
    """The compiled kernels, from the cache if this processor's lie there.

    Raises:
        NoKernels: there is no compiler, it fails, or what it made cannot be loaded.
    """
    source = files("tombola.sparse_inference").joinpath("kernels.c").read_bytes()
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None or shutil.which(compiler) is None:
        raise NoKernels("there is no C compiler" if compiler is None else f"the compiler {compiler} is not there")
    name = hashlib.sha256(b"\0".join([source, *(flag.encode() for flag in (compiler, *FLAGS)), _processor()]))
    library = _place() / f"{name.hexdigest()[:20]}.so"
    if not _is_sound(library):
        _compile(compiler, source, library)
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise NoKernels(f"{library} cannot be loaded ({error})") from error
    loaded.run.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] + [ctypes.c_int32] * 3
    loaded.run.restype = None
    return loaded


@cache
def why_not_compiled() -> str:
    """Why the kernels do not run here; nothing if they do."""
    try:
        kernels()
    except NoKernels as error:
        return str(error)
    return ""


def _compile(compiler: str, source: bytes, library: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / library.name
        words = [compiler, *FLAGS, "-x", "c", "-", "-o", str(made)]
        try:
            done = subprocess.run(words, input=source, capture_output=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoKernels(f"the compiler {compiler} failed ({error})") from error
        if done.returncode or not made.exists():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise NoKernels(f"the compiler {compiler} failed ({said[0] if said else f'status {done.returncode}'})")
        content = made.read_bytes()
    write_atomically(library, content)
    write_atomically(library.with_suffix(".sha256"), hashlib.sha256(content).hexdigest())


def _is_sound(library: Path) -> bool:
    """Whether a library is as it was compiled."""
    try:
        return content_of(library.with_suffix(".sha256")).decode() == hashlib.sha256(content_of(library)).hexdigest()
    except (OSError, UnicodeDecodeError, TombolaError):
        return False


def _place() -> Path:
    """The folder of compiled kernels, which nobody else may write: what lies there is run."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tombola" / "kernels"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = root.stat()
    except OSError as error:
        raise NoKernels(f"{root} cannot be written ({error.strerror})") from error
    if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NoKernels(f"others may write {root}, from which code is run; take their right away with chmod go-w")
    return root


def _processor() -> bytes:
    """What the machine's code depends on: another processor gets other code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(
            sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
        ).encode()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {sys.platform}".encode()
