"""The two dense networks between which a ticket is transferred: from where they train, and the ticket with them."""

from __future__ import annotations

from torch import nn

from tombola.connectivity.matching import check_alike
from tombola.errors import TombolaError
from tombola.tickets import Seed, Ticket, Values, digest_of, tensors_of
from tombola.training import Cost, Member, Run, Snapshot, Step, Task, fingerprint, start_of
from tombola.training.ensemble.member import fingerprint_of

BEGINNING = ("init", "given", "0it", "0ep")
"""What values are called that no training went into."""


def own_seed_of(ticket: Ticket, source: nn.Module | None) -> int | None:
    """The seed of the dense network that the mask is of."""
    seed = ticket.provenance.seed
    if seed is None and isinstance(ticket.start, Seed):
        seed = ticket.start.seed
    if seed is None and source is None:
        raise TombolaError(
            "the ticket does not say from which seed its network was built; give source=, the trained dense network "
            "that it was found on"
        )
    return seed


def check_moves(ticket: Ticket, to: int | nn.Module) -> None:
    if isinstance(to, bool) or not isinstance(to, int | nn.Module) or (isinstance(to, int) and to < 0):
        raise TombolaError(f"to is {to!r}; give the seed of another initialisation, as 1, or a network")
    start = ticket.start
    if isinstance(start, Seed):
        return
    if start.what == "end" and "start" in ticket.recipe:
        raise TombolaError(
            "the ticket is a network that its method has trained to the end, so that nothing would train it on the "
            "other initialisation; transfer one that trains, as with end='init' or of `imp`"
        )
    if start.what not in ("end", *BEGINNING):
        try:
            Step.parse(start.what)
        except TombolaError as error:
            raise TombolaError(
                f"the ticket starts from values that its method made for its own network ('{start.what}'), and no "
                "training of another network leads to such; transfer a ticket that starts from an initialisation or a "
                "step of the dense training"
            ) from error


def own_network(task: Task, ticket: Ticket, seed: int | None) -> nn.Module:
    """The network at the ticket's own initialisation."""
    start = ticket.start
    if isinstance(start, Seed) and start.seed == seed:
        return start_of(task, ticket, start.seed)
    start_of(task, ticket, 0 if seed is None else seed)  # says whether the ticket fits
    return task.build(0 if seed is None else seed)


def other_network(task: Task, ticket: Ticket, to: int | nn.Module) -> nn.Module:
    """The network at the other initialisation; what a ticket replaces its weights by is drawn there too."""
    start = ticket.start
    if isinstance(to, int):
        model = task.build(to)
        if isinstance(start, Seed):
            Seed.of(model, to, start.weights, ticket.mask, ticket.held)
        return model
    if isinstance(start, Seed) and start.weights != "own":
        raise TombolaError(f"the ticket starts from {start.weights} weights, which are drawn from a seed; give to=1")
    model = task.build(0)
    check_alike(to, model)
    model.load_state_dict(to.state_dict())
    return model


def start_there(ticket: Ticket, to: int | nn.Module, second: nn.Module) -> Seed | Values | None:
    """From what the ticket trains there; None if that is a point of the dense training."""
    start = ticket.start
    if isinstance(start, Seed):
        if isinstance(to, int):
            return Seed(to, digest_of(tensors_of(second)), start.weights)
        return Values(tensors_of(second), "given")
    return Values(tensors_of(second), start.what) if start.what in BEGINNING else None


def point_of(ticket: Ticket) -> str:
    """The point of the dense training from which the ticket trains: a step, "end", or nothing for its beginning."""
    start = ticket.start
    return "" if isinstance(start, Seed) or start.what in BEGINNING else start.what


def train_dense(task: Task, model: nn.Module, seed: int, point: str, run: Run) -> tuple[nn.Module, Values, Cost]:
    """The dense network trained from these values, and the values at a point of that training."""
    settings = [fingerprint_of(task, [Member(seed)]), digest_of(tensors_of(model)), seed, point]
    part = run.part(f"dense-{fingerprint(settings)}", seed)
    snapshots = [Snapshot(Step.parse(point))] if point not in ("", "end") else []
    model.to(run.device)
    fit = part.stage("dense", task, model, observers=snapshots)
    if snapshots:
        return model, Values(snapshots[0].taken, point, snapshots[0].epochs_spent), fit.cost
    return model, Values(tensors_of(model), "end", task.recipe.epochs), fit.cost
