"""Opens a folder by transformers in a process of its own, and compares what the network there gives.

`from_pretrained` draws weights anew where a file's shapes differ from the configuration's, and only says so in its log.
So what it says is read, and outputs are compared, in a process that has seen nothing of the network that was saved.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.nested import tensors_in

TOLERANCE = 1e-5
"""How far outputs may lie from those of the network that was saved, relative to the largest."""
SECONDS = 600
CALL, PLAIN, OUTPUTS, SAID = "call.safetensors", "call.json", "outputs.safetensors", "said.json"


@torch.no_grad()
def call_of(model: nn.Module, network: nn.Module, probe: Callable[[nn.Module], Any]) -> tuple[dict[str, Any], Any]:
    """What a network within another is called with, by name, and what it gives.

    Args:
        model: the outer network, which may be the network itself.
        network: the one within.
        probe: calls the outer one on an example.

    Raises:
        TombolaError: it is called with more than tensors, numbers and words by name.
    """
    seen: list[tuple[dict[str, Any], Any]] = []

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        names = [str(getattr(module, "main_input_name", "input_ids"))]
        seen.append((dict(zip(names, args, strict=False)) | kwargs, output))
        if len(args) > 1 or not all(isinstance(own, Tensor | int | float | str | None) for own in seen[-1][0].values()):
            seen.append(({}, None))

    modes = {module: module.training for module in model.modules()}
    handle = network.register_forward_hook(leave, with_kwargs=True)
    try:
        probe(model.eval())
    finally:
        handle.remove()
        for module, training in modes.items():
            module.training = training
    if len(seen) != 1:
        raise TombolaError("it could not be compared in a process of its own, since it is not called by name")
    return seen[0]


def check_opens(folder: Path, kind: str, called: dict[str, Any], outputs: Any) -> None:
    """Check that a class of transformers opens a folder in a fresh process, and that what comes gives these outputs.

    Args:
        folder: where `save_pretrained` wrote the network.
        kind: the name of its class in transformers.
        called: what the network was called with, by name.
        outputs: what it gave.

    Raises:
        TombolaError: the class does not open it, draws weights anew, or the outputs differ.
    """
    with tempfile.TemporaryDirectory() as place:
        tensors = {name: own.cpu().contiguous() for name, own in called.items() if isinstance(own, Tensor)}
        save_file(tensors, Path(place, CALL))
        Path(place, PLAIN).write_text(json.dumps({name: own for name, own in called.items() if name not in tensors}))
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, "-m", "tombola.shrinking.fresh_opening", str(folder), kind, place]
        try:
            done = subprocess.run(words, env=surroundings, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TombolaError(f"a process of its own could not open it ({error})") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it ended"])[-1]
            raise TombolaError(f"transformers does not open it: {last}")
        said = json.loads(Path(place, SAID).read_text())
        if any(said.values()):
            what, names = next((what, names) for what, names in said.items() if names)
            raise TombolaError(f"transformers opens it with {what.replace('_', ' ')}, as '{names[0]}'")
        found = load_file(Path(place, OUTPUTS))
    expected = [own.detach().cpu() for own in tensors_in(outputs)]
    gaps = [gap_between(own, found.get(str(number))) for number, own in enumerate(expected)]
    if len(found) != len(expected) or not max(gaps, default=0.0) <= TOLERANCE:
        raise TombolaError(
            f"what transformers opens gives other outputs, by {max(gaps, default=1.0):.0e} of their size"
        )


def gap_between(expected: Tensor, found: Tensor | None) -> float:
    """How far a tensor lies from another, relative to the largest number; infinite where there is none alike.

    Args:
        expected: what it should be.
        found: what it is.
    """
    if found is None or found.shape != expected.shape:
        return float("inf")
    scale = float(expected.double().abs().max()) if expected.numel() else 0.0
    return float((found.double() - expected.double()).abs().max()) / max(scale, 1e-30) if expected.numel() else 0.0


@torch.no_grad()
def _open(folder: str, kind: str, place: str) -> None:
    """What the fresh process does."""
    import transformers

    network, told = getattr(transformers, kind).from_pretrained(
        folder, output_loading_info=True, local_files_only=True, use_safetensors=True
    )
    Path(place, SAID).write_text(json.dumps({what: [str(own) for own in names] for what, names in told.items()}))
    called = load_file(Path(place, CALL)) | json.loads(Path(place, PLAIN).read_text())
    outputs = tensors_in(network.eval()(**called))
    save_file({str(number): own.contiguous().clone() for number, own in enumerate(outputs)}, Path(place, OUTPUTS))


if __name__ == "__main__":
    _open(*sys.argv[1:])
