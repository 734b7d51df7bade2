"""How long calls take of the whole network, of ours at half of its widths, and of Torch-Pruning's."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from networks.cases import Case, NotApplicable, call, size_of
from networks.jobs import halved
from networks.torch_pruned import torch_pruned

TIMED = {
    "tv/resnet18", "tv/resnet50", "timm/repvgg_a0", "hf/bert", "hf/vit", "tv/mobilenet_v2", "tv/densenet121",
    "tv/regnet_y_400mf", "timm/mobilenetv3_small_100", "timm/convnext_atto",
}  # fmt: skip
BATCH, TURNS, WARM = 16, 120, 3
LEAST = 0.02
"""Seconds that a turn of the whole network takes at least, in as many calls as that needs."""


def job_latency(case: Case) -> dict[str, Any]:
    """Medians of paired ratios, each with its 95 % interval: whole ÷ ours, whole ÷ theirs, and ours ÷ theirs."""
    if case.name not in TIMED:
        raise NotApplicable
    flops, _ = case.size
    halved(case)
    theirs, _ = torch_pruned(case)
    models = {"whole": case.model(), "ours": case.small, "theirs": theirs}
    seconds = _turns({name: model.eval() for name, model in models.items()}, case)
    facts: dict[str, Any] = {f"{name}_kept": round(size_of(models[name], case)[0] / flops, 4) for name in models}
    facts["ms"] = round(1e3 * statistics.median(seconds["whole"]), 2)
    for one, other in (("whole", "ours"), ("whole", "theirs"), ("ours", "theirs")):
        facts[f"{one} ÷ {other}"] = _interval([a / b for a, b in zip(seconds[one], seconds[other], strict=True)])
    return facts


@torch.inference_mode()
def _turns(models: Mapping[str, Any], case: Case) -> dict[str, list[float]]:
    """Processor seconds of a call, one a turn and network; on one thread a busy machine disturbs these less."""
    torch.manual_seed(2)
    given = case.net.inputs(BATCH)
    times: dict[str, list[float]] = {name: [] for name in models}
    calls = 1
    for turn in range(WARM + TURNS):
        for name in list(models)[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            for _ in range(calls):
                call(models[name], given)
            spent = (time.process_time() - start) / calls
            if turn >= WARM:
                times[name].append(spent)
            elif name == "whole":
                calls = max(1, round(LEAST / max(spent, 1e-4)))
    return times


def _interval(ratios: Sequence[float]) -> list[float]:
    """The median, and its 95 % interval by ranks."""
    ranked, middle = sorted(ratios), len(ratios) // 2
    reach = round(1.96 * math.sqrt(len(ratios)) / 2)
    return [round(own, 3) for own in (statistics.median(ranked), ranked[middle - reach], ranked[middle + reach])]
