"""Accuracy after equal fine-tuning at equal FLOPs: half of the channels, by Tombola and by Torch-Pruning."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tombola as tb
from tombola.studies import TaskOptions, make_task
from tombola.training import Run

MODELS = (("resnet20", 1.0), ("vgg11", 0.25), ("vit-tiny", 0.5))
EPOCHS, TUNING, SEEDS = 4, 1, 2
STEPS = 8
"""Halvings by which the share of channels is found that keeps half of the FLOPs."""


def tuned() -> str:
    """A table of networks of the zoo on the standard bench; means over seeds, on the validation split."""
    lines = ["| network | whole | Tombola, tuned | Torch-Pruning, tuned | FLOPs kept |", "|" + " --- |" * 5]
    for name, width in MODELS:
        rows = [_row(name, width, seed) for seed in range(SEEDS)]
        whole, ours, theirs, our_flops, their_flops = (sum(own) / SEEDS for own in zip(*rows, strict=True))
        cells = [f"{name}, width {width:g}", f"{whole:.2%}", f"{ours:.2%}"]
        cells += (
            ["fails", f"{our_flops:.2f}"]
            if math.isnan(theirs)
            else [f"{theirs:.2%}", f"{our_flops:.2f}, {their_flops:.2f}"]
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(name: str, width: float, seed: int) -> tuple[float, ...]:
    """Accuracy of the whole network and of both smaller ones after tuning, and the FLOPs that both keep."""
    recipe = tb.Recipe(epochs=EPOCHS, precision="float32")
    task = make_task(TaskOptions(data="fashion-mnist-14", model=name, width=width, recipe=recipe))
    whole = tb.train(task, seed=seed).model
    example = next(iter(task.batches("train", seed, 0)))[0][:8]
    facts = []
    for cut in (_ours, _theirs):
        try:
            small = _at_half(cut, whole, example)
        except RuntimeError:  # what Torch-Pruning made cannot be called
            if cut is _ours:
                raise
            facts.append((math.nan, math.nan))
            continue
        facts.append((_tuned(task, small, seed), flops(small, example) / flops(whole, example)))
    return Run(seed).validate(task, whole, recipe), facts[0][0], facts[1][0], facts[0][1], facts[1][1]


def _tuned(task: tb.SupervisedTask, small: nn.Module, seed: int) -> float:
    """Validation accuracy after fine-tuning with the same data, rate and number of epochs for all."""
    recipe = tb.Recipe(epochs=TUNING, lr=0.02, precision="float32")
    run = Run(seed)
    run.stage("tune", task, small, recipe=recipe)
    return run.validate(task, small, recipe)


def _at_half(cut: Callable[[nn.Module, torch.Tensor, float], nn.Module], whole: nn.Module, example: torch.Tensor):
    """The network whose FLOPs come nearest to half of the whole one's."""
    low, high, best = 0.05, 1.0, whole
    goal = flops(whole, example) / 2
    for _ in range(STEPS):
        density = (low + high) / 2
        small = cut(whole, example, density)
        if abs(flops(small, example) - goal) < abs(flops(best, example) - goal):
            best = small
        low, high = (low, density) if flops(small, example) > goal else (density, high)
    return best


def _ours(whole: nn.Module, example: torch.Tensor, density: float) -> nn.Module:
    units = tb.Channels().units(whole, lambda model: model(example.to(next(model.parameters()).device)))
    kept = units.choose(tb.scores.magnitude(whole), density, scope="global", within=None, floor=0)
    return tb.shrink(whole, units.expand(kept, dict(whole.named_parameters())), example=example)


def _theirs(whole: nn.Module, example: torch.Tensor, density: float) -> nn.Module:
    import torch_pruning

    model = copy.deepcopy(whole).eval()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    heads = {m.qkv: m.num_heads for m in model.modules() if hasattr(m, "qkv") and hasattr(m, "num_heads")}
    torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=1 - density,
        global_pruning=True,
        ignored_layers=last,
        num_heads=heads,
    ).step()
    return model


@torch.no_grad()
def flops(model: nn.Module, example: torch.Tensor) -> int:
    """FLOPs of one call."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(example)
    return counter.get_total_flops()
