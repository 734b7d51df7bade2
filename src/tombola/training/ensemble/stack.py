"""Stacks the networks of a chunk, or says why they cannot be stacked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets import Mask, buffers_of, parameters_of, put_values, tensors_of
from tombola.tickets.torch_private import Dropout
from tombola.training.adversarial_task import adversary_of
from tombola.training.ensemble import feed
from tombola.training.ensemble.chain import Chain, layers_of, loss_gradient
from tombola.training.ensemble.ensemble_loop import Stack
from tombola.training.ensemble.feed import Feed
from tombola.training.ensemble.layout import Layout
from tombola.training.ensemble.mapped_network import Mapped
from tombola.training.ensemble.member import Member
from tombola.training.ensemble.optimizer import Optimizer, Rates, optimizer_obstacle
from tombola.training.ensemble.stacked_network import Stacked
from tombola.training.losses import smoothed
from tombola.training.placement import bring_along
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe
from tombola.training.task import Task

RANDOM = (Dropout, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
"""Layers that draw for each network, from a random state that members would share."""
CLOSE = 1e-3
"""How far a parameter's stacked gradient may be from the network's own, as a share of the whole gradient's norm."""


class Unbatched(TombolaError):
    """Networks cannot train at once; the message says why."""


def common_setting(recipe: Recipe) -> Recipe:
    """The recipe with usual values for what members may differ in; the rest must be the same for all of them."""
    usual = Recipe()
    return replace(
        recipe,
        **{name: getattr(usual, name) for name in ("lr", "schedule", "milestones", "gamma", "warmup", "warmup_from")},
    )


def stacking_obstacle(task: Task, recipe: Recipe, model: nn.Module, device: torch.device) -> str:
    """Why networks cannot train at once, as far as that is seen without a training step.

    Args:
        task: gives the batches.
        recipe: one member's.
        model: one member's network.
        device: where they train.

    Returns:
        The reason; empty if there is none.
    """
    if adversary_of(task) is not None:
        return "its inputs are attacked in each step"
    if why := feed.feed_obstacle(task):
        return why
    if recipe.resolved_precision(device) != "float32":
        return f"it trains in {recipe.resolved_precision(device)}; set the recipe's precision to float32"
    if why := optimizer_obstacle(task, recipe):
        return why
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
    """Stack the members' networks, with their dead weights at zero.

    Args:
        task: gives batches, forward pass and loss.
        members: the members, whose recipes differ in the learning rate alone.
        models: their networks at the values from which they train, on the CPU.
        recipes: their recipes.
        device: where they train.

    Raises:
        Unbatched: if their architectures differ, or stacked gradients are not those of a network alone.
    """
    layout = Layout(len(models), _shapes(models[0]))
    if any(_shapes(model) != layout.shapes for model in models):
        raise Unbatched("its seed decides its architecture")
    bring_along(task, device)
    values, grads = layout.zeros(device), layout.zeros(device)
    named_values, named_grads = layout.views(values), layout.views(grads)
    buffers = {
        name: torch.stack([buffers_of(model)[name] for model in models]).to(device) for name in buffers_of(models[0])
    }
    _copy_into(named_values, models)
    batches = Feed(task, [member.seed for member in members], device)
    recipe = recipes[0]
    layers = layers_of(task, models[0])
    if layers is None:
        loss = smoothed(task.loss, recipe.label_smoothing)
        network: Stacked = Mapped(task, models[0], loss, named_values, named_grads, grads, buffers)
    else:
        classes = named_values[layers[-1].weight].shape[1]
        loss_and_gradient = loss_gradient(task, recipe.label_smoothing, batches.targets, classes)
        network = Chain(layers, loss_and_gradient, named_values, named_grads)
    _check_gradients(task, network, batches, models[0], recipe, named_grads)
    moving, kept = _masks(members, layout, device)
    if kept is not None:
        values.view(torch.int32).bitwise_and_(kept)  # by bits and not by product, since NaN · 0 is NaN
    begin = recipe.begin(batches.steps)
    rates, optimizer = Rates(recipes, batches.steps, layout, device), Optimizer(recipe, values, grads, moving)
    return Stack(task, recipes, network, values, named_values, optimizer, rates, batches, begin)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in parameters_of(model).items()}


@torch.no_grad()
def _copy_into(views: dict[str, Tensor], models: Sequence[nn.Module]) -> None:
    for at, model in enumerate(models):
        for name, parameter in parameters_of(model).items():
            views[name][at].copy_(parameter)


def _check_gradients(
    task: Task, network: Stacked, batches: Feed, model: nn.Module, recipe: Recipe, grads: dict[str, Tensor]
) -> None:
    """Compare the gradients of the first batch with those of the first network alone; Unbatched if they differ."""
    # A forward pass may change buffers, as batch norm's; they are put back at the end.
    buffers_before = {name: buffer.clone() for name, buffer in network.buffers.items()}
    tensors_before = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    model = model.to(batches.device).train()
    with own_randomness(batches.device, 0):
        inputs, targets = next(batches.epoch(0))
        try:
            # vmap warns where it falls back to a loop over members, which would be slower than one after another.
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("error", message="There is a performance drop")
                network.gradients(inputs, targets)
        except (RuntimeError, NotImplementedError, TypeError, ValueError, UserWarning) as error:
            raise Unbatched(f"an operation of it cannot be batched: {str(error).splitlines()[0]}") from error
        buffers = buffers_of(model)
        smoothed(task.loss, recipe.label_smoothing)(task.forward(model, inputs[0]), targets[0]).backward()
    if any(buffers.get(name) is not buffer for name, buffer in buffers_of(model).items()):
        put_values(model, tensors_before)
        raise Unbatched("its forward pass replaces a buffer")
    expected = {name: parameter.grad for name, parameter in parameters_of(model).items() if parameter.grad is not None}
    if idle := [name for name in grads if name not in expected]:
        raise Unbatched(f"its '{idle[0]}' takes no part in the loss")
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        if (grads[name][0] - gradient).norm() > CLOSE * norm:
            raise Unbatched(f"batched, the gradient of its '{name}' is another")
    model.zero_grad()
    for name, buffer in network.buffers.items():
        buffer.copy_(buffers_before[name])
    for name, tensor in tensors_of(model).items():
        tensor.copy_(tensors_before[name])


def _masks(members: Sequence[Member], layout: Layout, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Two buffers of int32, all bits 1 where weights move and where they are kept; None if all do, or all are."""
    masks = [member.mask for member in members]
    held = [member.ticket.held if member.ticket else () for member in members]
    if not any(masks):
        return (None, None) if not any(held) else (_bit_masks(layout, masks, held, device), None)
    kept = _bit_masks(layout, masks, [()] * len(members), device)
    return (_bit_masks(layout, masks, held, device) if any(held) else kept), kept


def _bit_masks(layout: Layout, masks: Sequence[Mask], held: Sequence[tuple[str, ...]], device: torch.device) -> Tensor:
    """All bits 1, except 0 where a mask is False or a parameter is held."""
    bits = layout.zeros(torch.device("cpu"), torch.int32).fill_(-1)  # −1 has all bits 1
    for name, view in layout.views(bits).items():
        for at, (mask, held_names) in enumerate(zip(masks, held, strict=True)):
            if name in held_names:
                view[at] = 0
            elif name in mask:
                view[at].copy_(mask[name]).neg_()
    return bits.to(device)
