"""tombola transfer TICKET… --to-data NAME…: carry tickets to other tasks, and the matrix of how they do there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.text import Text
from torch import Tensor

from tombola.cli.compare import answer, written
from tombola.cli.console import console, print_json, strict_line
from tombola.cli.output import RunOptions, engine, refuse_foreign
from tombola.cli.parse import parse
from tombola.cli.subjects import first_words, is_ticket, options_of, ticket_at
from tombola.connectivity import carry
from tombola.errors import TombolaError
from tombola.files import held, write_atomically
from tombola.studies import Study, TaskOptions, compare, options_from, supervised_task
from tombola.terminal_table import Column, TerminalTable
from tombola.tickets import Ticket
from tombola.training import SupervisedTask, accuracy
from tombola.zoo import bag_of_words


@dataclass(frozen=True)
class CarryOptions:
    """Carry saved tickets to other tasks: the mask and the start of the network's body stay, and a new head is drawn.

    With --seeds, the tickets are trained on each of these tasks beside dense, and a matrix shows by how much they are
    better or worse: a row for each ticket, a column for each task. A ticket's own data may be among them. Stopped or
    killed, the same command goes on where it was.
    """

    to_data: tuple[str, ...] = ()
    """data of the other tasks, as of --data"""
    to_data_dir: Path | None = None
    """folder of their files, if it is not that of --data-dir"""
    seeds: int = 0
    """number of seeds with which the tickets are tested there; 0 only carries them"""
    controls: tuple[str, ...] = ()
    """with --seeds, controls that each must beat; `tombola methods controls` explains them"""
    out: Path = Path("runs/transfer")
    """folder of the tickets, the trainings, and a report for each task"""


def run(words: Sequence[str]) -> int:
    """Run the command with the words after its name; returns the exit status."""
    names, rest = first_words(words)
    if foreign := next((name for name in names if not is_ticket(name)), None):
        raise TombolaError(f"'{foreign}' is no ticket; find one and give its file: tombola find {shlex.quote(foreign)}")
    if not names:
        raise TombolaError("say what is carried: tombola transfer TICKET… --to-data NAME…")
    tickets = _named({name: ticket_at(name) for name in names})
    parsed = {name: _parsed(options_of(ticket, rest), rest) for name, ticket in tickets.items()}
    first = next(iter(parsed.values()))
    asked: CarryOptions = first.carry
    if not asked.to_data:
        raise TombolaError("say to which data the tickets go, as --to-data vader-tweets")
    if asked.seeds < 0:
        raise TombolaError(f"seeds is {asked.seeds}; give how often they are tested there, or 0")
    refuse_foreign(asked.out)
    own = {name: supervised_task(options.task) for name, options in parsed.items()}
    facts: dict[str, Any] = {}
    words_alone: dict[str, float] = {}
    studies: dict[str, Study] = {}
    for data in dict.fromkeys(asked.to_data):
        there = {name: supervised_task(_there(options.task, data, asked, rest)) for name, options in parsed.items()}
        folder = asked.out / _folder_of(data)
        carried = {name: carry(own[name], ticket, there[name]) for name, ticket in tickets.items()}
        _check_alike(there, data)
        with held(folder) as lease:
            lease.check()
            for name, ticket in carried.items():
                ticket.save(folder / f"{_folder_of(name)}.safetensors")
        facts[data] = {name: str(folder / f"{_folder_of(name)}.safetensors") for name in carried}
        if asked.seeds:
            task = next(iter(there.values()))
            studies[data] = _tested(task, carried, asked, first.run, folder, words)
            if is_text(task):
                words_alone[data] = bag_of_words(dict(task.data))
    matrix = {data: {verdict.subject: _cell(verdict) for verdict in study.verdicts} for data, study in studies.items()}
    digests = [ticket.digest for ticket in tickets.values()]
    told = {
        "transferred": digests[0],
        "tickets": digests,
        "carried": facts,
        "matrix": matrix,
        "bag_of_words": words_alone,
    }
    write_atomically(asked.out / "transfer.json", strict_line(told) + "\n")
    if first.run.json:
        print_json({**told, "studies": {data: answer(s, asked.out / _folder_of(data)) for data, s in studies.items()}})
    else:
        _show(list(tickets), studies, words_alone, asked)
    return 0


def _parsed(task_options: TaskOptions, rest: Sequence[str]) -> Any:
    usage = "transfer TICKET…"
    return parse(usage, rest, CarryOptions.__doc__, carry=CarryOptions(), task=task_options, run=RunOptions())


def _named(tickets: Mapping[str, Ticket]) -> dict[str, Ticket]:
    """Tickets by the data that they were found on; by their paths where that would not tell them apart."""
    data = {path: str(ticket.provenance.task.get("data", path)) for path, ticket in tickets.items()}
    unique = len(set(data.values())) == len(data)
    return {(f"of {data[path]}" if unique else path): ticket for path, ticket in tickets.items()}


def _there(own: TaskOptions, data: str, asked: CarryOptions, rest: Sequence[str]) -> TaskOptions:
    """The options of another task: the same network, the data's own recipe with what was typed of it."""
    if data == own.data and asked.to_data_dir is None:
        return own
    typed = [word for word in rest if word.startswith("--recipe.")]
    usual = options_from({"data": data, "model": own.model}, [], trust=True).recipe
    fields = {word.partition("=")[0].removeprefix("--recipe.").removeprefix("no-").replace("-", "_") for word in typed}
    recipe = replace(usual, **{name: getattr(own.recipe, name) for name in fields})
    folder = asked.to_data_dir or own.data_dir
    return replace(own, data=data, data_dir=folder, recipe=recipe, task_loss="", task_metric="", hold_out=0)


def _check_alike(tasks: Mapping[str, SupervisedTask], data: str) -> None:
    """TombolaError where tickets of different networks or recipes are to be compared on one task."""
    kinds = {(task.labels.get("model"), task.recipe): name for name, task in tasks.items()}
    if len(kinds) > 1:
        raise TombolaError(
            f"the tickets {', '.join(kinds.values())} are of different networks or recipes, so that they cannot be "
            f"compared on {data}; carry each by a command of its own, or type --model and the recipe"
        )


def _folder_of(name: str) -> str:
    """A name as that of a file."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name).strip("-")


def _tested(
    task: SupervisedTask,
    carried: Mapping[str, Ticket],
    asked: CarryOptions,
    run_options: RunOptions,
    folder: Path,
    words: Sequence[str],
) -> Study:
    """Train the carried tickets beside dense, and write the report."""
    with engine(run_options, folder) as runner:
        study = compare(task, dict(carried), seeds=asked.seeds, controls=asked.controls, engine=runner)
    title, command = f"Tickets on {task.labels['data']}", shlex.join(["tombola", "transfer", *words])
    return written(study, folder, title, command, dict(task.labels))[0]


def _cell(verdict: Any) -> dict[str, Any]:
    dense = verdict.dense
    return {"metric": verdict.means["ticket"], "minus_dense": dense.mean, "wins": verdict.wins}


def is_text(task: SupervisedTask) -> bool:
    """Whether a task is to tell classes of texts apart, by accuracy."""
    inputs, targets = task.data["train"] if isinstance(task.data["train"], tuple) else (None, None)
    tensors = isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    return tensors and inputs.ndim == 2 and not inputs.is_floating_point() and task.metric is accuracy


def _show(
    names: Sequence[str], studies: Mapping[str, Study], words_alone: Mapping[str, float], asked: CarryOptions
) -> None:
    terminal = console()
    if not studies:
        terminal.print(f"The tickets are in {asked.out}. Do they win there? Add --seeds 5.")
        return
    table = TerminalTable(
        (
            Column("ticket", left=True, least=16),
            *(Column(f"on {data}", drop=place) for place, data in enumerate(studies)),
        ),
        title="minus the dense network, in its metric",
    )
    for name in names:
        cells = []
        for study in studies.values():
            verdict = next(own for own in study.verdicts if own.subject == name)
            cells.append(f"{verdict.measure.signed(verdict.dense.mean)} ({verdict.dense.outcome})")
        table.add(Text(name), *cells)
    dense = [next(iter(study.verdicts)) for study in studies.values()]
    table.add("dense", *(own.measure.text(own.means["dense"]) for own in dense))
    if words_alone:
        table.add("bag of words", *(f"{100 * words_alone[d]:.2f} %" if d in words_alone else "" for d in studies))
    terminal.print(table)
    for data, own in zip(studies, dense, strict=True):
        if data in words_alone and own.means["dense"] <= words_alone[data]:
            terminal.print(
                f"On {data} the dense network is no better than a bag of words: tickets say nothing of transformers."
            )
    for data, study in studies.items():
        for verdict in study.verdicts if asked.controls else ():
            terminal.print(f"on {data}: {verdict.summary}")
        terminal.print(f"Report: {asked.out / _folder_of(data) / 'report.html'}")
