"""The same networks cut by Torch-Pruning, and the time that both take in a call."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from networks.architectures import CLASSES, VOCAB
from networks.cases import Case, NotApplicable, Wrong, call, main_of, size_of
from networks.jobs import job_channels


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


def job_latency(case: Case, rounds: int = 15) -> dict[str, Any]:
    """Dense ÷ shrunk, interleaved, one thread, batches of 1 and 16; both cut by half per layer."""
    facts: dict[str, Any] = {}
    models = {"dense": case.model()}
    try:
        facts["tb_flops_kept"] = job_channels(case)["flops_kept"]
        models["tb"] = case.small
    except Exception as error:
        facts["tb_error"] = type(error).__name__
    try:
        models["tp"], _ = torch_pruned(case)
        facts["tp_flops_kept"] = round(size_of(models["tp"], case)[0] / size_of(models["dense"], case)[0], 4)
    except Exception as error:
        facts["tp_error"] = type(error).__name__
        models.pop("tp", None)
    if len(models) < 3:
        return facts
    for batch in (1, 16):
        torch.manual_seed(2)
        given = case.net.inputs(batch)
        times: dict[str, list[float]] = {name: [] for name in models}
        calls = 1
        with torch.inference_mode():
            for number in range(rounds + 2):
                order = list(models) if number % 2 else list(models)[::-1]
                for name in order:
                    start = time.process_time()  # one thread: processor time, which a busy machine disturbs less
                    for _ in range(calls):
                        call(models[name].eval(), given)
                    spent = (time.process_time() - start) / calls
                    if number > 1:
                        times[name].append(spent)
                    elif name == "dense":
                        calls = max(1, round(0.05 / max(spent, 1e-3)))  # the clock's ticks are some milliseconds
        middle = {name: statistics.median(own) for name, own in times.items()}
        facts |= {f"{name}_x_b{batch}": round(middle["dense"] / middle[name], 2) for name in ("tb", "tp")}
        facts[f"dense_ms_b{batch}"] = round(1e3 * middle["dense"], 2)
    return facts
