"""Putting the networks of a chunk into one stack, or saying why they cannot be."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets import Mask, buffers_of, parameters_of, tensors_of
from tombola.tickets.torch_private import Dropout
from tombola.training.ensemble import feed
from tombola.training.ensemble.chain import Chain, layers_of, loss_gradient
from tombola.training.ensemble.ensemble_loop import Stack
from tombola.training.ensemble.feed import Feed
from tombola.training.ensemble.layout import Layout
from tombola.training.ensemble.mapped_network import Mapped
from tombola.training.ensemble.member import Member
from tombola.training.ensemble.optimizer import Optimizer, Rates
from tombola.training.ensemble.stacked_network import Stacked
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe
from tombola.training.task import Task, smoothed

RANDOM = (Dropout, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
CLOSE = 1e-3
"""Share of the whole gradient by which that of a parameter may differ from the network's own, on the first batch."""


class Unbatched(TombolaError):
    """Networks that cannot be trained at once, and why."""


def common_setting(recipe: Recipe) -> Recipe:
    """The recipe without what members may differ in: what is left must be the same for all that train at once."""
    usual = Recipe()
    own = {name: getattr(usual, name) for name in ("lr", "schedule", "milestones", "gamma", "warmup")}
    return replace(recipe, **own)


def stacking_obstacle(task: Task, recipe: Recipe, model: nn.Module, device: torch.device) -> str:
    """Why networks cannot train at once, as far as that shows without a step; nothing where they may."""
    if why := feed.feed_obstacle(task):
        return why
    if recipe.resolved_precision(device) != "float32":
        return f"it trains in {recipe.resolved_precision(device)}; set the recipe's precision to float32"
    if recipe.compile:
        return "its recipe compiles it"
    if any(p.dtype != torch.float32 or not p.requires_grad for p in model.parameters()):
        return "not all of its parameters are trained in float32"
    for name, module in model.named_modules():
        if isinstance(module, RANDOM) and getattr(module, "p", 1.0):
            return f"'{name}' ({type(module).__name__}) draws at random for each network"
    return ""


def stacked(
    task: Task, members: Sequence[Member], models: Sequence[nn.Module], recipes: Sequence[Recipe], device: torch.device
) -> Stack:
    """The members' networks as one, dead weights zeroed. Raises Unbatched where an operation cannot be."""
    layout = Layout(len(models), _shapes(models[0]))
    if any(_shapes(model) != layout.shapes for model in models):
        raise Unbatched("its seed decides its architecture")
    values, grads = layout.zeros(device), layout.zeros(device)
    own_values, own_grads = layout.views(values), layout.views(grads)
    buffers = {
        name: torch.stack([buffers_of(model)[name] for model in models]).to(device) for name in buffers_of(models[0])
    }
    _copy(own_values, models)
    source = Feed(task, [member.seed for member in members], device)
    recipe = recipes[0]
    layers = layers_of(task, models[0])
    if layers is None:
        loss = smoothed(task.loss, recipe.label_smoothing)
        network: Stacked = Mapped(task, models[0], loss, own_values, own_grads, grads, buffers)
    else:
        classes = own_values[layers[-1].weight].shape[1]
        loss_and_gradient = loss_gradient(task, recipe.label_smoothing, source.targets, classes)
        network = Chain(layers, loss_and_gradient, own_values, own_grads)
    _try(task, network, source, models[0], recipe, own_grads)
    moving, kept = _masks(members, layout, device)
    if kept is not None:
        values.view(torch.int32).bitwise_and_(kept)
    begin = recipe.begin(source.steps)
    rates, optimizer = Rates(recipes, source.steps, layout, device), Optimizer(recipe, values, grads, moving)
    return Stack(task, recipes, network, values, own_values, optimizer, rates, source, begin)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(own.shape) for name, own in parameters_of(model).items()}


@torch.no_grad()
def _copy(views: dict[str, Tensor], models: Sequence[nn.Module]) -> None:
    for at, model in enumerate(models):
        for name, parameter in parameters_of(model).items():
            views[name][at].copy_(parameter)


def _try(
    task: Task, network: Stacked, source: Feed, model: nn.Module, recipe: Recipe, grads: dict[str, Tensor]
) -> None:
    """One backward pass on the first batch, compared with the first network's own; Unbatched if they differ."""
    before = {name: buffer.clone() for name, buffer in network.buffers.items()}
    alone = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    model = model.to(source.device).train()
    with own_randomness(source.device, 0):
        inputs, targets = next(source.epoch(0))
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("error", message="There is a performance drop")
                network.gradients(inputs, targets)
        except (RuntimeError, NotImplementedError, TypeError, ValueError, UserWarning) as error:
            raise Unbatched(f"an operation of it cannot be batched: {str(error).splitlines()[0]}") from error
        smoothed(task.loss, recipe.label_smoothing)(task.forward(model, inputs[0]), targets[0]).backward()
    expected = {name: parameter.grad for name, parameter in parameters_of(model).items() if parameter.grad is not None}
    if idle := [name for name in grads if name not in expected]:
        raise Unbatched(f"its '{idle[0]}' takes no part in the loss")
    whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        if (grads[name][0] - gradient).norm() > CLOSE * whole:
            raise Unbatched(f"batched, the gradient of its '{name}' is another")
    model.zero_grad()
    for name, buffer in network.buffers.items():
        buffer.copy_(before[name])
    for name, tensor in tensors_of(model).items():
        tensor.copy_(alone[name])


def _masks(members: Sequence[Member], layout: Layout, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Machine words of ones where weights move, and where they are kept; None where all do and are."""
    masks = [member.mask for member in members]
    held = [member.ticket.held if member.ticket else () for member in members]
    if not any(masks):
        return (None, None) if not any(held) else (_words(layout, masks, held, device), None)
    kept = _words(layout, masks, [()] * len(members), device)
    return (_words(layout, masks, held, device) if any(held) else kept), kept


def _words(layout: Layout, masks: Sequence[Mask], held: Sequence[tuple[str, ...]], device: torch.device) -> Tensor:
    words = layout.zeros(torch.device("cpu"), torch.int32).fill_(-1)
    for name, view in layout.views(words).items():
        for at, (mask, still) in enumerate(zip(masks, held, strict=True)):
            if name in still:
                view[at] = 0
            elif name in mask:
                view[at].copy_(mask[name]).neg_()
    return words.to(device)
