"""The page of a ticket or a smaller network on the Hub: what it is, where it came from, what it measures, by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tombola.files import printable_text
from tombola.tickets import Ticket

ABOUT_TICKETS = (
    "A *ticket* is a part of a network's weights, with the values from which it trains. It *wins* if it trains to the "
    "accuracy of the whole network and beats its controls."
)

MADE = "Made with [Tombola](https://pypi.org/project/tombola/)."


@dataclass(frozen=True)
class Signed:
    """What whoever pushes something says of it.

    Args:
        licence: the licence's identifier, as `apache-2.0`; empty if none is given.
        author: who made it; empty if nobody is named.
        verdict: sentences of a check, if there was one.
    """

    licence: str = ""
    author: str = ""
    verdict: Sequence[str] = ()


def card_of_ticket(ticket: Ticket, repo: str, signed: Signed) -> str:
    """The page of a ticket, as Markdown with the Hub's YAML before it.

    Args:
        ticket: the ticket.
        repo: its name on the Hub, as `user/name`.
        signed: what is said of it.
    """
    whence = ticket.provenance
    facts = {
        "kept weights": f"{ticket.mask.total_kept:,} of {ticket.mask.size:,} ({ticket.density:.4g})",
        "fingerprint": ticket.digest,
    }
    body = [ABOUT_TICKETS, _table(facts), *_provenance(vars(whence)), *_judged(signed.verdict)]
    body += ["## How to use it", _code(f"tombola pull {repo} --out ticket\ntombola check ticket/ticket.safetensors")]
    return _card(repo, "ticket", "tombola", signed, body)


def card_of_small(facts: Mapping[str, Any], repo: str, code: str, kind: str, signed: Signed) -> str:
    """The page of a smaller network.

    Args:
        facts: what its `network.json` says.
        repo: its name on the Hub, as `user/name`.
        code: the line of Python that opens it, once it is there.
        kind: `transformers` if its own loader opens it, else `tombola`.
        signed: what is said of it.
    """
    body = ["A network from which channels, heads, neurons or blocks were cut out, and which was trained again."]
    body += _forms(facts.get("forms"), facts)
    whence = facts.get("provenance")
    body += _provenance(whence if isinstance(whence, Mapping) else {"task": facts.get("task", {})})
    body += _judged(signed.verdict)
    open_it = [code] if kind == "transformers" else [f"# tombola pull {repo} --out small", code]
    body += ["## How to open it", _code("\n".join(open_it))]
    return _card(repo, "smaller network", kind, signed, body)


def _card(repo: str, what: str, library: str, signed: Signed, body: Sequence[str]) -> str:
    from huggingface_hub import ModelCardData

    data: dict[str, Any] = {"library_name": library, "tags": ["tombola", "pruning", "lottery-ticket"]}
    if signed.licence:
        data["license"] = signed.licence
    own = [f"By {_plain(signed.author)}."] if signed.author else []
    unsaid = "No licence was given: all rights are reserved."
    licence = f"Licence: {_plain(signed.licence)}." if signed.licence else unsaid
    text = [f"# {_plain(repo)}: a {what}", *body, "## Author and licence", " ".join([*own, licence, MADE])]
    return f"---\n{ModelCardData(**data).to_yaml()}\n---\n\n" + "\n\n".join(text) + "\n"


def _provenance(whence: Mapping[str, Any]) -> list[str]:
    rows: dict[str, str] = {}
    for key in ("method", "seed", "version"):
        if whence.get(key) not in (None, ""):
            rows[key] = str(whence[key])
    for key in ("task", "settings"):
        own = whence.get(key)
        simple = own.items() if isinstance(own, Mapping) else ()
        rows |= {f"{key}: {n}": str(v) for n, v in simple if isinstance(v, str | int | float) and n != "is"}
    return ["## Where it came from", _table(rows)] if rows else []


def _judged(verdict: Sequence[str]) -> list[str]:
    if not verdict:
        return ["## Does the ticket win?", "It was not checked against its controls."]
    return ["## Does the ticket win?", *map(_plain, verdict)]


def _forms(forms: Any, facts: Mapping[str, Any]) -> list[str]:
    """A table of what was measured."""
    if not isinstance(forms, list) or not all(isinstance(form, Mapping) for form in forms):
        sizes = {name: facts.get(name) for name in ("whole", "small")}
        rows = {
            f"{name}: {key}": f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
            for name, own in sizes.items()
            if isinstance(own, Mapping)
            for key, value in own.items()
            if isinstance(value, int | float)
        }
        return [_table(rows)] if rows else []
    measure = facts.get("measure")
    is_share = not isinstance(measure, Mapping) or measure.get("share") is True
    lines = [
        "| form | parameters | bytes | FLOPs a sample | 1 sample | 16 samples | on the test split |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for form in forms:
        latency = form.get("latency")
        times = latency if isinstance(latency, Mapping) else {}
        cells = [_cell(form.get("name")), *(_number(form.get(key)) for key in ("parameters", "bytes", "flops"))]
        cells += [f"{1000 * own:.3g} ms" if isinstance(own := times.get(n), int | float) else "–" for n in ("1", "16")]
        metric = form.get("metric")
        cells.append((f"{metric:.2%}" if is_share else f"{metric:.4g}") if isinstance(metric, int | float) else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return ["## What it measures", "\n".join(lines), "Latency is of one call, on the processor that made the network."]


def _table(rows: Mapping[str, str]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _number(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else "–"


def _cell(value: Any) -> str:
    """A text as it is in a table's cell, where no markup is read."""
    text = printable_text(str(value)).replace("`", "'").replace("|", "/")
    return f"`{text}`" if text else ""


def _plain(text: str) -> str:
    """A text in which no markup is read."""
    signs = dict.fromkeys(map(ord, "\\`*_[]<>#|!"), None)
    return printable_text(text).translate({sign: f"\\{chr(sign)}" for sign in signs})


def _code(text: str) -> str:
    return "\n".join(["```", *map(printable_text, text.splitlines()), "```"])
