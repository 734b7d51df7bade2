"""Training many networks of one architecture at once, each as if it trained alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.tickets import check_fits, parameters_of, put_values
from tombola.training.cost import Cost, SampleFlops
from tombola.training.ensemble.ensemble_loop import PerSample, evaluate_together, fit_together
from tombola.training.ensemble.member import Member, fingerprint_of
from tombola.training.ensemble.stack import Unbatched, common_setting, stacked, stacking_obstacle
from tombola.training.loop import Diverged, Fit, evaluate
from tombola.training.memory import reset_peak_memory, step_memory
from tombola.training.progress import bars
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe
from tombola.training.run import Run
from tombola.training.task import Task
from tombola.training.ticket_training import Trained, train

CACHE = 4 * 2**20
"""Bytes that a chunk's training steps may touch on the CPU: measured, not derived; more members leave the caches."""


MOST = 256
"""Networks in a chunk, beyond which calls are no longer what takes the time."""


@dataclass(frozen=True)
class FittedMember:
    """One member after its training: network, what it came to, where it diverged, metric and loss on the test split.

    validation: the metric on that split, where there was no training left that would have noted it.
    """

    model: nn.Module
    fit: Fit
    diverged: str = ""
    metric: float = math.nan
    loss: float = math.nan
    validation: float = math.nan


def train_together(
    task: Task, members: Sequence[Member], *, run: Run | None = None, chunk: int | None = None
) -> list[Trained]:
    """Train many networks of one architecture at once; what each came to, in order, as if it had trained alone.

    Members may differ in seeds, masks, starts, learning rates and schedules; each draws the batches of its own seed. A
    network whose loss stops being finite does not stop the others: its result says so. Where networks cannot be batched
    they train one after another, and the results say why. run: device, bars, meter, and the folder from which a killed
    training goes on. chunk: how many train at a time, as many as the caches hold if None. Seconds, energy and carbon of
    a result are its share of what all took.
    """
    if run is None:
        with bars() as shown:
            return train_together(task, members, run=Run(bars=shown), chunk=chunk)
    if chunk is not None and chunk < 1:
        raise TombolaError(f"chunk is {chunk}; give at least 1, or leave it out")
    results: dict[int, Trained] = {}
    with run.bars.track("networks", len(members)) as tick:
        for group in groups_alike([member.recipe_on(task) for member in members]):
            asked = 1 if len(group) == 1 else chunk
            size = asked or _chunk_size(task, [members[at] for at in group], run)
            why = ""
            for piece in pieces(group, size):
                own = [members[at] for at in piece]
                if len(own) > 1 and not why:
                    try:
                        fitted = fit_members(task, own, _part(task, own, run), "together", test=True)
                        done = [_trained(one, own[0].recipe_on(task).epochs) for one in fitted]
                    except Unbatched as error:
                        why = str(error)
                if len(own) == 1 or why:
                    done = [_alone(task, member, run, why) for member in own]
                results |= dict(zip(piece, done, strict=True))
                for one in done:
                    tick(f"{one.metric:.1%}")
    return [results[at] for at in range(len(members))]


def groups_alike(recipes: Sequence[Recipe]) -> list[list[int]]:
    """Which of these recipes can be trained by at once: all those that differ in the learning rate alone."""
    groups: dict[Recipe, list[int]] = {}
    for at, recipe in enumerate(recipes):
        groups.setdefault(common_setting(recipe), []).append(at)
    return list(groups.values())


def pieces(group: Sequence[int], size: int) -> list[Sequence[int]]:
    """A group in parts of at most `size`, as even as they come."""
    count = math.ceil(len(group) / size)
    ends = [len(group) * part // count for part in range(count + 1)]
    return [group[start:end] for start, end in pairwise(ends)]


def chunk_size(task: Task, member: Member, device: torch.device) -> int:
    """How many networks like this one train at a time: what the caches hold, on a GPU a quarter of what is free."""
    recipe, model = member.recipe_on(task), member.build(task).to(device)
    bytes_each = step_memory(task, model, next(iter(task.batches("train", member.seed, 0))), recipe)
    room = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else CACHE
    return min(max(2, room // max(bytes_each, 1)), MOST)


def fit_members(
    task: Task, members: Sequence[Member], run: Run, name: str, *, test: bool = False
) -> list[FittedMember]:
    """Train members whose recipes are alike as one chunk, the stage `name` of the run; test: measure them then.

    Raises Unbatched, saying why, where they cannot.
    """
    recipes = [member.recipe_on(task) for member in members]
    models = [member.build(task) for member in members]
    for member, model in zip(members, models, strict=True):
        parameters = parameters_of(model)
        check_fits(member.mask, parameters)
        if member.ticket is not None and member.ticket.removed:
            raise Unbatched("a ticket of whole units trains as a smaller network of its own")
        if member.ticket is not None and not parameters.keys() >= set(member.ticket.held):
            raise Unbatched("a ticket holds what is no parameter of its network")
    if why := stacking_obstacle(task, recipes[0], models[0], run.device):
        raise Unbatched(why)
    first = next(iter(task.batches("train", members[0].seed, 0)))
    with own_randomness(run.device, members[0].seed):
        flops, step_bytes = SampleFlops.measure(task, models[0], first), step_memory(task, models[0], first, recipes[0])
    stack = stacked(task, members, models, recipes, run.device)
    reset_peak_memory(run.device)
    end, going = run.file(f"{name}.end"), run.file(f"{name}.going")
    saved = end.load() if end is not None else None
    if saved is not None:
        stack.put(saved)
        fits, diverged = [Fit(tuple(h), Cost(**c), len(members)) for h, c in saved["fits"]], saved["diverged"]
    else:
        with run.reading() as reading:
            fits, diverged = fit_together(stack, PerSample(flops, step_bytes), going, run.bars, name)
        fits = [replace(fit, cost=reading.price(fit.cost)) for fit in fits]
        if end is not None and going is not None:
            saved = {"fits": [(list(fit.history), asdict(fit.cost)) for fit in fits], "diverged": diverged}
            end.save(stack.tensors() | saved)
            going.remove()
    nothing = [math.nan] * len(fits)
    metrics, losses, _ = evaluate_together(stack, "test") if test else (nothing, nothing, 0)
    over = stack.begin >= recipes[0].epochs * stack.feed.steps
    validations, _, validated = evaluate_together(stack, "validation") if test and over else (nothing, nothing, 0)
    for at, model in enumerate(models):
        put_values(model.to(run.device), stack.values_of(at))
    validations = validations if validated else nothing
    return [FittedMember(*own) for own in zip(models, fits, diverged, metrics, losses, validations, strict=True)]


def _trained(fitted: FittedMember, epochs: int) -> Trained:
    fit = fitted.fit
    validation = fitted.validation if fit.validation is None else fit.validation
    return Trained(
        fitted.model,
        fitted.metric,
        fitted.loss,
        validation,
        epochs,
        fit.history,
        fit.cost,
        together=fit.together,
        diverged=fitted.diverged,
    )


def _alone(task: Task, member: Member, run: Run, why: str) -> Trained:
    """One network trained by itself, in the one loop."""
    recipe, own = member.recipe_on(task), _part(task, [member], run)
    if member.ticket is not None and member.ticket.removed:
        ticket = replace(member.ticket, recipe={**member.ticket.recipe, **member.recipe})
        return replace(train(task, ticket, seed=member.seed, init_seed=member.init_seed, run=own), alone=why)
    model, fit, diverged = member.build(task).to(run.device), Fit((), Cost()), ""
    try:
        fit = own.stage("train", task, model, recipe=recipe, attached=member.attached)
    except Diverged as error:
        diverged = str(error)
    with own_randomness(run.device, member.seed):
        metric, loss, _ = evaluate(task, model, "test", recipe)
    validation = None if fit.history or diverged else own.validate(task, model, recipe)
    fitted = FittedMember(model, fit, diverged, metric, loss, math.nan if validation is None else validation)
    return replace(_trained(fitted, recipe.epochs), alone=why)


def _part(task: Task, members: Sequence[Member], run: Run) -> Run:
    """The part of a run that trains these, in a folder that is named by what they are."""
    return run.part("" if run.folder is None else f"together-{fingerprint_of(task, members)}", members[0].seed)


def _chunk_size(task: Task, members: Sequence[Member], run: Run) -> int:
    """How many of these train at a time: as many as when a killed call began with them, whatever memory is free now."""
    noted = _part(task, members, run).file("chunk")
    if noted is not None and (saved := noted.load()) is not None:
        return saved["size"]
    size = chunk_size(task, members[0], run.device)
    if noted is not None:
        noted.save({"size": size})
    return size
