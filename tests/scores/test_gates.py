"""Gates folded into weights are gates: their gradients are those of numbers that multiply what a unit gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tombola as tb
from networks import short_transformer
from tombola.methods.coefficients import CoefficientModel
from tombola.scores import gate_importance
from tombola.structure import TransformerParts
from tombola.testing import toy_task

IMAGES, CLASSES = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 5
BATCHES = [(IMAGES[:6], CLASSES[:6]), (IMAGES[6:], CLASSES[6:])]


def network():
    torch.manual_seed(0)
    return short_transformer().double().eval()


def real_gates(model, images, heads, parts):
    """The outputs with numbers that multiply each head's values and what each feed-forward part adds."""
    hooks = []
    for layer, own, part in zip(model.layers, heads, parts, strict=True):

        def before(module, args, own=own):
            return ((args[0].unflatten(-1, (2, -1)) * own[:, None]).flatten(-2),)

        hooks.append(layer.attention.out.register_forward_pre_hook(before))
        hooks.append(layer.mlp.register_forward_hook(lambda module, args, output, part=part: output * part))
    outputs = model(images)
    for hook in hooks:
        hook.remove()
    return outputs


def gradients_of(model, closed=()):
    """∂L/∂g of each batch, by real gates of which some are 0."""
    found = []
    for images, classes in BATCHES:
        heads = [torch.ones(2, dtype=torch.double) for _ in model.layers]
        parts = [torch.ones((), dtype=torch.double) for _ in model.layers]
        for layer, head in closed:
            heads[layer][head] = 0.0
        leaves = [own.requires_grad_() for own in (*heads, *parts)]
        loss = F.cross_entropy(real_gates(model, images.double(), heads, parts), classes)
        grads = torch.autograd.grad(loss, leaves)
        found.append({"heads": torch.cat(grads[:2]), "mlp": torch.stack(grads[2:])})
    return found


def units_of(model):
    return TransformerParts().units(model, lambda own: own(IMAGES.to(next(own.parameters()).dtype)))


@pytest.mark.parametrize("accumulate", ["batch", "running"])
def test_the_importance_is_the_size_of_gradients_batch_by_batch_or_of_their_running_sum(accumulate):
    model = network()
    batches = [(images.double(), classes) for images, classes in BATCHES]
    found = gate_importance(model, units_of(model).gates, batches, F.cross_entropy, accumulate=accumulate)
    heads = torch.cat([found[f"layers.{layer}.attention.out"] for layer in range(2)])
    (first, second) = gradients_of(model)
    for own, kind in ((heads, "heads"), (found["mlp"], "mlp")):
        last = first[kind] + second[kind] if accumulate == "running" else second[kind]
        assert torch.allclose(own, first[kind].abs() + last.abs(), rtol=1e-9)
    assert all(own.requires_grad and own.grad is None for own in model.parameters())


def test_a_closed_gate_still_has_a_gradient():
    model = network()
    open_weights = {name: own.detach().clone() for name, own in model.named_parameters()}
    expected = gradients_of(model, closed=[(0, 1)])[0]["heads"].abs()
    model.layers[0].attention.out.weight.data[:, 16:] = 0.0
    batch = [(IMAGES[:6].double(), CLASSES[:6])]
    found = gate_importance(model, units_of(model).gates, batch, F.cross_entropy, open_weights=open_weights)
    assert torch.allclose(found["layers.0.attention.out"], expected[:2], rtol=1e-9)
    assert found["layers.0.attention.out"][1] > 0


def test_coefficients_of_one_change_nothing_and_others_are_gates():
    model = network()
    gated = CoefficientModel(toy_task(), model, units_of(model).gates)
    images = IMAGES.double()
    assert torch.allclose(gated(images), model(images), atol=1e-12)
    with torch.no_grad():
        for number, own in enumerate(gated.coefficients):
            own.copy_(torch.linspace(0.5, 1.5 + number, len(own)))
    heads, parts = gated.coefficients[:2], gated.coefficients[2]
    assert torch.allclose(gated(images), real_gates(model, images, heads, parts), atol=1e-12)


def test_no_batch_is_refused():
    model = network()
    with pytest.raises(tb.TombolaError, match="no batch"):
        gate_importance(model, units_of(model).gates, [], F.cross_entropy)
