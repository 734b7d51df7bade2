"""What `tombola shrink` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from tombola.cli.console import console
from tombola.cli.output import work
from tombola.evidence import Measure
from tombola.terminal_table import Column, TerminalTable


def show(answer: Mapping[str, Any]) -> None:
    """Print what became of a ticket: one table of all forms of the network, and what opens it.

    Args:
        answer: what `--json` prints.
    """
    terminal = console()
    terminal.print(f"Trained in {work(answer['cost'])}.")
    terminal.print("The cut was compared with the masked network in float64: the outputs are equal.")
    if answer["small"]["dead"]:
        terminal.print(
            f"{answer['small']['dead']:.1%} of the small network's parameters are dead and could not be cut out."
        )
    if answer["zeros"]:
        terminal.print(
            f"{answer['zeros']:,} of the small network's parameters are zeros that were put back, so that all layers "
            "are alike."
        )
    if "int8" in answer:
        _show_eight_bits(answer)
    if "sparse" in answer:
        _show_sparse(answer)
    written = [answer["weights"], answer["network"], answer.get("onnx"), answer.get("int8"), answer.get("sparse")]
    terminal.print(Text(f"Written: {', '.join(str(path) for path in written if path)}."))
    if answer["why"]:
        terminal.print(Text(f"transformers' own loader does not open it: {answer['why']}."))
    terminal.print(Text(f"Open it with {answer['opens']}"))
    if answer["opens_processor"]:
        terminal.print(Text(f"What reads its inputs lies beside it: {answer['opens_processor']}"))
    terminal.print(_forms(answer))


def _forms(answer: Mapping[str, Any]) -> TerminalTable:
    measure = Measure(**answer["measure"])
    table = TerminalTable(
        (
            Column("form", left=True),
            Column("parameters", drop=2),
            Column("bytes", drop=1),
            Column("FLOPs\na sample", drop=3),
            Column("latency,\n1 sample", drop=4),
            Column("16\nsamples"),
            Column(f"test\n{measure.name}"),
        ),
        caption="Parameters that are not zero; what a call takes on this processor in the fastest quarter of turns. "
        "Masked and dense have the same FLOPs. With --dense, the dense network is trained and measured too.",
    )
    for form in answer["forms"]:
        eight = form["name"].startswith("int8")
        became = "" if not eight else " (kept)" if form["name"] == answer["int8_kind"] else " (not written)"
        table.add(
            form["name"] + became,
            f"{form['parameters']:,}",
            f"{form['bytes']:,}",
            "–" if form["flops"] is None else f"{form['flops']:,.0f}",
            *(in_time(form["latency"][n]) if n in form["latency"] else "–" for n in ("1", "16")),
            "–" if form["metric"] is None else measure.text(form["metric"]),
        )
    return table


def _show_eight_bits(answer: Mapping[str, Any]) -> None:
    measure = Measure(**answer["measure"])
    values = ", ".join(f"{name} {measure.text(value)}" for name, value in answer["int8_validation"].items())
    said = (
        f"With eight bits a weight: {answer['int8_kind']}. On the validation split: {values}."
        if answer["int8"]
        else f"No file with eight bits a weight was written: in turns with the float file {answer['int8_why']}."
    )
    console().print(Text(said))


def _show_sparse(answer: Mapping[str, Any]) -> None:
    table = TerminalTable(
        (
            Column("layer", left=True),
            Column("density", drop=2),
            Column("dense", drop=1),
            Column("sparse", drop=1),
            Column("runs", left=True, least=16),
        )
    )
    for layer in answer["layers"]:
        seconds = [in_time(layer["seconds"][how]) if layer["seconds"] else "–" for how in ("dense", "sparse")]
        table.add(Text(layer["layer"]), f"{layer['density']:.1%}", *seconds, Text(layer["why"] or "sparse"))
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


def in_time(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{1000 * seconds:.3g} ms"
