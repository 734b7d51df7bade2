"""tombola shrink TICKET: train a ticket and write it as a physically smaller network."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from tombola.cli.console import print_json
from tombola.cli.output import RunOptions
from tombola.cli.parse import parse
from tombola.cli.shrink_output import show
from tombola.cli.subjects import first_word, options_of, ticket_at
from tombola.evidence import measure_of
from tombola.files import content_of, held, remove_empty, write_atomically
from tombola.nested import samples_in
from tombola.scores import Inputs
from tombola.shrinking import (
    NETWORK,
    Plan,
    SparseProgram,
    add_facts,
    check_place,
    save_small,
    save_sparse,
    smaller,
    sparse_copy,
    to_onnx,
    warn_if_whole,
)
from tombola.studies import (
    Form,
    RunFolder,
    RunSpec,
    Serial,
    TaskOptions,
    default_options,
    dense_export,
    eight_bits,
    exported,
    form_of,
    make_task,
    masked_form,
    some_of,
    timed,
    tokenizer_folder,
    zoo_origin,
)
from tombola.studies.spec import digest
from tombola.tickets import Mask, Ticket
from tombola.training import Run, Task, Trained, bars, chosen_device, epochs_spent, first_of, remove_stages, train

ONNX, INT8, SPARSE = "network.onnx", "network.int8.onnx", "network.sparse.safetensors"
EXPORTS = {"onnx": ONNX, "int8": INT8, "sparse": SPARSE}
"""The files beside the network, by what the answer calls them."""


@dataclass(frozen=True)
class ShrinkOptions:
    """Train a ticket on its task, cut out the channels and layers that it removes, and write the smaller network.

    A ticket is a part of a network's weights, with their starting values. Networks of transformers are written as
    save_pretrained does, where their configuration can say the shape; others are opened by tb.load_small. A table
    compares the forms of the network: dense, masked, small and exported.
    """

    out: Path = Path("small")
    """folder of the network, and of the checkpoints from which an interrupted command continues"""
    seed: int = 0
    """seed of the training's data order"""
    to: Literal["", "onnx", "onnx-int8", "sparse"] = ""
    """onnx: write the network for ONNX Runtime too, checked against PyTorch (pip install 'tombola[export]');
    onnx-int8: and with eight bits a weight, if that is faster; sparse: write one that multiplies with its kept weights
    alone, if it is faster so on this processor"""
    dense: bool = False
    """train the dense network too, for as many epochs as the ticket and its start had, so that the table has its
    accuracy"""
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
    answer = written(ticket, options.shrink, options.task, options.run)
    if options.run.json:
        print_json(answer)
    else:
        show(answer)
    return 0


def written(
    ticket: Ticket,
    shrink: ShrinkOptions,
    of_task: TaskOptions,
    how: RunOptions,
    record: RunFolder | None = None,
    *,
    given: float | None = None,
) -> dict[str, Any]:
    """Train a ticket, cut it out and write the smaller network.

    Args:
        ticket: which units stay.
        shrink: where to, and what else is written.
        of_task: what the ticket trains on.
        how: where it trains.
        record: the run of the same training, whose network is taken if it was kept.
        given: the test metric of the dense network as the task gives it, where it is known.

    Returns:
        What `--json` prints.
    """
    task = make_task(of_task)
    device, meter = chosen_device(how.device), how.meter
    check_place(shrink.out, *EXPORTS.values())
    with bars(not how.json) as progress, held(shrink.out) as lease:
        whole = Run(shrink.seed, shrink.out, device, progress, meter=meter, lease=lease)
        # A part named by all that decides it, so that nothing goes on from the stages of another training.
        spec, settings = Serial(device).tasks.known(RunSpec(task, ticket, seed=shrink.seed), device)
        task, job = spec.task, whole.part(f"shrink-{digest(settings)[:12]}", shrink.seed)
        if how.fresh:
            job.clear()
        if record is not None:
            job.take("train", record.trained_path)
        trained = train(task, ticket, seed=shrink.seed, run=job)
        beside = (
            _dense(task, ticket, whole.part(f"shrink-dense-{digest(settings)[:12]}", shrink.seed))
            if shrink.dense
            else None
        )
        small, plan = trained.model, trained.plan
        if plan is None:  # `train` has trained the whole network with its mask, so it is cut out only now.
            small, plan = smaller(small, ticket, job.probe(task))
        warn_if_whole(ticket, plan)
        small = small.cpu().eval()
        dense = (task.build(shrink.seed) if beside is None else beside.model).cpu().eval()
        inputs = first_of(task.batches("test", 0, 0))[0]
        whole_form = form_of("dense", dense, task, given if beside is None else beside.metric)
        forms = [
            whole_form,
            masked_form(whole_form, ticket.mask, trained.metric),
            form_of("small", small, task, trained.metric),
        ]
        facts = {
            "whole": _size(forms[0]),
            "small": {**_size(forms[2]), "metric": trained.metric, "dead": _dead(small, plan)},
        }
        lease.check()
        kept = {"task": dict(ticket.provenance.task), "provenance": asdict(ticket.provenance), **facts}
        saved = save_small(
            shrink.out,
            small,
            plan,
            kept,
            origin=zoo_origin(of_task, task),
            example=some_of(inputs, 8),
            forward=task.forward,
            processor=tokenizer_folder(of_task),
        )
        answer: dict[str, Any] = {"network": str(shrink.out / NETWORK), "weights": str(saved.weights), **facts}
        opens = saved.code
        if saved.opener == "class" and ":" in of_task.model:
            opens = f'tb.load_small("{saved.folder}", {of_task.model.rpartition(":")[2]}())'
        answer |= {"opens": opens, "opener": saved.opener, "why": saved.why, "zeros": saved.zeros}
        answer |= {"beside": list(saved.beside), "opens_processor": saved.processor_code}
        answer["cost"] = asdict(trained.cost)
        if shrink.to in ("onnx", "onnx-int8"):
            path = shrink.out / ONNX
            answer |= {"onnx": str(path), "onnx_gap": to_onnx(small, some_of(inputs, 8), path)}
            with tempfile.TemporaryDirectory() as place:
                forms += dense_export(whole_form, some_of(inputs, 8), Path(place))
            forms.append(exported(path, forms[2], task))
        if shrink.to == "onnx-int8":
            found, told = _eight_bits(task, forms[-1], inputs, shrink.out)
            forms, answer = [*forms, *found], answer | told
        if shrink.to == "sparse":
            found, told = _sparse(small, plan.mask, some_of(inputs, shrink.batch), shrink.out / SPARSE, forms[2])
            forms, answer = [*forms, *found], answer | told
        answer["forms"] = [form.to_json() for form in timed(forms, task, inputs)]
        measure = measure_of(task, [form.metric for form in forms if form.metric is not None])
        answer["measure"] = asdict(measure)
        add_facts(shrink.out, {name: answer[name] for name in ("forms", "measure")})
        for key, name in EXPORTS.items():
            if not answer.get(key):
                (shrink.out / name).unlink(missing_ok=True)  # of the network that was here before
        stages = shrink.out / "stages"
        for part in stages.glob("shrink-*"):  # the checkpoints of other settings too
            remove_stages(part)
        remove_empty(stages)
    return answer


def _dense(task: Task, ticket: Ticket, run: Run) -> Trained:
    """The dense network, trained as long as the ticket and its start."""
    return train(task, None, seed=run.seed, extra_epochs=epochs_spent(ticket), run=run)


def _eight_bits(task: Task, floating: Form, inputs: Inputs, out: Path) -> tuple[tuple[Form, ...], dict[str, Any]]:
    """Write the quantised network, if one is faster than the float file; both forms, and what programs are told."""
    with tempfile.TemporaryDirectory() as place:
        found = eight_bits(out / ONNX, floating, task, Path(place), inputs)
        if found.chosen is not None:
            kind = found.chosen.name.removeprefix("int8 ")
            write_atomically(out / INT8, content_of(Path(place, f"{kind}.onnx")))
    told = {
        "int8": None if found.chosen is None else str(out / INT8),
        "int8_kind": None if found.chosen is None else found.chosen.name,
        "int8_why": found.why,
        "int8_validation": dict(found.validation),
    }
    return found.forms, told


def _sparse(
    small: nn.Module, mask: Mask, example: Inputs, path: Path, like: Form
) -> tuple[tuple[Form, ...], dict[str, Any]]:
    """Write the network as one that runs sparse, if it is faster so; its form, and what programs are told of it."""
    found = sparse_copy(small, mask, example)
    forms: tuple[Form, ...] = ()
    if isinstance(found.network, SparseProgram):  # else the network's own class is needed beside it
        save_sparse(found.network, path)
        forms = (replace(like, name="sparse", network=found.network, bytes=path.stat().st_size, flops=None),)
    told = {"sparse": str(path) if forms else None, "samples": samples_in(example)}
    return forms, told | {"layers": [asdict(timing) for timing in found.timings], "seconds": dict(found.seconds)}


def _size(form: Form) -> dict[str, Any]:
    return {"parameters": sum(p.numel() for p in form.network.parameters()), "flops": form.flops}


def _dead(small: nn.Module, plan: Plan) -> float:
    """The share of the smaller network's parameters that is dead and could not be cut out."""
    return (plan.mask.size - plan.mask.total_kept) / sum(p.numel() for p in small.parameters())
