"""Saves a smaller network in a folder that the usual loader opens, where there is one."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from tombola.errors import TombolaError
from tombola.files import content_of
from tombola.nested import tensors_in
from tombola.scores import Forward, Inputs, forward, suited
from tombola.shrinking.fresh_opening import TOLERANCE, call_of, check_opens, gap_between
from tombola.shrinking.loading import around, cut_anew
from tombola.shrinking.network_description import PRETRAINED, WEIGHTS, Description, inside_of, nothing_cut
from tombola.shrinking.origin import Origin, origin_of, plain_config, transformers_network
from tombola.shrinking.plan import Plan
from tombola.shrinking.pretrained_form import pretrained_form, whole_config
from tombola.shrinking.rebuilding import rebuilds
from tombola.shrinking.small_folder import FILES, NETWORK, Saved, opener_of, put, written_by_us
from tombola.shrinking.small_network import ShrinkWarning
from tombola.shrinking.tokenizer_files import TOKENIZER, Processor, tokenizer_files
from tombola.structure import Probe
from tombola.tickets import copied, digest_of, modules_of, tensors_of


def save_small(
    folder: str | Path,
    small: nn.Module,
    plan: Plan,
    facts: Mapping[str, Any] | None = None,
    *,
    origin: Origin | None = None,
    example: Inputs | None = None,
    forward: Forward = forward,
    processor: Processor | None = None,
) -> Saved:
    """Write a smaller network into a folder.

    A network of transformers, alone or in a class of yours that adds no weights, is written as `save_pretrained` does
    where its configuration can say the shape. That is opened in a process of its own, and its outputs are compared,
    before anything is written. Else the folder holds `weights.safetensors`, and `network.json` with the units that were
    cut out and how the whole network is built: by name for networks of timm, torchvision and the zoo, by its own
    configuration for transformers.

    The files of the tokenizer or processor are written beside, so that `AutoTokenizer` and `AutoProcessor` open the
    folder too.

    Args:
        folder: where to write them.
        small: the network that `shrink` returned.
        plan: what was cut, as `preview` returns it.
        facts: any further JSON to keep in `network.json`.
        origin: how the whole network is built, where it cannot be seen from the network.
        example: a batch on which the outputs are compared; without one, transformers' own `dummy_inputs` are taken.
        forward: calls the network on the example.
        processor: the tokenizer or processor of transformers that goes with the network, or the folder of its files. If
            None, that of the folder, or of the repository in the Hub's cache, from which the network was loaded.

    Returns:
        What opens the folder.

    Raises:
        TombolaError: the origin builds another network, or the processor is none.
    """
    folder = Path(folder)
    beside = _beside(folder, processor, small)
    said = Description(plan, "", facts=dict(facts or {}), beside=tuple(beside))
    probe: Probe | None = None if example is None else lambda model: forward(model, suited(example, model))
    if origin is not None:
        if not rebuilds(origin, small, plan):
            raise _other(origin)
        return _save_by_units(folder, small, replace(said, origin=origin), beside, probe, asked=True)
    inside = transformers_network(small)
    if inside is None:
        said = replace(said, origin=origin_of(small, lambda own: rebuilds(own, small, plan)))
        return _save_by_units(folder, small, said, beside, probe)
    network: Any = modules_of(small)[inside]
    cuts = inside_of(plan, inside)
    origin = _of_transformers(network, cuts)
    if origin is None:
        why = f"it is not as its {type(network.config).__name__} says"
        return _save_by_units(folder, small, said, beside, probe, why)
    said = replace(said, cuts=cuts, origin=origin, inside=inside)
    try:
        files, zeros = _files_of_transformers(small, network, cuts, probe)
    except TombolaError as error:
        return _save_by_units(folder, small, said, beside, probe, str(error))
    said = replace(said, cuts=nothing_cut(), weights=digest_of(load_safetensors(files[PRETRAINED])), file=PRETRAINED)
    said = replace(said, origin=Origin("transformers", origin.name))  # config.json says the rest
    put(folder, {NETWORK: json.dumps(said.to_json()), **files, **beside})
    return Saved(folder, "transformers", origin.name, zeros=zeros, beside=said.beside)


def _beside(folder: Path, processor: Processor | None, network: nn.Module) -> dict[str, bytes]:
    """The files of the tokenizer or processor that are to be written; none where others lie, which stay."""
    try:
        files = tokenizer_files(processor, network)
    except TombolaError as error:
        if processor is not None:
            raise
        warnings.warn(f"the network's tokenizer is not put beside it: {error}", ShrinkWarning, stacklevel=3)
        return {}
    ours = written_by_us(folder)
    theirs = [name for name in TOKENIZER if (folder / name).exists() and name not in ours]
    differing = next((name for name in theirs if files.get(name) != content_of(folder / name)), None)
    if files and differing is not None:
        warnings.warn(
            f"{folder / differing} was not written by Tombola and stays, so that the network's own tokenizer is not "
            "put beside it",
            ShrinkWarning,
            stacklevel=3,
        )
        return {}
    return {name: content for name, content in files.items() if name not in theirs}


def _files_of_transformers(
    small: nn.Module, network: Any, cuts: Plan, probe: Probe | None
) -> tuple[dict[str, bytes], int]:
    """The files of the form that a configuration can say, opened in a process of its own, and the zeros in it.

    Raises:
        TombolaError: there is none, or it is opened otherwise; the text says why and is no whole sentence.
    """
    form = pretrained_form(network, cuts)
    saved: Any = form.network
    if probe is None:
        called, outputs = call_of(network, network, lambda model: model(**network.dummy_inputs))
    else:
        called, outputs = call_of(small, network, probe)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with _without_bars():
            saved.save_pretrained(place, max_shard_size="10TB")
        check_opens(place, type(network).__name__, called, outputs)
        return {own: content_of(place / own) for own in FILES if (place / own).is_file()}, form.zeros


@contextmanager
def _without_bars() -> Generator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _save_by_units(
    folder: Path,
    small: nn.Module,
    said: Description,
    beside: Mapping[str, bytes],
    probe: Probe | None,
    why: str = "",
    asked: bool = False,
) -> Saved:
    """Save the weights and the units that were cut out; with what builds the whole network, if that is found right.

    asked: the origin is what the user named.
    """
    network = modules_of(small)[said.inside] if said.inside else small
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors_of(network).items()}
    said = replace(said, weights=digest_of(tensors))
    if said.origin is not None and probe is not None:
        again = around(small, said, cut_anew(said.origin.build(), said, tensors, folder))
        if not _give_the_same(small, again, probe):
            if asked:
                raise _other(said.origin)
            said = replace(said, origin=None)
    put(folder, {NETWORK: json.dumps(said.to_json()), WEIGHTS: save_safetensors(tensors), **beside})
    return replace(opener_of(said, folder), why=why)


def _of_transformers(network: Any, cuts: Plan) -> Origin | None:
    """The origin of a network of transformers; None if it was changed by hand or a file may not say how."""
    try:
        origin = Origin("transformers", type(network).__name__, plain_config(whole_config(network, cuts)))
    except (TombolaError, TypeError, ValueError, AttributeError):
        return None
    return origin if rebuilds(origin, network, cuts) else None


def _other(origin: Origin) -> TombolaError:
    return TombolaError(
        f"{origin.library}'s '{origin.name}' with these arguments is another network than the one that was shrunk; "
        "name the one that it was"
    )


@torch.no_grad()
def _give_the_same(one: nn.Module, other: nn.Module, probe: Probe) -> bool:
    """Whether two networks give the same outputs in evaluation mode."""
    outputs = [tensors_in(probe(copied(network).cpu().eval())) for network in (one, other)]
    return len(outputs[0]) == len(outputs[1]) and all(
        gap_between(*pair) <= TOLERANCE for pair in zip(*outputs, strict=True)
    )
