"""A step of a search over scores against a dense training step; Gem-Miner's whole search against IMP's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

import tombola as tb
from benchmarks.measure import Figure, Work, interleaved, saved_bytes
from benchmarks.scores import step
from tombola import zoo
from tombola.methods import Supermask
from tombola.methods.concrete_ticket_search import ConcreteTask
from tombola.methods.masked_model import Topmost
from tombola.studies import TaskOptions, make_task
from tombola.training import State

SHAPES = {"resnet20": (3, 32, 32), "lenet-300-100": (1, 28, 28)}
SEARCHES = {"Gem-Miner": tb.GemMiner(density=0.0144), "edge-popup": tb.methods.EdgePopup(density=0.0144)}


def task_of(name: str) -> tb.SupervisedTask:
    inputs, targets = torch.randn(128, *SHAPES[name]), torch.randint(0, 10, (128,))
    return tb.SupervisedTask(zoo.model(name, SHAPES[name], 10), {"train": (inputs, targets), "test": (inputs, targets)})


def sorted_top(density: float):
    """The mask of edge-popup's public code: a sort of each layer's scores in every forward pass."""

    def weigh(scores: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
        least = [s.detach().abs().flatten().sort().values[int((1 - density) * s.numel())].item() for s in scores]
        return [Topmost.apply(*layer) for layer in zip(scores, weights, least, strict=True)]

    return weigh


def search_step(name: str, method: Supermask, *, sort: bool = False) -> Work:
    """One step of a search on one batch: forward, backward, optimizer, and what the search's observer does."""
    task = task_of(name)
    searched, observer = method.prepare(task, task.build(0), 0)
    if sort:
        searched._weigh = sorted_top(method.density)
    recipe = method.search_recipe(replace(task.recipe, epochs=60), 1000)
    inputs, targets = task.data["train"]
    if name.startswith("resnet"):
        searched.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
        inputs = inputs.to(memory_format=torch.channels_last)
    optimizer = recipe.make_optimizer(searched.parameters())
    state = State(searched, optimizer, recipe, 1000, 0, 0, tb.attach(tb.Mask({}), searched))
    observer.epoch_begin(state)

    def work() -> None:
        optimizer.zero_grad()
        F.cross_entropy(searched(inputs), targets).backward()
        observer.before_step(state)
        optimizer.step()
        state.step += 1
        observer.after_step(state)

    return work


def concrete_step(name: str) -> Work:
    """One step of Concrete Ticket Search on one batch: the teacher's pass too, and what holds the density."""
    task, method = task_of(name), tb.methods.ConcreteTicketSearch(density=0.0144)
    searched, control = method.prepare(task, task.build(0))
    searching, recipe = ConcreteTask(task), method.search_recipe(replace(task.recipe, epochs=60))
    inputs, targets = task.data["train"]
    if name.startswith("resnet"):
        searched.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
        inputs = inputs.to(memory_format=torch.channels_last)
    optimizer = recipe.make_optimizer(searched.parameters())
    state = State(searched, optimizer, recipe, 1000, 0, 0, tb.attach(tb.Mask({}), searched))

    def work() -> None:
        optimizer.zero_grad()
        searching.loss(searching.forward(searched, inputs), targets).backward()
        control.before_step(state)
        optimizer.step()
        state.step += 1
        control.after_step(state)

    return work


def figures() -> Iterator[Figure]:
    for name, bar, repeats in (("resnet20", 1.10, 12), ("lenet-300-100", 1.35, 300)):
        yield from steps(name, bar, repeats)
    yield from whole()


def steps(name: str, bar: float, repeats: int) -> Iterator[Figure]:
    task = task_of(name)
    model, inputs = task.build(0), task.data["train"][0]
    if name.startswith("resnet"):
        model = model.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
        inputs = inputs.to(memory_format=torch.channels_last)
    variants = {"dense": step(model, (inputs, task.data["train"][1]))}
    variants |= {label: search_step(name, method) for label, method in SEARCHES.items()}
    variants["Concrete"] = concrete_step(name)
    variants["sorting"] = search_step(name, SEARCHES["edge-popup"], sort=True)
    times, setup = interleaved(variants, repeats), f"{name}, batch 128"
    note = f"dense {1e3 * times.seconds['dense']:.2f} ms"
    yield times.figure(f"Gem-Miner search step ÷ dense step ({setup})", "Gem-Miner", "dense", bar, note)
    yield times.figure(f"Concrete Ticket Search step ÷ dense step ({setup})", "Concrete", "dense", 1.5)
    yield times.figure(f"edge-popup search step ÷ dense step ({setup})", "edge-popup", "dense", None)
    yield times.figure(f"edge-popup search step ÷ with a sort in every forward ({setup})", "edge-popup", "sorting", 1.0)
    weights = sum(4 * weight.numel() for weight in tb.structure.prunable(model).values())
    saved = {kind: saved_bytes(variants[kind]) for kind in ("dense", "Gem-Miner")}
    note = f"dense saves {saved['dense'] / 2**20:.1f} MiB, the weights are {weights / 2**20:.1f} MiB"
    ratio = saved["Gem-Miner"] / (saved["dense"] + weights)
    yield Figure(
        f"bytes saved by a Gem-Miner step ÷ dense step's and one weight-sized buffer ({setup})", ratio, 1.0, note
    )


def whole() -> Iterator[Figure]:
    """Whole searches for a 1.4 % ticket, two epochs a round on the standard bench, and the same training after them."""
    task = make_task(TaskOptions(data="fashion-mnist-14", model="resnet20", recipe=tb.Recipe(epochs=2)))
    tickets = {name: tb.find(task, tb.method(name, density=0.0144), progress=False) for name in ("gem-miner", "imp")}
    cost = {name: ticket.provenance.cost for name, ticket in tickets.items()}
    metric = {name: tb.train(task, ticket).metric for name, ticket in tickets.items()}
    note = ", ".join(f"{name} {cost[name]['seconds']:.0f} s and then {metric[name]:.1%}" for name in tickets)
    for unit, bar in (("dense_epochs", 1 / 19), ("seconds", 1 / 17)):
        ratio, what = cost["gem-miner"][unit] / cost["imp"][unit], unit.removeprefix("dense_")
        yield Figure(
            f"Gem-Miner search ÷ IMP search to 1.44 % in {what} (resnet20, 2 epochs a round)", ratio, bar, note
        )
    rounds = cost["imp"]["dense_epochs"] / 2
    yield Figure(
        "the same with the ticket's training in both, in epochs", 2 / (rounds + 1), None, "search and training"
    )
