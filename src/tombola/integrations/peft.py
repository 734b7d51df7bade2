"""Sparse fine-tuning in PEFT: a ticket's mask as a SHiRA adapter, and back.

SHiRA (Bhardwaj et al., NeurIPS 2024) trains the entries of linear layers that a mask lists, and leaves all else as it
was pre-trained. `tombola.attach(mask, model, optimizer, dead="frozen")` trains the same network without PEFT. A SHiRA
adapter has one rank r for all its layers, and r · (inputs + outputs) entries in each: `shira_mask` chooses
just as many.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets import Mask, Ticket, check_fits, joined, modules_of, parameters_of, select, tensors_of


def shira_mask(scores: Mapping[str, Tensor], model: nn.Module, r: int) -> Mask:
    """Choose what a SHiRA adapter of rank r trains: the highest-scored weights of each linear layer.

    Args:
        scores: a tensor for each parameter, larger = train, as the scores of `tombola.scores` give them.
        model: the network.
        r: the rank: as many weights train as in a LoRA adapter of this rank. Linear layers that have fewer stay whole.

    Raises:
        TombolaError: if no linear layer that is scored has as many weights.

    Examples:
        >>> from tombola.scores import magnitude
        >>> model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2))
        >>> shira_mask(magnitude(model), model, r=3).counts
        {'0.weight': 150}
    """
    linear = {
        joined(name, "weight"): layer for name, layer in modules_of(model).items() if isinstance(layer, nn.Linear)
    }
    sizes = {name: _size(layer, r) for name, layer in linear.items() if name in scores}
    fitting = {name: size for name, size in sizes.items() if 0 < size <= scores[name].numel()}
    if not fitting:
        raise TombolaError(f"no linear layer that is scored has r · (inputs + outputs) weights for r = {r}; give less")
    scope = {name: size / scores[name].numel() for name, size in fitting.items()}
    total = sum(scores[name].numel() for name in fitting)
    return select({name: scores[name] for name in fitting}, sum(fitting.values()) / total, scope=scope)


def shira_config(what: Mask | Ticket, model: nn.Module, **settings: Any) -> Any:
    """The configuration with which `peft.get_peft_model` trains what a mask keeps, and nothing else.

    Args:
        what: the mask, or a ticket whose mask counts; layers of which it keeps nothing are left as they are.
        model: the network that is then given to `get_peft_model`, at its pre-trained weights.
        settings: further fields of PEFT's `ShiraConfig`, such as `modules_to_save` or `task_type`.

    Raises:
        TombolaError: if PEFT is not installed, or the mask keeps what no SHiRA adapter can: weights of another kind of
            layer, or numbers that are not r · (inputs + outputs) with one r.
    """
    mask = what.mask if isinstance(what, Ticket) else what
    check_fits(mask, parameters_of(model))
    kept = {name.rpartition(".")[0]: name for name, count in mask.counts.items() if count}
    layers = {module: modules_of(model)[module] for module in kept}
    for module, name in kept.items():
        if not isinstance(layers[module], nn.Linear) or name != joined(module, "weight"):
            raise TombolaError(
                f"'{name}' of a {type(layers[module]).__name__} cannot be in a SHiRA adapter, which trains weights of "
                "linear layers alone; make the ticket with prunable=Prunable(types=(nn.Linear,))"
            )
    ranks = {name: mask.kept(name) / _size(layers[module]) for module, name in kept.items()}
    first = next(iter(ranks), None)
    if first is None:
        raise TombolaError("the mask keeps nothing that an adapter could train")
    for name, rank in ranks.items():
        if rank != ranks[first] or rank % 1:
            raise TombolaError(
                f"a SHiRA adapter trains r · (inputs + outputs) weights of each layer, with one r, and the mask keeps "
                f"{mask.kept(name):,} of '{name}'; choose them with shira_mask"
            )
    masks = {layers[module]: mask[name] for module, name in kept.items()}

    def entries(layer: nn.Module, r: int, **_: Any) -> Tensor:
        return masks[layer].to(layer.weight.device)  # ty: ignore[no-matching-overload]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Argument self.mask_type")
        config = _peft().ShiraConfig(
            r=int(ranks[first]),
            mask_type="tombola",  # PEFT then draws no random mask of its own where this one is missing
            target_modules="|".join(re.escape(module) for module in layers),
            **settings,
        )
    config.mask_fn = entries
    return config


def as_adapter(what: Mask | Ticket, base: nn.Module, trained: nn.Module, **settings: Any) -> Any:
    """A PEFT model of a network that was fine-tuned with `dead="frozen"`, to be saved with `save_pretrained`.

    Args:
        what: the mask or the ticket.
        base: the pre-trained network, which PEFT takes over.
        trained: the fine-tuned network; it stays as it is.
        settings: as for `shira_config`.

    Raises:
        TombolaError: as `shira_config`; and if the two networks differ in more than what the mask keeps.
    """
    mask = what.mask if isinstance(what, Ticket) else what
    before = {name: tensor.clone() for name, tensor in tensors_of(base).items()}
    after = tensors_of(trained)
    for name, value in before.items():
        kept = mask[name].to(value.device) if name in mask else torch.zeros_like(value, dtype=torch.bool)
        if name not in after or not torch.equal(value[~kept], after[name].to(value.device)[~kept]):
            raise TombolaError(
                f"'{name}' differs from the pre-trained network's beyond what the mask keeps; fine-tune with "
                'dead="frozen", from these weights'
            )
    config = shira_config(what, base, **settings)
    model = _peft().get_peft_model(base, config)
    for name, layer, adapter in _layers(model):
        row, column = layer.shira_indices[adapter].long()
        difference = after[name].to(row.device) - before[name]
        layer.shira_weight[adapter].data.copy_(difference[row, column])
    return model


def mask_of_adapter(model: nn.Module, adapter: str = "default") -> Mask:
    """The mask of what a SHiRA adapter trains, under the names of the network without PEFT.

    Args:
        model: what PEFT made of the network.
        adapter: which of its adapters.

    Raises:
        TombolaError: if the model has no such SHiRA adapter.
    """
    masks: dict[str, Tensor] = {}
    for name, layer, called in _layers(model):
        if called == adapter:
            masks[name] = _kept(name, layer.shira_indices[adapter], (layer.out_features, layer.in_features))
    if not masks:
        raise TombolaError(
            f"the model has no SHiRA adapter '{adapter}'; give what get_peft_model or from_pretrained gave"
        )
    return Mask.of(masks)


def _kept(name: str, indices: Tensor, shape: tuple[int, int]) -> Tensor:
    """The mask of a weight of this shape; TombolaError where an adapter, which may be anybody's, means other places."""
    if indices.ndim != 2 or len(indices) != 2:
        raise TombolaError(f"the adapter of '{name}' does not say the rows and columns of what it trains")
    row, column = places = indices.long().cpu()
    if indices.numel() and (bool((places < 0).any()) or int(row.max()) >= shape[0] or int(column.max()) >= shape[1]):
        raise TombolaError(f"the adapter of '{name}' trains places outside its {shape[0]} × {shape[1]} weights")
    kept = torch.zeros(shape, dtype=torch.bool)
    kept[row, column] = True
    return kept


def _layers(model: nn.Module) -> list[tuple[str, Any, str]]:
    """Each layer that SHiRA adapts, after the name of its weight, with the name of each of its adapters."""
    root = "base_model.model." if hasattr(model, "peft_config") and hasattr(model, "base_model") else ""
    return [
        (joined(name.removeprefix(root), "weight"), layer, adapter)
        for name, layer in modules_of(model).items()
        if isinstance(indices := getattr(layer, "shira_indices", None), Mapping)
        for adapter in indices
    ]


def _size(layer: nn.Module, r: int = 1) -> int:
    assert isinstance(layer, nn.Linear)
    return r * (layer.in_features + layer.out_features)


def _peft() -> Any:
    try:
        return import_module("peft")
    except ImportError as error:
        raise TombolaError("this needs PEFT; install it with pip install 'tombola[peft]'") from error
