"""Controls that search anew: with the ticket's method on other data, or at weights that are already trained."""

from __future__ import annotations

from dataclasses import replace

from tombola.evidence.arms import Against, Arm, catching_up
from tombola.evidence.other_data import AlteredData, FromWeights, HalfData, RandomImages, RandomLabels, classes_of
from tombola.methods import Method, OneShot, find
from tombola.scores import SynFlow
from tombola.tickets import Ticket, Values
from tombola.training import Run, Snapshot, State, Step, Task, mixed


def corrupted_labels(against: Against) -> Arm:
    """What the method finds on random training labels, trained on the true ones (Su et al., NeurIPS 2020)."""
    return _on_other_data(against, _with_altered_data(against, RandomLabels), "corrupted-labels")


def corrupted_pixels(against: Against) -> Arm:
    """As corrupted-labels, with the values of each training image in an order of its own (Su et al., NeurIPS 2020)."""
    return _on_other_data(against, _with_altered_data(against, RandomImages), "corrupted-pixels")


def half_data(against: Against) -> Arm:
    """What the method finds on the first half of the training data, trained on all of it."""
    return _on_other_data(against, HalfData(against.task), "half-data")


def later(against: Against, step: str = "1ep") -> Arm:
    """What the method finds at a step of dense training, trained on from that step (Frankle et al., ICLR 2021)."""
    task, run = against.task, _run(against)
    model, snapshot = task.build(against.seed).to(run.device), _Reaching(Step.parse(step))
    run.stage("dense", task, model, observers=[snapshot])
    ticket = _search(against, FromWeights(task, snapshot.taken), "later", run)
    start = Values(snapshot.taken, step, snapshot.epochs_spent)
    return Arm(task, replace(ticket, start=start, recipe={**ticket.recipe, "start": step}))


def reads_data(method: Method | None) -> bool:
    """Whether the search of a method depends on the values of the training data.

    SynFlow says that it needs data, and uses only the shape of an input.

    Examples:
        >>> from tombola.scores import Snip
        >>> reads_data(OneShot(score=Snip())), reads_data(OneShot(score=SynFlow()))
        (True, False)
    """
    if not isinstance(method, OneShot):
        return True
    return getattr(method.score, "needs_data", True) and not isinstance(method.score, SynFlow)


class _Reaching(Snapshot):
    """A snapshot that ends training after the epoch that it falls in."""

    def epoch_end(self, state: State) -> bool:
        return state.step >= self.at.iterations(state.steps_per_epoch)


def _on_other_data(against: Against, other: Task, name: str) -> Arm:
    """What the method finds on other data, trained on the ticket's own data for at least as long as the ticket."""
    ticket = _search(against, other, name, _run(against))
    return Arm(against.task, ticket, catching_up(ticket, against))


def _search(against: Against, other: Task, name: str, run: Run) -> Ticket:
    """What the method finds on another task; the provenance says that it was for this control."""
    assert against.method is not None
    ticket = find(other, against.method, run=run)
    settings = {**ticket.provenance.settings, "control": name}
    return replace(ticket, provenance=replace(ticket.provenance, settings=settings))


def _with_altered_data(against: Against, alter: type[RandomLabels]) -> AlteredData:
    return AlteredData(against.task, alter(classes_of(against.task, against.seed)), mixed(against.seed, 16))


def _run(against: Against) -> Run:
    return against.run or Run(against.seed)
