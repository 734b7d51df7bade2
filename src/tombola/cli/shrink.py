"""tombola shrink TICKET: train a ticket, and write the physically smaller network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from torch import nn

from tombola.cli.output import RunOptions, console, device_of, print_json
from tombola.cli.parse import parse
from tombola.cli.subjects import first_word, task_words, ticket_at
from tombola.errors import TombolaError
from tombola.shrink import NETWORK, WEIGHTS, save_small, shrink, shrinking, to_onnx
from tombola.studies import default_options, make_task
from tombola.training import Run, SampleFlops, bars, evaluate, own_randomness, train


@dataclass(frozen=True)
class Shrink:
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
    rest = ["--help"] if ticket is None else [*task_words(ticket.provenance.task), *rest]
    options = parse("shrink", rest, Shrink.__doc__, shrink=Shrink(), task=default_options(rest), run=RunOptions())
    if ticket is None:
        raise TombolaError("say what: tombola shrink TICKET")
    own, task = options.shrink, make_task(options.task)
    with bars(not options.run.json) as shown:
        working = Run(own.seed, own.out, device_of(options.run.device), shown)
        if options.run.fresh:
            working.clear()
        model = train(task, ticket, seed=own.seed, run=working).model.cpu()
    example = next(iter(task.batches("test", 0, 0)))[0][:8].cpu()
    plan = shrinking(model, ticket, example, task.forward)
    small = shrink(model, ticket, example=example, forward=task.forward)
    batch = next(iter(task.batches("test", 0, 0)))
    with own_randomness(working.device, own.seed):
        facts = {
            kind: {
                "parameters": sum(p.numel() for p in network.parameters()),
                "flops": SampleFlops.measure(task, network, batch).forward,
                "metric": evaluate(task, network.to(working.device), "test", task.recipe)[0],
            }
            for kind, network in (("masked", model), ("small", small))
        }
    save_small(own.out, small.cpu(), plan, {"task": dict(ticket.provenance.task), **facts})
    answer = {"network": str(own.out / NETWORK), "weights": str(own.out / WEIGHTS), **facts, "left": _left(small, plan)}
    if own.to == "onnx":
        path = own.out / "network.onnx"
        answer |= {"onnx": str(path), "onnx_gap": to_onnx(small, example, path)}
    working.clear()
    if options.run.json:
        print_json(answer)
        return 0
    _show(answer)
    return 0


def _left(small: nn.Module, plan) -> float:
    """The share of the smaller network's parameters that is dead and could not be cut out."""
    dead = plan.mask.size - plan.mask.total_kept
    return dead / sum(p.numel() for p in small.parameters())


def _show(answer: dict) -> None:
    table = Table("network", "parameters", "FLOPs a sample", "test accuracy")
    for kind in ("masked", "small"):
        own = answer[kind]
        table.add_row(kind, f"{own['parameters']:,}", f"{own['flops']:,.0f}", f"{own['metric']:.2%}")
    out = console()
    out.print(table)
    if answer["left"]:
        out.print(f"{answer['left']:.1%} of the smaller network's parameters are dead and could not be cut out.")
    if "onnx" in answer:
        out.print(f"For ONNX Runtime: {answer['onnx']} (differs from PyTorch by {answer['onnx_gap']:.0e})")
    out.print(f"Written: {answer['weights']} and {answer['network']}; tb.load_small(folder, model) builds it again.")
