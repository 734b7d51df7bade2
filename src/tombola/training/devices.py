"""Where networks are trained, and clocks that wait for it."""

from __future__ import annotations

import time

import torch

from tombola.errors import TombolaError


def chosen_device(device: torch.device | str = "auto") -> torch.device:
    """The device of a name, where `auto` is CUDA if there is one, else the CPU.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, …, or a torch.device.

    Raises:
        TombolaError: the machine has no such device.

    Examples:
        >>> chosen_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)  # torch.device takes any name; only an allocation shows that it exists.
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise TombolaError(f"there is no device '{device}' here; give the device cpu, or auto") from error
    if chosen.type == "meta":
        raise TombolaError("the device 'meta' computes nothing; give the device cpu, or auto")
    return chosen


def agreed_device(device: torch.device | str, of_run: torch.device | None, what: str = "run") -> torch.device:
    """The device to use: the one given, else the run's, else CUDA if there is one, else the CPU.

    Args:
        device: what was asked for; `auto` goes with every run.
        of_run: that of the run, if there is one.
        what: what has a device already, for the message.

    Raises:
        TombolaError: if both are given and differ, or the machine has no such device.

    Examples:
        >>> agreed_device("auto", torch.device("cpu")), agreed_device("cpu", None)
        (device(type='cpu'), device(type='cpu'))
    """
    if of_run is None:
        return chosen_device(device)
    if device == "auto":
        return of_run
    chosen = chosen_device(device)
    # "cuda" is whichever GPU is current, and goes with each.
    if chosen.type != of_run.type or (None not in (chosen.index, of_run.index) and chosen.index != of_run.index):
        raise TombolaError(f"device is '{device}', but the {what} is on '{of_run}'; leave device out, or make it agree")
    return of_run


def now(device: torch.device) -> float:
    """The clock's seconds, once a device has done all that it was asked for."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
