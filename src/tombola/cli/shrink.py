"""tombola shrink TICKET: train a ticket and write it as a physically smaller network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text
from torch import nn

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, work
from tombola.cli.parse import parse
from tombola.cli.subjects import first_word, options_of, ticket_at
from tombola.files import held, remove_empty
from tombola.nested import samples_in
from tombola.scores import Batch, Inputs
from tombola.shrinking import (
    NETWORK,
    WEIGHTS,
    Plan,
    SparseProgram,
    check_place,
    save_small,
    save_sparse,
    smaller,
    sparse_copy,
    to_onnx,
    warn_if_whole,
)
from tombola.studies import RunSpec, Serial, default_options, make_task
from tombola.studies.spec import digest
from tombola.tickets import Mask
from tombola.training import Run, SampleFlops, Task, bars, chosen_device, first_of, pick, remove_stages, train

SPARSE = "network.sparse.safetensors"


@dataclass(frozen=True)
class ShrinkOptions:
    """Train a ticket on its task, cut out the channels and layers that it removes, and write the smaller network.

    A ticket is a part of a network's weights, with their starting values. The command writes the trained weights and
    a JSON file from which tb.load_small builds the network again.
    """

    out: Path = Path("small")
    """folder of the network, and of the checkpoints from which an interrupted command continues"""
    seed: int = 0
    """seed of the training's data order"""
    to: Literal["", "onnx", "sparse"] = ""
    """onnx: write the network for ONNX Runtime too, checked against PyTorch (pip install 'tombola[export]'); sparse:
    write one that multiplies with its kept weights alone, if it is faster so on this processor"""
    batch: int = 64
    """with --to sparse, the number of samples in a call for which it is measured"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    name, rest = first_word(words, "tombola shrink TICKET")
    ticket = None if name == "--help" else ticket_at(name)
    rest = ["--help"] if ticket is None else rest
    task_options = default_options(rest) if ticket is None else options_of(ticket, rest)
    options = parse(
        "shrink TICKET",
        rest,
        ShrinkOptions.__doc__,
        shrink=ShrinkOptions(),
        task=task_options,
        run=RunOptions(),
    )
    assert ticket is not None  # With --help, `parse` has ended the command.
    shrink, task = options.shrink, make_task(options.task)
    device, meter = chosen_device(options.run.device), options.run.meter
    check_place(shrink.out, *({"onnx": ["network.onnx"], "sparse": [SPARSE]}.get(shrink.to, [])))
    with bars(not options.run.json) as progress, held(shrink.out) as lease:
        whole = Run(shrink.seed, shrink.out, device, progress, meter=meter, lease=lease)
        # A part named by all that decides it, so that nothing goes on from the stages of another training.
        spec, settings = Serial(device).tasks.known(RunSpec(task, ticket, seed=shrink.seed), device)
        task, job = spec.task, whole.part(f"shrink-{digest(settings)[:12]}", shrink.seed)
        if options.run.fresh:
            job.clear()
        trained = train(task, ticket, seed=shrink.seed, run=job)
        small, plan = trained.model, trained.plan
        if plan is None:  # `train` has trained the whole network with its mask, so it is cut out only now.
            small, plan = smaller(small, ticket, job.probe(task))
        warn_if_whole(ticket, plan)
        batch = first_of(task.batches("test", 0, 0))
        facts = {
            "whole": _size(task, task.build(shrink.seed), batch),
            "small": {**_size(task, small, batch), "metric": trained.metric, "dead": _dead(small, plan)},
        }
        lease.check()
        save_small(shrink.out, small.cpu(), plan, {"task": dict(ticket.provenance.task), **facts})
        answer: dict[str, Any] = {"network": str(shrink.out / NETWORK), "weights": str(shrink.out / WEIGHTS), **facts}
        answer["cost"] = asdict(trained.cost)
        if shrink.to == "onnx":
            path = shrink.out / "network.onnx"
            answer |= {"onnx": str(path), "onnx_gap": to_onnx(small, pick(batch[0], slice(8)), path)}
        if shrink.to == "sparse":
            answer |= _sparse(small, plan.mask, pick(batch[0], slice(shrink.batch)), shrink.out / SPARSE)
        stages = shrink.out / "stages"
        for part in stages.glob("shrink-*"):  # the checkpoints of other settings too
            remove_stages(part)
        remove_empty(stages)
    if options.run.json:
        print_json(answer)
        return 0
    _show(answer)
    return 0


def _sparse(small: nn.Module, mask: Mask, example: Inputs, path: Path) -> dict[str, Any]:
    """Write the network as one that runs sparse, if it is faster so; what programs are told of it."""
    found = sparse_copy(small, mask, example)
    is_whole = isinstance(found.network, SparseProgram)  # else the network's own class is needed beside it
    if is_whole:
        save_sparse(found.network, path)
    told = {"sparse": str(path) if is_whole else None, "samples": samples_in(example)}
    return told | {"layers": [asdict(timing) for timing in found.timings], "seconds": dict(found.seconds)}


def _size(task: Task, network: nn.Module, batch: Batch) -> dict[str, float]:
    flops = SampleFlops.measure(task, network, batch).forward
    return {"parameters": sum(p.numel() for p in network.parameters()), "flops": flops}


def _dead(small: nn.Module, plan: Plan) -> float:
    """The share of the smaller network's parameters that is dead and could not be cut out."""
    return (plan.mask.size - plan.mask.total_kept) / sum(p.numel() for p in small.parameters())


def _show(answer: dict[str, Any]) -> None:
    table = Table("network", "parameters", "FLOPs a sample")
    for kind in ("whole", "small"):
        facts = answer[kind]
        table.add_row(kind, f"{facts['parameters']:,}", f"{facts['flops']:,.0f}")
    terminal = console()
    terminal.print(table)
    terminal.print(
        f"Test accuracy of the small network: {answer['small']['metric']:.2%}, after {work(answer['cost'])}."
    )
    terminal.print("The cut was compared with the masked network in float64: the outputs are equal.")
    if answer["small"]["dead"]:
        terminal.print(
            f"{answer['small']['dead']:.1%} of the small network's parameters are dead and could not be cut out."
        )
    if "onnx" in answer:
        terminal.print(f"For ONNX Runtime: {answer['onnx']} (differs from PyTorch by {answer['onnx_gap']:.0e})")
    if "sparse" in answer:
        _show_sparse(answer)
    terminal.print(
        f"Written: {answer['weights']} and {answer['network']}; tb.load_small(folder, model) builds it again."
    )


def _show_sparse(answer: dict[str, Any]) -> None:
    table = Table("layer", "density", "dense", "sparse", "runs")
    for layer in answer["layers"]:
        seconds = [_in_time(layer["seconds"][how]) if layer["seconds"] else "–" for how in ("dense", "sparse")]
        table.add_row(Text(layer["layer"]), f"{layer['density']:.1%}", *seconds, Text(layer["why"] or "sparse"))
    console().print(table)
    seconds, samples = answer["seconds"], answer["samples"]
    gain = seconds["dense"] / seconds["sparse"] if seconds else 1
    if answer["sparse"]:
        console().print(f"Sparse, it is {gain:.1f} × as fast as dense with {samples} samples a call.")
        console().print(Text(f"Written: {answer['sparse']}; tb.shrinking.load_sparse(file) reads it."))
    elif gain > 1:
        console().print(
            f"Parts of it are faster sparse ({gain:.1f} × in all, {samples} samples a call), and a file holds whole "
            "networks alone; call tb.shrinking.sparse in your program."
        )
    else:
        console().print(f"With {samples} samples a call it is not faster sparse, so nothing was written for it.")


def _in_time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
