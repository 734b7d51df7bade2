"""tombola shrink TICKET: train a ticket, and write the physically smaller network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from torch import nn

from tombola.cli.console import console, print_json
from tombola.cli.output import RunOptions, chosen_device, work
from tombola.cli.parse import parse
from tombola.cli.subjects import first_word, options_of, ticket_at
from tombola.errors import TombolaError
from tombola.scores import Batch
from tombola.shrinking import NETWORK, WEIGHTS, Plan, save_small, smaller, to_onnx
from tombola.studies import default_options, make_task
from tombola.training import Run, SampleFlops, Task, bars, train


@dataclass(frozen=True)
class ShrinkOptions:
    """Train a ticket on its task and write the smaller network: its weights, and JSON to build it again."""

    out: Path = Path("small")
    """the folder of the network, and of what is needed to go on if this is stopped"""
    seed: int = 0
    """of the training's data order"""
    to: Literal["", "onnx"] = ""
    """write it for ONNX Runtime too (extra `export`), checked against PyTorch"""


def run(words: Sequence[str]) -> int:
    name, rest = first_word(words, "tombola shrink TICKET")
    ticket = None if name == "--help" else ticket_at(name)
    if ticket is None:
        rest = ["--help"]
    task_options = default_options(rest) if ticket is None else options_of(ticket, rest)
    options = parse("shrink", rest, ShrinkOptions.__doc__, shrink=ShrinkOptions(), task=task_options, run=RunOptions())
    if ticket is None:
        raise TombolaError("say what: tombola shrink TICKET")
    own, task = options.shrink, make_task(options.task)
    with bars(not options.run.json) as shown:
        working = Run(own.seed, own.out, chosen_device(options.run.device), shown, meter=options.run.meter)
        if options.run.fresh:
            working.clear()
        trained = train(task, ticket, seed=own.seed, run=working)
    small, plan = trained.model, trained.plan
    if plan is None:
        small, plan = smaller(small, ticket, working.probe(task))
    batch = next(iter(task.batches("test", 0, 0)))
    facts = {
        "whole": _size(task, task.build(own.seed), batch),
        "small": {**_size(task, small, batch), "metric": trained.metric, "dead": _dead(small, plan)},
    }
    save_small(own.out, small.cpu(), plan, {"task": dict(ticket.provenance.task), **facts})
    answer: dict[str, Any] = {"network": str(own.out / NETWORK), "weights": str(own.out / WEIGHTS), **facts}
    answer["cost"] = asdict(trained.cost)
    if own.to == "onnx":
        path = own.out / "network.onnx"
        answer |= {"onnx": str(path), "onnx_gap": to_onnx(small, batch[0][:8].cpu(), path)}
    working.clear()
    if options.run.json:
        print_json(answer)
        return 0
    _show(answer)
    return 0


def _size(task: Task, network: nn.Module, batch: Batch) -> dict[str, float]:
    flops = SampleFlops.measure(task, network, batch).forward
    return {"parameters": sum(p.numel() for p in network.parameters()), "flops": flops}


def _dead(small: nn.Module, plan: Plan) -> float:
    """The share of the smaller network's parameters that is dead and could not be cut out."""
    return (plan.mask.size - plan.mask.total_kept) / sum(p.numel() for p in small.parameters())


def _show(answer: dict[str, Any]) -> None:
    table = Table("network", "parameters", "FLOPs a sample", "test accuracy")
    for kind in ("whole", "small"):
        own = answer[kind]
        accuracy = f"{own['metric']:.2%}" if "metric" in own else ""
        table.add_row(kind, f"{own['parameters']:,}", f"{own['flops']:,.0f}", accuracy)
    out = console()
    out.print(table)
    out.print(f"Its training took {work(answer['cost'])}.")
    if answer["small"]["dead"]:
        out.print(f"{answer['small']['dead']:.1%} of the small network's parameters are dead and could not be cut out.")
    if "onnx" in answer:
        out.print(f"For ONNX Runtime: {answer['onnx']} (differs from PyTorch by {answer['onnx_gap']:.0e})")
    out.print(f"Written: {answer['weights']} and {answer['network']}; tb.load_small(folder, model) builds it again.")
