"""What a paper says of how a study was made: data, recipe, methods with their settings, seeds and tests, for LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files

from tombola.evidence import Verdict, listed
from tombola.report.arms import GatheredArms
from tombola.report.prose import seeds_of_tickets
from tombola.report.ranking_tables import equal_cost_note
from tombola.report.shared_settings import flat, settings_of_arms, shared_settings_of
from tombola.report.training_length import too_brief
from tombola.studies import Study
from tombola.studies.latex import latex_text

ENTRY = re.compile(r"@\w+\{(\w+),\n.*?\n\}\n", re.DOTALL)
HIDDEN = re.compile(
    r"(^|\.)(is|source)$|prunable\.(types|include)$|channels_last$"
    r"|^(label|seed|init_seed|extra_epochs|forward|control|network\.|data$|robustness|threads|device)"
)
"""Settings that a paragraph leaves out: digests, what stands elsewhere, and conditions."""
NOTHING = re.compile(r"|None|\[\]|False|0(\.0)?(it|ep)?|[0-9a-f]{12,}")
"""Values that say nothing: what is not there or not done, and digests."""
USED = {
    "recipe.milestones": ("recipe.schedule", re.compile("multistep")),
    "recipe.gamma": ("recipe.schedule", re.compile("multistep")),
    "recipe.momentum": ("recipe.optimizer", re.compile("sgd")),
    "subject.schedule": ("subject.rounds", re.compile(r"(?!1$).*")),
}
"""By setting, on which other it hangs, and for which values of that it is used."""
OURS = re.compile(r"@\d+$|^torch\.nn\.(functional\.)?")
"""What a reader does not need of a name: its version here, and the module of torch."""
TESTED = ("holm1979simple", "schuirmann1987comparison")
LOOKED = ("kim1987design", "jennison1991exact", "jennison1989interim")
FUTILE = ("spiegelhalter1986monitoring",)


def methods_paragraph(study: Study, gathered: GatheredArms, cited: Mapping[str, str]) -> str:
    """What was done: data, network, recipe, methods with their settings, seeds and tests.

    Args:
        study: what was measured.
        gathered: its arms.
        cited: the BibTeX entry of each method that has one.
    """
    names = [latex_text(own) + (_cite(key_of(cited[own])) if own in cited else "") for own in gathered.methods]
    densities = listed(f"{100 * density:.4g}\\,\\%" for density in gathered.densities)
    shared = shared_settings_of(study.results)
    labels = {key: value for key, value in study.task.items() if not key.startswith("recipe.")}
    task = listed(f"{latex_text(key)} {latex_text(value)}" for key, value in labels.items())
    count, seeds = seeds_of_tickets(gathered), ", ".join(map(str, gathered.seeds))
    over = f"{count} for each method and density, from {seeds}" if " to " in count else f"{count} ({seeds})"
    all_trained = _settings(_told(shared, shared))
    said = [
        f"We compare {listed(names)} at {'densities' if len(gathered.densities) > 1 else 'density'} {densities}"
        f"{f' ({task})' if task else ''}, over {over}.",
        f"All networks are trained with {all_trained}." if all_trained else "",
        *_settings_of_methods(gathered, shared),
        *([_verdicts(study.verdicts[0])] if study.verdicts else []),
        *([_rankings(study)] if study.rankings else []),
        latex_text(too_brief(gathered)),
    ]
    return "\n".join(filter(None, said)) + f"\nMade with Tombola {version('tombola')}.\n"


def references_of_tests(study: Study) -> list[str]:
    """The BibTeX entries of the tests that the paragraph names."""
    looked = any(own.most for own in study.verdicts)
    asked = (*(TESTED if study.rankings else ()), *((*LOOKED, *FUTILE) if looked else ()))
    text = files("tombola.report").joinpath("statistics.bib").read_text(encoding="utf-8")
    known = {match[1]: match[0] for match in ENTRY.finditer(text)}
    return [known[key] for key in asked]


def key_of(entry: str) -> str:
    """The key by which a BibTeX entry is cited."""
    match = ENTRY.match(entry)
    return match[1] if match else ""


def _verdicts(verdict: Verdict) -> str:
    controls = listed(latex_text(own.against) for own in verdict.controls)
    looks = (
        f" We looked after each seed from the third up to {verdict.most}, with boundaries that keep this error over "
        f"all looks (a group-sequential $t$ test{_cite(*LOOKED)}), and stopped where more seeds would hardly decide "
        f"(predictive power{_cite(*FUTILE)})."
        if verdict.most
        else ""
    )
    return (
        f"A ticket wins if it is not worse than the dense network by as much as "
        f"{latex_text(verdict.measure.limit(verdict.margin))} (non-inferiority, at 5\\,\\%) and better than "
        f"{controls} (each at 2.5\\,\\%), by paired $t$ tests over seeds.{looks} The test split is read once, after "
        "training."
    )


def _rankings(study: Study) -> str:
    holm, equivalence = TESTED
    said = (
        "Methods are compared with each other by a paired $t$ test of each pair, over the seeds that both have, with "
        f"Holm's correction for the number of pairs{_cite(holm)}; those that share a letter were not told apart. Two "
        f"are called equivalent by two one-sided tests{_cite(equivalence)}."
    )
    return " ".join(filter(None, [said, latex_text(equal_cost_note(study.rankings))]))


def _cite(*keys: str) -> str:
    return f"~\\cite{{{','.join(keys)}}}"


def _settings_of_methods(gathered: GatheredArms, shared: Mapping[str, str]) -> list[str]:
    said = []
    for method in gathered.methods:
        results = [result for arm in gathered.tickets(method) for result in arm.results]
        if own := _told(settings_of_arms(results, shared), shared_settings_of(results)):
            said.append(f"{latex_text(method)}: {_settings(own)}.")
    return said


def _told(settings: Mapping[str, str], whole: Mapping[str, str]) -> dict[str, str]:
    """The settings that say something to a reader, without the parts of their names that say where they stand.

    Args:
        settings: by dotted name.
        whole: these and all others of the same runs.
    """
    return {
        key.removeprefix("subject.").removeprefix("recipe.").replace("_", " "): OURS.sub("", value)
        for key, value in settings.items()
        if not HIDDEN.search(key) and not key.startswith("task.") and not NOTHING.fullmatch(value) and _used(key, whole)
    }


def _used(key: str, whole: Mapping[str, str]) -> bool:
    other, used = USED.get(key, ("", re.compile("")))
    return other not in whole or used.fullmatch(whole[other]) is not None


def _settings(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{latex_text(key)} {latex_text(value)}" for key, value in flat(settings).items())
