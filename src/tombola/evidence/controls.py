"""Controls: the same training from a mask or weights that should not win."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError, unknown
from tombola.evidence.arms import Against, Arm, budget_gap, catching_up, control_kind
from tombola.evidence.searched_anew import reads_data
from tombola.methods import Method, OneShot, find, granularity_used, method
from tombola.registry import CONTROLS
from tombola.scores import Batches, Loss, Score, Scores, needs_training
from tombola.shrinking import smaller
from tombola.structure import Prunable, UnitMap, Weights
from tombola.tickets import Mask, Scope, Seed, Ticket, Values, parameters_of, tensors_of
from tombola.training import Run, identity, mixed, share_of_work, start_of


@dataclass(frozen=True)
class Inverted:
    """A score with its order reversed: what the score would keep first is removed first.

    Args:
        score: the score; one that gathers while the network trains still does.

    Examples:
        >>> import torch
        >>> from tombola.scores import Magnitude
        >>> scores = Inverted(Magnitude())(torch.nn.Linear(2, 1))
        >>> bool((scores["weight"] <= 0).all())
        True
    """

    score: Score

    name: ClassVar[str] = "inverted"

    @property
    def kind(self) -> str:
        return getattr(self.score, "kind", "weight")

    @property
    def needs_data(self) -> bool:
        return self.score.needs_data

    @property
    def needs_training(self) -> bool:
        return needs_training(self.score)

    def __call__(self, model, batches: Batches = (), loss: Loss | None = None, **view) -> Scores:
        return _negated(self.score(model, batches, loss, **view))

    def note(self, gathered: Tensor, gradient: Tensor, weight: Tensor) -> None:
        assert needs_training(self.score)
        self.score.note(gathered, gradient, weight)

    def from_gathered(self, model: nn.Module, gathered: Mapping[str, Tensor], **view) -> Scores:
        assert needs_training(self.score)
        return _negated(self.score.from_gathered(model, gathered, **view))


def shuffle(against: Against) -> Arm:
    """The mask shuffled within each layer, in whole units where the ticket removed such; all else stays."""
    return Arm(against.task, _shuffled(against, 11))  # each control has a salt of its own, so that none repeats another


def fresh_init(against: Against) -> Arm:
    """The same mask on weights drawn anew from the same distribution (Frankle & Carbin, ICLR 2019).

    A pretrained network's weights change places within each layer instead, kept and removed ones.
    """
    return _from_init(against, against.ticket, mixed(against.seed, 12))


def weight_shuffle(against: Against) -> Arm:
    """The same mask on the same start, with the kept weights of each layer in another order."""
    ticket = against.ticket
    tensors = tensors_of(start_of(against.task, ticket, against.seed))
    generator = torch.Generator().manual_seed(mixed(against.seed, 15))
    for name, kept in ticket.mask.items():
        if kept.ndim > 1:  # biases and norms stay where they are
            weights = tensors[name].clone()
            order = torch.randperm(ticket.mask.kept(name), generator=generator)
            weights[kept] = weights[kept][order]
            tensors[name] = weights
    start = ticket.start
    what, spent = (start.what, start.epochs_spent) if isinstance(start, Values) else ("init", 0.0)
    return Arm(against.task, replace(ticket, start=Values(tensors, what, spent)))


def random(against: Against) -> Arm:
    """A random mask with the same layer counts on weights drawn anew: a ticket that nobody searched for."""
    return _from_init(against, _shuffled(against, 13), mixed(against.seed, 14))


def inverted(against: Against) -> Arm:
    """The lowest-scored weights or units, with the same layer counts; for scores of the untrained network."""
    method = against.method
    assert isinstance(method, OneShot)
    scope: Scope = method.scope
    # The ticket's density in each layer is asked for, so that only the order differs and not the layers' shares.
    if method.granularity == Weights():
        mask = against.ticket.mask
        scope = {name: count / mask.bits[name].size for name, count in mask.counts.items()}
    elif against.ticket.removed:
        kept = _units(against).kept(against.ticket.removed)
        scope = {name: count / kept.bits[name].size for name, count in kept.counts.items()}
    reverse = replace(method, score=Inverted(method.score), scope=scope, rounds=1)
    lowest = find(against.task, reverse, seed=against.seed, progress=False)
    return Arm(against.task, replace(against.ticket, mask=lowest.mask, removed=lowest.removed))


def erk(against: Against) -> Arm:
    """A random mask with ERK layer densities at the same density (Evci et al., ICML 2020)."""
    return _at_init(against, "erk")


def smart_ratio(against: Against) -> Arm:
    """A random mask with smart-ratio layer densities at the same density (Su et al., NeurIPS 2020)."""
    return _at_init(against, "smart-ratio")


def magnitude_init(against: Against) -> Arm:
    """The largest initial weights at the same density."""
    return _at_init(against, "magnitude-init")


def narrow_dense(against: Against) -> Arm:
    """A dense network of about as many prunable weights, where the task can build one."""
    build = getattr(against.task, "narrow", None)
    if build is None:
        raise TombolaError("the control 'narrow' needs a task with narrow(width); leave it out")
    low, high = 0.0, 1.0  # bisection: `high` is always a width with at least as many weights
    for _ in range(12):
        width = (low + high) / 2
        size = sum(p.numel() for p in Prunable()(build(width).build(against.seed)).values())
        low, high = (low, width) if size > against.ticket.mask.total_kept else (width, high)
    return Arm(build(high), None, budget_gap(against.ticket, against.task))


def scratch_e(against: Against) -> Arm:
    """The ticket's smaller network on weights drawn anew, for the epochs of the recipe (Liu et al., ICLR 2019)."""
    if not against.ticket.removed:
        raise TombolaError("the scratch controls need a ticket of whole units, which trains smaller; leave them out")
    return replace(fresh_init(against), extra_epochs=0.0)


def scratch_b(against: Against) -> Arm:
    """As scratch-e, for as many epochs as cost the FLOPs of the dense network's training."""
    task, ticket = against.task, against.ticket
    for_recipe, model = scratch_e(against), task.build(against.seed)
    small, _ = smaller(model, ticket, Run(against.seed).probe(task))
    share = share_of_work(task, small, model, against.seed)
    return replace(for_recipe, extra_epochs=task.recipe.epochs * (1 / share - 1))


def dense(against: Against) -> Arm:
    """The whole network, trained for as long as ticket and start together."""
    return Arm(against.task, None, budget_gap(against.ticket, against.task))


def control(name: str, against: Against) -> Arm:
    """The arm that a control trains.

    Args:
        name: a control of the registry; `later@500it` is `later` at that step.
        against: the ticket that the control stands against.

    Returns:
        The arm; a control that searches anew does so here.

    Raises:
        TombolaError: if there is no such control, or it cannot be made of this ticket.

    Examples:
        >>> from tombola.methods import OneShot, find
        >>> from tombola.testing import toy_task
        >>> task = toy_task(epochs=1)
        >>> ticket = find(task, OneShot(density=0.1), seed=0, progress=False)
        >>> shuffled = control("shuffle", Against(task, ticket, seed=0)).ticket
        >>> shuffled.mask.counts == ticket.mask.counts, shuffled.mask == ticket.mask
        (True, False)
    """
    kind, _, step = name.partition("@")
    if step and kind != "later":
        raise unknown("control", name, CONTROLS)
    make = CONTROLS[kind]
    if why := control_obstacle(name, against.method):
        raise TombolaError(f"the control '{name}' {why}; leave it out")
    return make(against, step) if step else make(against)


def control_identity(name: str) -> Any:
    """What a control is, as JSON; a name that is no control, as the empty one, stands for itself.

    Examples:
        >>> control_identity("shuffle"), control_identity("later@1ep")["at"], control_identity("")
        ('shuffle@1', '1ep', '')
    """
    kind, _, step = name.partition("@")
    if kind not in CONTROLS:
        return name
    described = identity(CONTROLS[kind])
    return {"is": described, "at": step} if step else described


def control_obstacle(name: str, method: Method | None) -> str:
    """Why a control cannot be made of a method's tickets.

    Args:
        name: a control of the registry.
        method: the method that found the tickets; None if it is not known.

    Returns:
        A clause to follow the control's name; "" where nothing stands in the way.

    Examples:
        >>> from tombola.methods import Iterative
        >>> control_obstacle("inverted", Iterative())
        'needs scores of the untrained network, which this method does not use'
    """
    needs = CONTROLS.entry(control_kind(name)).needs
    if needs == "scores" and not isinstance(method, OneShot):
        return "needs scores of the untrained network, which this method does not use"
    if needs == "data" and method is None:
        return "searches anew, with a method that the ticket's file does not hold"
    if needs == "data" and not reads_data(method):
        return "changes the data of the search, and this one reads no data"
    return ""


def _negated(scores: Scores) -> Scores:
    return {name: -score for name, score in scores.items()}


def _from_init(against: Against, ticket: Ticket, seed: int) -> Arm:
    """An arm on an initialisation of the ticket's kind; what was prescribed for trained weights does not apply.

    Pretrained weights, which each seed gives, are drawn anew by changing places within each layer.
    """
    weights = ticket.start.weights if isinstance(ticket.start, Seed) else "own"
    model = against.task.build(seed)
    start: Seed | Values = Seed.of(model, seed, weights, ticket.mask, ticket.held)
    if weights == "own" and seed != against.seed and (shuffled := _pretrained_shuffled(against, model, seed)):
        start = Values(tensors_of(model) | shuffled, "init")
    begun_anew = replace(ticket, start=start, recipe=_recipe_from_init(ticket))
    return Arm(against.task, begun_anew, catching_up(begun_anew, against))


def _pretrained_shuffled(against: Against, model: nn.Module, seed: int) -> dict[str, Tensor]:
    """The weights that do not depend on the seed, each in another order; none of a network that is drawn by it."""
    own, generator = parameters_of(against.task.build(against.seed)), torch.Generator().manual_seed(mixed(seed, 16))
    shuffled = {}
    for name, parameter in parameters_of(model).items():
        values = parameter.detach()
        if values.ndim > 1 and torch.equal(values, own[name].detach()) and values.min() < values.max():
            order = torch.randperm(values.numel(), generator=generator)
            shuffled[name] = values.flatten()[order].reshape(values.shape)
    return shuffled


def _at_init(against: Against, name: str) -> Arm:
    """A mask found by another method on the parameters that the ticket prunes; the training is the ticket's."""
    mask, weights = against.ticket.mask, set(Prunable()(against.task.build(against.seed)))
    if against.ticket.removed:  # whole units take biases and norms along, which the other methods do not prune
        mask = Mask({name: bits for name, bits in mask.bits.items() if name in weights})
    other = method(name, density=mask.density)
    if set(mask) != weights:
        other = method(name, density=mask.density, prunable=Prunable(include=tuple(mask), types=(nn.Module,)))
    ticket = find(against.task, other, seed=against.seed, progress=False)
    return _from_init(against, replace(against.ticket, mask=ticket.mask, removed={}), against.seed)


def _shuffled(against: Against, salt: int) -> Ticket:
    """The ticket with its mask shuffled within each layer; a ticket of whole units has these shuffled."""
    ticket, seed = against.ticket, mixed(against.seed, salt)
    if not ticket.removed:
        return replace(ticket, mask=ticket.mask.shuffled(seed))
    units = _units(against)
    kept = units.kept(ticket.removed).shuffled(seed)
    parameters = tensors_of(against.task.build(against.seed))
    return replace(ticket, mask=units.expand(kept, parameters), removed=units.removed(kept))


def _units(against: Against) -> UnitMap:
    """The units of the ticket's granularity, in the task's network."""
    method, settings = against.method, against.ticket.provenance.settings
    granularity = method.granularity if method else granularity_used(settings)
    if granularity is None:
        raise TombolaError("the ticket does not say what its units are; check its method instead of the ticket")
    return granularity.units(against.task.build(against.seed), Run(against.seed).probe(against.task))


def _recipe_from_init(ticket: Ticket) -> Mapping[str, Any]:
    return ticket.recipe if isinstance(ticket.start, Seed) else {}
