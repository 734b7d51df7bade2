"""Controls that search anew: with the ticket's method on other data, or at weights that are trained already."""

from __future__ import annotations

from dataclasses import replace

from tombola.evidence.arms import Against, Arm, catching_up
from tombola.evidence.other_data import AlteredData, FromWeights, HalfData, RandomImages, RandomLabels, classes_of
from tombola.methods import Method, OneShot, find
from tombola.scores import SynFlow
from tombola.tickets import Ticket, Values
from tombola.training import Run, Snapshot, State, Step, Task, mixed


def corrupted_labels(against: Against) -> Arm:
    """What the method finds where training labels are drawn at random; trained on the true ones."""
    return _on_other_data(against, _altered(against, RandomLabels), "corrupted-labels")


def corrupted_pixels(against: Against) -> Arm:
    """As corrupted-labels, with all values of each training image in an order of its own (Su et al., NeurIPS 2020)."""
    return _on_other_data(against, _altered(against, RandomImages), "corrupted-pixels")


def half_data(against: Against) -> Arm:
    """What the method finds on the first half of the training data; trained on all of it."""
    return _on_other_data(against, HalfData(against.task), "half-data")


def later(against: Against, step: str = "1ep") -> Arm:
    """Scored, cut and trained on from a step of dense training, in as many epochs (Frankle et al., ICLR 2021)."""
    task, run = against.task, _run(against)
    model, reached = task.build(against.seed).to(run.device), _Reaching(Step.parse(step))
    run.stage("dense", task, model, observers=[reached])
    found = _found(against, FromWeights(task, reached.taken), "later", run)
    start = Values(reached.taken, step, reached.epochs_spent)
    return Arm(task, replace(found, start=start, recipe={**found.recipe, "start": step}))


def reads_data(own: Method | None) -> bool:
    """Whether a search reads inputs or targets; SynFlow wants to know an input's shape and no more."""
    if not isinstance(own, OneShot):
        return True
    return getattr(own.score, "needs_data", True) and not isinstance(own.score, SynFlow)


class _Reaching(Snapshot):
    """A snapshot with which training ends, after the epoch that it falls in."""

    def epoch_end(self, state: State) -> bool:
        return state.step >= self.at.iterations(state.steps_per_epoch)


def _on_other_data(against: Against, other: Task, name: str) -> Arm:
    """What the method finds on a task with other data, trained on the ticket's own for no less than the ticket is."""
    found = _found(against, other, name, _run(against))
    return Arm(against.task, found, catching_up(found, against))


def _found(against: Against, other: Task, name: str, run: Run) -> Ticket:
    """What the method finds on another task; the provenance says that it was for this control."""
    assert against.method is not None
    found = find(other, against.method, run=run)
    settings = {**found.provenance.settings, "control": name}
    return replace(found, provenance=replace(found.provenance, settings=settings))


def _altered(against: Against, alter: type[RandomLabels]) -> AlteredData:
    return AlteredData(against.task, alter(classes_of(against.task, against.seed)), mixed(against.seed, 16))


def _run(against: Against) -> Run:
    return against.run or Run(against.seed)
