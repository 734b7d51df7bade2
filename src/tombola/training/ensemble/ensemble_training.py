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
from tombola.training.devices import agreed_device
from tombola.training.divergence import Diverged
from tombola.training.ensemble.ensemble_loop import PerSample, evaluate_together, fit_together
from tombola.training.ensemble.member import Member, fingerprint_of
from tombola.training.ensemble.stack import Unbatched, common_setting, stacked, stacking_obstacle
from tombola.training.evaluation import evaluate
from tombola.training.first_batch import check_first_batch
from tombola.training.loaders import first_of
from tombola.training.loop import Fit
from tombola.training.memory import reset_peak_memory, step_memory
from tombola.training.metric_values import metric_text
from tombola.training.progress import bars
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe
from tombola.training.run import Run
from tombola.training.task import Task, metric_of
from tombola.training.ticket_training import Trained, train

CACHE = 4 * 2**20
"""Bytes that a chunk's training steps may touch on the CPU. Measured: with more members they leave the caches."""
MOST = 256
"""Networks in a chunk. With more, the calls are no longer what takes the time."""


@dataclass(frozen=True)
class FittedMember:
    """One member after its training.

    Args:
        model: its network.
        fit: history and cost.
        diverged: the sentence on where its loss stopped being finite, if it did.
        metric: on the test split; NaN if that was not asked for.
        loss: on the test split; NaN if that was not asked for.
        validation: the metric on the validation split, if no epoch was left to train that would have noted it.
    """

    model: nn.Module
    fit: Fit
    diverged: str = ""
    metric: float = math.nan
    loss: float = math.nan
    validation: float = math.nan


def train_together(
    task: Task,
    members: Sequence[Member],
    *,
    device: torch.device | str = "auto",
    run: Run | None = None,
    chunk: int | None = None,
) -> list[Trained]:
    """Train many networks of one architecture at once, each as if it trained alone.

    Members may differ in seeds, masks, starts, learning rates and schedules; each draws the batches of its own seed. A
    network whose loss stops being finite does not stop the others: its result says so. Networks that cannot be batched
    train one after another, and their results say why.

    Args:
        task: gives network, data, loss, metric and recipe.
        members: the networks, each as `train` would be asked for it.
        device: where they train: the run's, or without a run CUDA if there is one, else the CPU; or one of your choice.
        run: device, bars, meter, and the folder from which a killed training goes on; in memory if None.
        chunk: how many train at a time; as many as the caches hold if None.

    Returns:
        One result a member, in order. Its seconds, energy and carbon are its share of what the chunk took.

    Raises:
        TombolaError: if `chunk` is less than 1, if `device` is not the run's or is not there, or if a member's mask or
            recipe does not fit the task.

    Examples:
        >>> from tombola.testing import toy_task
        >>> task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))  # no dropout: it cannot be batched
        >>> results = train_together(task, [Member(seed=0), Member(seed=1, recipe={"lr": 0.1})])
        >>> [result.together for result in results]
        [2, 2]
    """
    device = agreed_device(device, None if run is None else run.device)
    if run is None:
        with bars() as shown:
            return train_together(task, members, run=Run(device=device, bars=shown), chunk=chunk)
    if chunk is not None and chunk < 1:
        raise TombolaError(f"chunk is {chunk}; give at least 1, or leave it out")
    check_first_batch(task, members[0].seed if members else 0, run.device)
    results: dict[int, Trained] = {}
    with run.bars.track("networks", len(members)) as tick:
        for group in groups_alike([member.recipe_on(task) for member in members]):
            given_size = 1 if len(group) == 1 else chunk
            size = given_size or _chunk_size(task, [members[at] for at in group], run)
            why = ""  # once a chunk cannot be batched, the rest of its group is not tried
            for piece in pieces(group, size):
                chunk_members = [members[at] for at in piece]
                if len(chunk_members) > 1 and not why:
                    try:
                        part = _part(task, chunk_members, run)
                        fitted = fit_members(task, chunk_members, part, "together", test=True)
                        trained = [_trained(member, chunk_members[0].recipe_on(task).epochs) for member in fitted]
                    except Unbatched as error:
                        why = str(error)
                if len(chunk_members) == 1 or why:
                    trained = [_train_alone(task, member, run, why) for member in chunk_members]
                results |= dict(zip(piece, trained, strict=True))
                for result in trained:
                    tick(metric_text(metric_of(task), result.metric, 1))
    return [results[at] for at in range(len(members))]


def groups_alike(recipes: Sequence[Recipe]) -> list[list[int]]:
    """Group the recipes by which networks can train at once: they differ in the learning rate alone.

    Returns:
        The places of each group's recipes, in order.
    """
    groups: dict[Recipe, list[int]] = {}
    for at, recipe in enumerate(recipes):
        groups.setdefault(common_setting(recipe), []).append(at)
    return list(groups.values())


def pieces(group: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cut a group into parts of at most `size`, as even as possible.

    Examples:
        >>> pieces(range(5), 3)
        [range(0, 2), range(2, 5)]
    """
    count = math.ceil(len(group) / size)
    ends = [len(group) * part // count for part in range(count + 1)]
    return [group[start:end] for start, end in pairwise(ends)]


def chunk_size(task: Task, member: Member, device: torch.device) -> int:
    """How many networks like this one train at a time.

    Args:
        task: gives network, recipe and batch.
        member: one of the networks.
        device: on the CPU as many as the caches hold, on a GPU as many as a quarter of its free memory holds.

    Returns:
        A number from 2 to 256.
    """
    recipe, model = member.recipe_on(task), member.build(task).to(device)
    bytes_each = step_memory(task, model, first_of(task.batches("train", member.seed, 0)), recipe)
    room = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else CACHE
    return min(max(2, room // max(bytes_each, 1)), MOST)


def fit_members(
    task: Task, members: Sequence[Member], run: Run, name: str, *, test: bool = False
) -> list[FittedMember]:
    """Train members whose recipes are alike as one chunk.

    Args:
        task: gives network, data, loss, metric and recipe.
        members: the networks.
        run: device, bars, meter and folder.
        name: of the stage in the run's folder.
        test: measure each network on the test split afterwards.

    Returns:
        One result a member, in order.

    Raises:
        Unbatched: saying why they cannot train at once.
    """
    recipes = [member.recipe_on(task) for member in members]
    models = [member.build(task) for member in members]
    for member, model in zip(members, models, strict=True):
        parameters = parameters_of(model)
        check_fits(member.mask, parameters)
        if member.ticket is not None and member.ticket.removed:
            raise Unbatched("a ticket of whole units trains as a smaller network of its own")
        if member.ticket is not None and member.ticket.dead != "zero":
            raise Unbatched("a ticket leaves its other weights frozen, and not at zero")
        if member.ticket is not None and not parameters.keys() >= set(member.ticket.held):
            raise Unbatched("a ticket holds what is no parameter of its network")
    if why := stacking_obstacle(task, recipes[0], models[0], run.device):
        raise Unbatched(why)
    batch = first_of(task.batches("train", members[0].seed, 0))
    with own_randomness(run.device, members[0].seed):
        flops, step_bytes = SampleFlops.measure(task, models[0], batch), step_memory(task, models[0], batch, recipes[0])
    stack = stacked(task, members, models, recipes, run.device)
    reset_peak_memory(run.device)
    end, going = run.file(f"{name}.end"), run.file(f"{name}.going")
    saved = end.load() if end is not None else None
    if end is not None and saved is not None:
        with end.fitting():
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
    unknown = [math.nan] * len(fits)
    metrics, losses, _ = evaluate_together(stack, "test") if test else (unknown, unknown, 0)
    # A ticket that starts at the end of the schedule trains no epoch that would have measured it.
    over = stack.begin >= recipes[0].epochs * stack.feed.steps
    validations, _, validated = evaluate_together(stack, "validation") if test and over else (unknown, unknown, 0)
    for at, model in enumerate(models):
        put_values(model.to(run.device), stack.values_of(at))
    validations = validations if validated else unknown
    return [FittedMember(*parts) for parts in zip(models, fits, diverged, metrics, losses, validations, strict=True)]


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


def _train_alone(task: Task, member: Member, run: Run, why: str) -> Trained:
    """Train one network by itself, in the one loop."""
    recipe, part = member.recipe_on(task), _part(task, [member], run)
    if member.ticket is not None and member.ticket.removed:
        ticket = replace(member.ticket, recipe={**member.ticket.recipe, **member.recipe})
        return replace(train(task, ticket, seed=member.seed, init_seed=member.init_seed, run=part), alone=why)
    model, fit, diverged = member.build(task).to(run.device), Fit((), Cost()), ""
    try:
        fit = part.stage("train", task, model, recipe=recipe, attached=member.attached)
    except Diverged as error:
        diverged = str(error)
    with own_randomness(run.device, member.seed):
        metric, loss, _ = evaluate(task, model, "test", recipe)
    validation = None if fit.history or diverged else part.validate(task, model, recipe)
    fitted = FittedMember(model, fit, diverged, metric, loss, math.nan if validation is None else validation)
    return replace(_trained(fitted, recipe.epochs), alone=why)


def _part(task: Task, members: Sequence[Member], run: Run) -> Run:
    """The part of a run that trains these members, in a folder named by what they are."""
    return run.part("" if run.folder is None else f"together-{fingerprint_of(task, members)}", members[0].seed)


def _chunk_size(task: Task, members: Sequence[Member], run: Run) -> int:
    """How many of these members train at a time.

    The size is kept, since chunks are named by their members and less memory may be free when a killed call goes on.
    """
    file = _part(task, members, run).file("chunk")
    if file is not None and (saved := file.load()) is not None:
        with file.fitting():
            return max(1, min(int(saved["size"]), len(members)))
    size = chunk_size(task, members[0], run.device)
    if file is not None:
        file.save({"size": size})
    return size
