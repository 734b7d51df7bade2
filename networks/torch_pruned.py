"""The same networks cut by Torch-Pruning."""

from __future__ import annotations

import time
from typing import Any

import torch

from networks.architectures import CLASSES, VOCAB
from networks.cases import Case, NotApplicable, Wrong, call, main_of, size_of


def torch_pruned(case: Case, **options: Any) -> tuple[Any, float]:
    """The same network cut by Torch-Pruning's default call, and the seconds it took."""
    import torch_pruning as tp
    from torch import nn

    model = case.model().eval()
    last = [
        module
        for module in model.modules()
        if (isinstance(module, nn.Linear) and module.out_features in (CLASSES, VOCAB))
        or (isinstance(module, nn.Conv2d) and module.out_channels == CLASSES)
    ]
    start = time.perf_counter()
    pruner = tp.pruner.MagnitudePruner(
        model,
        case.example,
        importance=tp.importance.GroupMagnitudeImportance(),
        iterative_steps=1,
        pruning_ratio=0.5,
        ignored_layers=last,
        **options,
    )
    pruner.step()
    seconds = time.perf_counter() - start
    return model, seconds


def job_tp_helped(case: Case) -> dict[str, Any]:
    """Told what output matters, where a network gives more than a tensor."""
    if isinstance(call(case.model().eval(), case.example), torch.Tensor):
        raise NotApplicable
    return job_tp(case, forward_fn=lambda model, inputs: main_of(call(model, inputs)))


def job_tp(case: Case, **options: Any) -> dict[str, Any]:
    flops, parameters = case.size
    small, seconds = torch_pruned(case, **options)
    facts: dict[str, Any] = {"seconds": round(seconds, 2)}
    try:
        less, fewer = size_of(small, case)
    except Exception as error:
        raise Wrong(f"forward fails: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    facts |= {"flops": flops, "flops_kept": round(less / flops, 4), "params_kept": round(fewer / parameters, 4)}
    try:
        case.loss(call(small.train(), case.example), case.targets).backward()
    except Exception as error:
        raise Wrong(f"training step fails: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    return facts
