"""Law 19: a network whose activations are computed again in backward has the scores that it has without."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper
from torch.utils import checkpoint as torch_checkpoint
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, checkpoint_sequential

import tombola as tb
from kinds import BLOCK_SCORES, WEIGHT_SCORES
from networks import short_resnet
from tombola.registry import SCORES
from tombola.testing import LawBroken, check_score

SCORED = {**WEIGHT_SCORES, **{n: s for n, s in SCORES.only(unit="unit").items() if SCORES.entry(n).needs != "training"}}
TWICE = ("grasp", "prospr")


class Again(torch.autograd.Function):
    """A recomputation of one's own, as reversible networks have: no part of torch's checkpoints."""

    @staticmethod
    def forward(ctx, module, x, *weights):
        ctx.module, ctx.drawn_from = module, torch.get_rng_state()
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        with torch.enable_grad(), torch.random.fork_rng():
            torch.set_rng_state(ctx.drawn_from)
            x = x.detach().requires_grad_()
            weights = list(ctx.module.parameters())
            asked = [x, *(weight for weight in weights if weight.requires_grad)]
            found = dict(zip(map(id, asked), torch.autograd.grad(ctx.module(x), asked, gradient), strict=True))
        return None, found[id(x)], *(found.get(id(weight)) for weight in weights)


def saving_convolutions(ctx, op, *args, **kwargs):
    return CheckpointPolicy.MUST_SAVE if op is torch.ops.aten.convolution.default else CheckpointPolicy.PREFER_RECOMPUTE


KINDS = {
    "plain": lambda part, x: part(x),
    "reentrant": partial(checkpoint, use_reentrant=True),
    "not reentrant": partial(checkpoint, use_reentrant=False),
    "nested": lambda part, x: checkpoint(partial(checkpoint, part, use_reentrant=True), x, use_reentrant=True),
    "sequential": lambda part, x: checkpoint_sequential(part, 2, x, use_reentrant=True),
    "selective": partial(
        checkpoint,
        use_reentrant=False,
        context_fn=partial(torch_checkpoint.create_selective_checkpoint_contexts, saving_convolutions),
    ),
    "one's own": lambda part, x: Again.apply(part, x, *part.parameters()),
}


class Network(nn.Module):
    """Three parts, each called in one way; the first one's input has no gradient."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        self.kind = kind
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 5))

    def forward(self, x):
        return self.called(self.head, self.called(self.body, self.called(self.stem, x)))

    def called(self, part, x):
        # A network's input has no gradient, and an own function then has no backward pass, with or without Tombola.
        return part(x) if self.kind == "one's own" and part is self.stem else KINDS[self.kind](part, x)


def batches(count: int = 2):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(6, 1, 8, 8, generator=generator), torch.randint(5, (6,), generator=generator))
        for _ in range(count)
    ]


def trained_a_little() -> Network:
    torch.manual_seed(0)
    network = Network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def scores_of(network, names, **view):
    """All scores of a network, which has to stay as it is; with a mask, so that its own weights are others."""
    mask = tb.select(tb.scores.random(network, seed=1), 0.5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    own = [*map(id, network.parameters()), *map(id, network.buffers())]
    scores = {n: SCORED[n](network, batches(), F.cross_entropy, mask=mask, seed=3, **view) for n in names}
    assert own == [*map(id, network.parameters()), *map(id, network.buffers())]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    return scores


def assert_same(found, expected):
    for name, scores in expected.items():
        assert found[name].keys() == scores.keys()
        for layer in scores:
            assert torch.equal(found[name][layer], scores[layer]), (name, layer)


@pytest.fixture(scope="module")
def expected():
    return scores_of(trained_a_little(), SCORED)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "plain"])
def test_every_score_sees_the_same_network(kind, expected):
    network = Network(kind)
    network.load_state_dict(trained_a_little().state_dict())
    names = [name for name in SCORED if not (name in TWICE and kind in ("selective", "one's own"))]
    assert_same(scores_of(network, names), {name: expected[name] for name in names})


@pytest.mark.parametrize("implementation", CheckpointImpl)
def test_wrapped_parts_and_compiled_ones_are_the_same_network(implementation, expected):
    network = trained_a_little()
    network.stem = checkpoint_wrapper(network.stem, implementation)
    network.body = torch.compile(checkpoint_wrapper(network.body, implementation))
    assert_same(scores_of(torch.compile(network), SCORED), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_forward_pass_of_ones_own_may_recompute_all(reentrant, expected):
    view = {"forward": lambda model, inputs: checkpoint(model, inputs, use_reentrant=reentrant)}
    assert_same(scores_of(trained_a_little(), SCORED, **view), expected)


@pytest.mark.parametrize(("kind", "says"), [("selective", "selective activation"), ("one's own", "second derivative")])
def test_a_second_derivative_that_there_is_not_is_one_sentence(kind, says):
    with pytest.raises(tb.TombolaError, match=rf"^the score 'grasp' .*{says}"):
        tb.scores.grasp(Network(kind), batches(), F.cross_entropy)


@pytest.mark.parametrize("reentrant", [True, False])
def test_scores_of_blocks_see_the_same_network(reentrant):
    plain = short_resnet()
    network = copy.deepcopy(plain)
    for block in (module for module in network.modules() if hasattr(module, "branch")):
        block.forward = partial(checkpoint, block.forward, use_reentrant=reentrant)
    for name, score in BLOCK_SCORES.items():
        found, same = (score(own, batches(), F.cross_entropy) for own in (network, plain))
        assert found == same, name


def test_the_network_is_whole_again_whatever_happens():
    network, seen = trained_a_little(), []

    def failing(outputs, targets):
        seen.append(network.stem[0].weight)
        raise KeyError("the user's own")

    own = network.stem[0].weight
    with pytest.raises(KeyError, match="the user's own"):
        tb.scores.snip(network, batches(), failing)
    assert seen[0] is not own
    assert network.stem[0].weight is own
    assert torch_checkpoint.CheckpointFunction.__name__ == "CheckpointFunction"


def test_a_recurrent_layer_has_its_own_weights_back():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 5)

        def forward(self, x):
            return self.last(checkpoint(self.inner, x[:, 0], use_reentrant=False)[0][:, -1])

    network = Recurrent()
    outputs = network(batches()[0][0])
    tb.scores.snip(network, batches(), F.cross_entropy)
    assert network.inner._flat_weights[0] is network.inner.weight_ih_l0
    assert torch.equal(outputs, network(batches()[0][0]))
    copy.deepcopy(network)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_part_in_torchscript_gets_its_tensors_back():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Linear(6, 5))
    network = copy.deepcopy(plain)
    network[2] = torch.jit.trace(network[2], torch.ones(2, 6))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found, same = (tb.scores.snip(own, batches(), F.cross_entropy) for own in (network, plain))
    assert all(torch.equal(found[name], scores) for name, scores in same.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_score_whose_tensors_are_gone_before_backward_breaks_the_law():
    def too_short(model, data, loss, **view):
        mask, forward = view.pop("mask", None), view.pop("forward", lambda network, inputs: network(inputs))
        weights = view.get("prunable", tb.Prunable())(model)
        kept = {n: (w.detach() * (mask[n] if mask else 1)).requires_grad_() for n, w in weights.items()}
        twin = copy.deepcopy(model).eval()
        others = {n: p.detach().clone() for n, p in twin.named_parameters() if n not in kept}

        class Called(nn.Module):
            def __init__(self):
                super().__init__()
                self.twin = twin

            def forward(self, inputs):
                return forward(self.twin, inputs)

        inputs, targets = next(iter(data))
        values = {f"twin.{name}": value for name, value in {**kept, **others}.items()}
        value = loss(torch.func.functional_call(Called(), values, (inputs.to(next(twin.parameters()).dtype),)), targets)
        return dict(zip(kept, (g.abs().float() for g in torch.autograd.grad(value, [*kept.values()])), strict=True))

    with pytest.raises((LawBroken, torch_checkpoint.CheckpointError)) as caught:
        check_score(too_short)
    assert getattr(caught.value, "law", "recomputation") == "recomputation"


def test_gradient_checkpointing_of_transformers_changes_no_score():
    transformers = pytest.importorskip("transformers")
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(
        vocab_size=30, max_position_embeddings=6, num_labels=3, attn_implementation="eager", **settings
    )
    torch.manual_seed(0)
    network = transformers.BertForSequenceClassification(config)
    inputs = {"input_ids": torch.randint(30, (4, 6)), "attention_mask": torch.ones(4, 6, dtype=torch.long)}
    data = [(inputs, torch.tensor([0, 1, 2, 0]))]

    def loss(outputs, targets):
        return F.cross_entropy(outputs.logits, targets)

    rule = tb.Prunable(include=("bert.encoder.*",))
    mask = tb.select(tb.scores.random(network, prunable=rule), 0.5)
    plain = tb.scores.snip(network, data, loss, mask=mask, prunable=rule)
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    for reentrant in (True, False):
        enable({"use_reentrant": reentrant})
        found = tb.scores.snip(network, data, loss, mask=mask, prunable=rule)
        assert all(torch.equal(found[name], scores) for name, scores in plain.items())
