"""What is tried on each network with Tombola: each job gives facts, or raises."""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import tombola as tb
from networks.cases import Case, NotApplicable, as_double, call, check, gap_between, masked_copy, size_of
from tombola.structure import AllInDouble


def job_mask(case: Case, score: Any = None) -> dict[str, Any]:
    """snip → select → attach → three steps: dead weights are zero, live ones move."""
    model = case.model().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    scores = (score or tb.scores.snip)(model, case.batches, case.loss)
    mask = tb.select(scores, density=0.2)
    own = dict(model.named_parameters())
    matrices = sum(p.numel() for p in own.values() if p.ndim > 1)
    covered = sum(own[name].numel() for name in mask)
    before = {name: own[name].detach().clone() for name in mask}
    with tb.attach(mask, model, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            loss = case.loss(call(model, case.example), case.targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    check(bool(torch.isfinite(loss)), "the loss is not finite")
    dead = sum(int((own[name][~mask[name]] != 0).sum()) for name in mask)
    check(dead == 0, f"{dead} dead weights are not zero")
    moved = {name: float((own[name] != before[name])[mask[name]].float().mean()) for name in mask if mask.kept(name)}
    still = [name for name, share in moved.items() if share < 0.5]
    facts = {"covered": round(covered / max(1, matrices), 4), "tensors": len(mask), "unmoved": still[:5]}
    check(
        len(still) < 0.2 * len(moved) + 1,
        f"live weights of {len(still)} of {len(moved)} tensors did not move: {still[:5]}",
    )
    return facts


def job_synflow(case: Case) -> dict[str, Any]:
    if case.net.kind not in ("image", "dense") or case.name in ("tv/vgg11_bn", "timm/beit_base_patch16_224"):
        raise NotApplicable
    scores = tb.scores.synflow(case.model(), case.batches)
    mask = tb.select(scores, density=0.2)
    return {"collapsed": len(mask.collapsed)}


def shrunk(case: Case, granularity: Any, scores: Any, density: float, scope: str, floor: int = 1) -> dict[str, Any]:
    """Choose units, train a masked step, shrink with the optimizer, compare with our own masked network, step on."""
    model = case.model().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    flops, parameters = case.size
    start = time.perf_counter()
    units = granularity.units(model, case.probe)
    share = units.share(density) if hasattr(units, "share") else density
    kept = units.choose(scores(model), share, scope=scope, within=None, floor=floor)
    mask = units.expand(kept, dict(model.named_parameters()))
    chosen = time.perf_counter() - start
    facts: dict[str, Any] = {"groups": len(kept), "units": kept.size, "units_kept": round(kept.density, 3)}

    def step(network: Any, its: Any, own: Any, given: Any) -> None:
        with tb.attach(own, network, its):
            its.zero_grad()
            case.loss(call(network, given), case.targets).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            its.step()
        network.train().eval()  # what a network remembers of a call (LeViT) goes

    step(model, optimizer, mask, case.example)
    twin, its = copy.deepcopy((model, optimizer))
    start = time.perf_counter()
    small = tb.shrink(model, mask, optimizer, case.example)
    facts["seconds"] = round(chosen + time.perf_counter() - start, 2)
    less, fewer = size_of(copy.deepcopy(small), case)
    facts |= {"flops": flops, "flops_kept": round(less / flops, 4), "params_kept": round(fewer / parameters, 4)}
    facts["dead_share"] = round(
        1 - sum(int(own.count_nonzero()) for own in masked_copy(model, mask).parameters()) / parameters, 4
    )
    facts["gap"] = gap_between(masked_copy(model, mask), small, case.other)
    check(facts["gap"] < 1e-7, f"the smaller network's outputs differ by {facts['gap']:.1e} on other inputs")
    left = tb.Mask.of({name: own != 0 for name, own in small.named_parameters()})
    case.small = copy.deepcopy(small)
    for network, own, dead in ((twin, its, mask), (small, optimizer, left)):
        network.double()  # float32 rounds sums of another order to another number, by 1e-9 to 1e-7
        own.load_state_dict(own.state_dict())  # which has the precision of the parameters then
        with AllInDouble():
            step(network, own, dead, as_double(case.example))
    facts["step_gap"] = gap_between(twin, small, case.other)
    check(facts["step_gap"] < 1e-9, f"a step in the smaller network gives another one: {facts['step_gap']:.1e}")
    return facts


def job_channels(case: Case) -> dict[str, Any]:
    return shrunk(case, tb.Channels(), tb.scores.magnitude, 0.5, "layerwise")


def job_widths(case: Case) -> dict[str, Any]:
    """Channels of streams under layer norms and attention heads too, as Torch-Pruning cuts them.

    Where there are neither, nothing is tried.
    """
    model, streams = case.model(), tb.Channels(streams=True)
    try:
        sizes = tb.Channels().units(model, case.probe).families.sizes
    except tb.TombolaError:
        sizes = {}
    kind = tb.structure.ChannelsAndHeads(streams=True)
    try:
        kind.units(model, case.probe)
    except tb.TombolaError:
        if streams.units(model, case.probe).families.sizes == sizes:
            raise NotApplicable from None
        return shrunk(case, streams, tb.scores.magnitude, 0.5, "layerwise")
    return shrunk(case, kind, tb.scores.magnitude, 0.5, "layerwise")


def job_channels_snip(case: Case) -> dict[str, Any]:
    return shrunk(case, tb.Channels(), lambda m: tb.scores.snip(m, case.batches, case.loss), 0.5, "global")


def job_head(case: Case, kind: str = "head") -> dict[str, Any]:
    model = case.model()
    names = " ".join(type(module).__name__.lower() for module in model.modules())
    if not any(word in names for word in ("attention", "attn", "mlp", "feedforward", "ffn")):
        raise NotApplicable
    if kind == "head" and not any(word in names for word in ("attention", "attn")):
        raise NotApplicable
    return shrunk(case, tb.structure.PartUnits(kind), tb.scores.magnitude, 0.5, "layerwise")


def job_neuron(case: Case) -> dict[str, Any]:
    return job_head(case, "neuron")


def job_blocks(case: Case) -> dict[str, Any]:
    units = tb.structure.Blocks(1, least=1).units(case.model(), case.probe)
    facts = {
        "free": len(units.blocks),
        "in_stages": sum(units.sizes.values()),
        "names": [b.name for b in units.blocks][:4],
    }
    try:
        tb.structure.Blocks(1).units(case.model(), case.probe).share(1.0)
    except tb.TombolaError as error:
        facts["default_refuses"] = str(error)
    more = min(2, max(1, len(units.blocks) - 1))
    return facts | shrunk(case, tb.structure.Blocks(more, least=1), tb.scores.magnitude, 1.0, "global", floor=0)


def halved(case: Case) -> dict[str, Any]:
    """Cut along all widths, where there are streams or heads, or else by channels; the network is `case.small`."""
    try:
        return job_widths(case) | {"cut": "widths"}
    except NotApplicable:
        return job_channels(case) | {"cut": "channels"}


def job_onnx(case: Case) -> dict[str, Any]:
    """The smaller network as an ONNX file, compared in ONNX Runtime."""
    facts: dict[str, Any] = {"cut": halved(case)["cut"]}
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "small.onnx", time.perf_counter()
        facts["gap"] = tb.shrinking.to_onnx(case.small, case.example, path)
        return facts | {"seconds": round(time.perf_counter() - start, 1), "kB": path.stat().st_size // 1024}
