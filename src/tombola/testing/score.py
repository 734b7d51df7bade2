"""A check that a score keeps the laws of all scores."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tombola.scores import Batches, Score, Scores, View, check_takes, forward
from tombola.structure import Prunable, prunable
from tombola.testing.laws import deterministic, law
from tombola.testing.toys import recomputed, toy_task
from tombola.tickets import Mask, select
from tombola.training import chosen_device


def check_score(score: Score, *, device: torch.device | str = "cpu") -> None:
    """Check that a score keeps every law of scores on a small network.

    - complete: each prunable parameter has a finite floating tensor of its shape; a score of units gives one number a
      filter or neuron.
    - pure: parameters, buffers, gradients, modes and random state are as before the call.
    - repeatable: the same call gives the same scores.
    - masked: with a mask, a network is scored as if its dead weights were zero. A score of second order may say more:
      that they do not train. It then scores the network as one that multiplies its weights by the mask.
    - recomputation: a network whose forward pass is computed again in backward gets the same scores.
    - chosen: only what `prunable` chooses is scored.
    - layout: a channels_last model gets the same scores.
    - precision: a bfloat16 model is scored in float32 or wider, as the same weights in float32.
    - device: scores lie where the weights are, and are those of the same network on the CPU.

    Args:
        score: the score.
        device: where the network is, as `cuda`; batches stay on the CPU, as a search gives them.

    Raises:
        LawBroken: for the first law that the score breaks.
        TombolaError: the score does not accept what it is called with, or there is no such device.

    Examples:
        >>> from tombola.scores import Magnitude
        >>> check_score(Magnitude())
    """
    check_takes(score, View(mask=None, regrow=False, prunable=Prunable(), forward=forward, seed=0))
    place = chosen_device(device)
    with deterministic(place):
        _check_laws(score, place)


def _check_laws(score: Score, device: torch.device) -> None:
    model = _trained_a_little(device)
    scores = _scores(score, model)
    for name, weight in prunable(model).items():
        values = scores.get(name)
        law("complete", values is not None, f"'{name}' has no score")
        assert values is not None
        shape = weight.shape[:1] if getattr(score, "kind", "weight") == "unit" else weight.shape
        law("complete", values.shape == shape, f"'{name}' is {tuple(weight.shape)}, its score {tuple(values.shape)}")
        law("complete", values.is_floating_point(), f"the score of '{name}' is {values.dtype}")
        law("complete", bool(values.isfinite().all()), f"the score of '{name}' is not finite")
        law("device", values.device == weight.device, f"the score of '{name}' is on '{values.device}'")
    law(
        "complete",
        scores.keys() == prunable(model).keys(),
        f"there are scores of {sorted(scores.keys() - prunable(model).keys())}",
    )
    _check_pure(score, device)
    law("repeatable", _equal(scores, _scores(score, model)), "a second call gave other scores")
    _check_masked(score, model)
    chosen = score(model, _batches(), toy_task().loss, prunable=Prunable(exclude=("0.*",)))
    law("chosen", "0.weight" not in chosen, "`prunable` left '0.weight' out but it was scored")
    channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    law("layout", _close(scores, _scores(score, channels_last), 1e-3), "a channels_last model gets other scores")
    half = _scores(score, copy.deepcopy(model).bfloat16())
    law(
        "precision",
        all(s.dtype in (torch.float32, torch.float64) for s in half.values()),
        "bf16 weights get bf16 scores",
    )
    rounded = _scores(score, copy.deepcopy(model).bfloat16().float())
    law("precision", _close(rounded, half, 1e-2), "a bf16 model gets other scores than the same weights in float32")
    if device.type != "cpu":
        _check_same_as_on_cpu(score, model)


def _check_same_as_on_cpu(score: Score, model: nn.Module) -> None:
    without_dropout = copy.deepcopy(model)  # which devices draw differently
    for module in without_dropout.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    here = {name: values.cpu() for name, values in _scores(score, without_dropout).items()}
    on_cpu = _scores(score, without_dropout.cpu())
    law("device", _close(on_cpu, here, 1e-2), "the scores are not those of the same network on the CPU")


def _trained_a_little(device: torch.device) -> nn.Module:
    """A network with gradients, and with buffers and weights that are not those of the initialisation."""
    task = toy_task()
    model = task.build(0).to(device)
    for inputs, targets in task.batches("train", 0, 0):
        task.loss(model(inputs.to(device)), targets.to(device)).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 0.01 * parameter.grad
    return model


def _batches() -> Batches:
    """As a search gives them: they can be iterated, and not indexed."""
    return toy_task().batches("train", 0, 0)


def _scores(score: Score, model: nn.Module) -> Scores:
    return score(model, _batches(), toy_task().loss, seed=3)


def _check_pure(score: Score, device: torch.device) -> None:
    model = _trained_a_little(device)
    model[1].eval()  # one module's mode differs, so that model.train() for all shows  # ty: ignore[not-subscriptable]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    modes = [module.training for module in model.modules()]
    random_states = _random_states(device)
    _scores(score, model)
    law("pure", _equal(state, model.state_dict()), "parameters or buffers were changed")
    after = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    law("pure", _equal(gradients, after), "gradients were changed")
    law("pure", all(p.requires_grad for p in model.parameters()), "requires_grad was changed")
    law("pure", modes == [module.training for module in model.modules()], "train or eval mode was changed")
    law(
        "pure",
        all(map(torch.equal, random_states, _random_states(device))),
        "the global random state was changed; draw with generator=torch.Generator().manual_seed(seed), whose seed is "
        "view.get('seed', 0)",
    )


def _random_states(device: torch.device) -> list[Tensor]:
    """Those of the CPU, and of the device if it has one of its own."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _check_masked(score: Score, model: nn.Module) -> None:
    noise = {
        name: torch.rand(weight.shape, generator=torch.Generator().manual_seed(1))
        for name, weight in prunable(model).items()
    }
    mask = select(noise, 0.5)
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in prunable(zeroed).items():
            weight[~mask[name].to(weight.device)] = 0

    def multiplied(network: nn.Module, inputs: Any) -> Any:
        weights = {name: weight * mask[name].to(weight.device) for name, weight in prunable(network).items()}
        return functional_call(network, weights, (inputs,))

    masked = score(model, _batches(), toy_task().loss, seed=3, mask=mask)
    ignored = _close(_scores(score, model), masked, 1e-4)
    law(
        "masked",
        _close(_scores(score, zeroed), masked, 1e-4)
        or (
            not ignored and _close(score(model, _batches(), toy_task().loss, seed=3, forward=multiplied), masked, 1e-4)
        ),
        "`mask` is not the same as zeroing the dead weights, nor as multiplying all weights by the mask",
    )
    again = score(model, _batches(), toy_task().loss, seed=3, mask=mask, forward=recomputed)
    law(
        "recomputation",
        _close(masked, again, 1e-4),
        "activation checkpointing changes the scores; call the network and take its gradients inside "
        "tombola.scores.untouched",
    )
    unmasked = score(model, _batches(), toy_task().loss, seed=3, mask=Mask.full(prunable(model)))
    law("masked", _equal(unmasked, _scores(score, model)), "a mask that keeps everything changes the scores")


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _close(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float) -> bool:
    """Equal up to `tolerance` times the largest score of a tensor."""
    return all(
        bool(((values - second[name]).abs() <= tolerance * values.abs().max() + 1e-12).all())
        for name, values in first.items()
    )
