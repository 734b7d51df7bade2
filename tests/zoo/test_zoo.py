"""The zoo: the papers' networks at their sizes, and data that is always the same."""

from __future__ import annotations

import pickle
import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tombola import TombolaError
from tombola.structure import prunable
from tombola.studies import TaskOptions, make_task, options_from
from tombola.tickets import digest_of, tensors_of
from tombola.zoo import MODELS, data, has_starts, model

NAMES = [name for name in MODELS if name != "minilm"]
DEEPER = ("vgg16", "resnet32", "resnet44", "resnet56", "resnet110", "preresnet56", "preresnet110", "preresnet18")
"""They are built as shallower ones are."""
VISION = [pytest.param(name, marks=[pytest.mark.slow] if name in DEEPER else []) for name in NAMES]
IMAGES = [(3, 32, 32), (1, 28, 28), (1, 14, 14), (1, 8, 8)]


def weights_in(net: nn.Module) -> int:
    return sum(p.numel() for p in prunable(net).values())


def seeded(factory, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return factory()


@pytest.fixture
def random_states():
    """The global random states, as bytes."""
    return lambda: (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())


@pytest.mark.parametrize("name", VISION)
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_every_model_takes_every_image_size(name, shape):
    net = model(name, shape, 7, width=0.25)()
    outputs = net(torch.randn(2, *shape))
    assert outputs.shape == (2, 7)
    assert outputs.isfinite().all()
    outputs.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", VISION)
def test_every_prunable_layer_reaches_the_outputs(name):
    net = model(name, (1, 8, 8), 10)()
    net(torch.randn(8, 1, 8, 8)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in prunable(net).values())


@pytest.mark.parametrize(
    ("name", "shape", "weights"),
    [
        ("two-layer", (1, 28, 28), 794_000),
        ("lenet-300-100", (1, 28, 28), 266_200),
        ("lenet-300-100", (784,), 266_200),
        ("lenet5", (1, 28, 28), 61_470),
        ("conv2", (3, 32, 32), 4_300_992),
        ("conv4", (3, 32, 32), 2_425_024),
        ("conv6", (3, 32, 32), 2_261_184),
        ("resnet20", (3, 32, 32), 268_336),
        ("resnet20-projection", (3, 32, 32), 270_896),
        ("vgg16", (3, 32, 32), 14_715_584),
        ("resnet56", (3, 32, 32), 848_944),
    ],
)
def test_models_have_the_papers_sizes(name, shape, weights):
    assert weights_in(model(name, shape, 10)()) == weights


def test_resnet20_has_the_papers_tensors_and_parameters():
    assert len(prunable(model("resnet20", (3, 32, 32), 10)())) == 20
    assert sum(p.numel() for p in model("resnet20-projection", (3, 32, 32), 10)().parameters()) == 272_474


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
        ("resnet18", 11_173_962),
        ("preresnet18", 11_172_170),
        ("resnet50", 23_520_842),
        ("wrn-28-2", 1_467_610),
        ("preresnet20", 269_722),
        ("vit-tiny", 683_050),
    ],
)
def test_models_have_the_published_parameters(name, parameters):
    assert sum(p.numel() for p in model(name, (3, 32, 32), 10)().parameters()) == parameters


def test_vgg16_has_the_channels_of_the_early_bird_code():
    norms = [m for m in model("vgg16", (3, 32, 32), 10)().modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(norm.num_features for norm in norms) == 4224


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 81.10), ("resnet20-projection", 81.63), ("vgg16", 626.4), ("resnet56", 250.97)]
)
def test_models_take_the_papers_flops(name, millions):
    with FlopCounterMode(display=False) as counter:
        model(name, (3, 32, 32), 10)().eval()(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("name", VISION)
def test_width_scales_hidden_units_only(name):
    shape = (3, 16, 16)
    sizes = [weights_in(model(name, shape, 10, width)()) for width in (0.1, 0.5, 1.0)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    narrow, full = (list(prunable(model(name, shape, 10, w)()).values()) for w in (0.5, 1.0))
    assert len(narrow) == len(full)
    assert narrow[0].shape[1:] == full[0].shape[1:]
    assert narrow[-1].shape[0] == full[-1].shape[0] == 10
    for small, large in zip(narrow[:-1], full[:-1], strict=True):
        assert small.shape[0] == round(large.shape[0] / 2)
    assert min(min(p.shape) for p in model(name, shape, 10, 1e-6)().parameters()) >= 1


@pytest.mark.parametrize("name", VISION)
def test_a_pickled_factory_builds_the_same_weights_from_the_same_seed(name):
    factory = model(name, (1, 8, 8), 10, width=0.5)
    twin = pickle.loads(pickle.dumps(factory))
    one, two, other = seeded(factory, 1), seeded(twin, 1), seeded(factory, 2)
    assert digest_of(tensors_of(one)) == digest_of(tensors_of(two))
    assert all(not torch.equal(p, prunable(other)[n]) for n, p in prunable(one).items())
    assert one is not factory()


@pytest.mark.parametrize("name", VISION)
def test_naming_a_model_leaves_the_random_state_alone(name, random_states):
    before = random_states()
    model(name, (1, 8, 8), 10)
    assert random_states() == before


@pytest.mark.parametrize("name", VISION)
def test_a_batch_of_one_gives_what_a_larger_batch_gives(name):
    net, inputs = model(name, (1, 8, 8), 10)().eval().double(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(net(inputs[:1]), net(inputs)[:1], atol=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("lenet-300-100", "spiral-mlp", "two-layer")])
@pytest.mark.parametrize(("shape", "says"), [((1, 40), "(channels, height, width)"), ((1, 1, 1), "at least")])
def test_inputs_that_a_model_cannot_take_are_refused_at_once(name, shape, says):
    with pytest.raises(TombolaError, match=re.escape(says)) as caught:
        model(name, shape, 10)
    assert ("residual network" if "res" in name or "wrn" in name else name) in str(caught.value)


@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_a_width_that_is_not_positive_is_refused(width):
    with pytest.raises(TombolaError, match="width is"):
        model("lenet5", (1, 8, 8), 10, width)


@pytest.mark.parametrize(("name", "near"), [("resnet-20", "resnet20"), ("lenet", "lenet5"), ("conv-4", "conv4")])
def test_an_unknown_model_is_refused_with_the_nearest(name, near):
    with pytest.raises(TombolaError, match=f"no model '{name}'; did you mean '{near}'"):
        model(name, (1, 8, 8), 10)


def test_an_unknown_data_set_is_refused_with_the_nearest():
    with pytest.raises(TombolaError, match="no data set 'digit'; did you mean 'digits'"):
        data("digit")


@pytest.mark.parametrize(
    ("name", "train", "test", "shape"),
    [("digits", 1438, 359, (1, 8, 8)), ("mnist1d", 4000, 1000, (1, 40))],
)
def test_data_is_whole_balanced_normalised_and_always_the_same(name, train, test, shape, random_states):
    before = random_states()
    one, two = data(name), data(name)
    assert random_states() == before
    assert set(one) == {"train", "test"}
    for split, size in (("train", train), ("test", test)):
        inputs, targets = one[split]
        assert inputs.shape == (size, *shape)
        assert inputs.dtype == torch.float32
        assert inputs.isfinite().all()
        assert targets.shape == (size,)
        assert targets.dtype == torch.int64
        counts = targets.bincount(minlength=10)
        assert len(counts) == 10
        assert (counts > 0.75 * size / 10).all()
        assert (counts < 1.25 * size / 10).all()
        assert torch.equal(inputs, two[split][0])
        assert torch.equal(targets, two[split][1])
        assert not (targets[1:] == targets[:-1]).all()  # shuffled, not sorted by class
        assert (targets.diff() != 0).float().mean() > 0.8
    assert one["train"][0].mean().abs() < 0.02
    assert one["train"][0].std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_data_sets_do_not_share_memory_or_samples_between_calls_and_splits(name):
    one, two = data(name), data(name)
    one["train"][0].zero_()
    assert two["train"][0].abs().sum() > 0
    rows = {sample.numpy().tobytes() for sample in two["train"][0]}
    assert not any(sample.numpy().tobytes() in rows for sample in two["test"][0])


def test_digits_are_scikit_learns():
    """Each image up to the normalising's offset and scale, with its label."""
    from sklearn.datasets import load_digits

    def recognisable(image, label) -> bytes:
        levels = np.unique(image, return_inverse=True)[1]
        return levels.astype(np.uint8).tobytes() + bytes([label])

    own = [
        recognisable(x.flatten().numpy(), int(y))
        for split in data("digits").values()
        for x, y in zip(*split, strict=True)
    ]
    assert sorted(own) == sorted(recognisable(x, y) for x, y in zip(*load_digits(return_X_y=True), strict=True))


def test_logistic_regression_gets_what_the_paper_of_mnist1d_says():
    """32 % (Greydanus & Kobak, 2024)."""
    from sklearn.linear_model import LogisticRegression

    (inputs, targets), (test, labels) = data("mnist1d").values()
    fitted = LogisticRegression(max_iter=60, tol=1e-3).fit(inputs.flatten(1), targets)
    assert fitted.score(test.flatten(1), labels) == pytest.approx(0.32, abs=0.02)


@pytest.mark.parametrize("name", ["vgg11", "resnet20", "preresnet20"])
def test_vgg_and_resnet_start_as_the_authors_networks_do_and_can_start_as_before(name):
    own, before = (seeded(model(name, (1, 14, 14), 10, 1.0, start), 0) for start in ("fan-in", "fan-out"))
    for layer in own.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            expected = (2 / layer.weight[0].numel()) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.3)
    *_, last = before.modules()
    assert float(last.weight.detach().abs().max()) <= last.in_features**-0.5  # torch's own, bounded
    assert not has_starts("lenet5")
    with pytest.raises(TombolaError, match="lenet5 has one start alone"):
        model("lenet5", (1, 28, 28), 10, start="fan-out")


def test_a_file_that_names_no_start_has_the_network_of_before():
    told = {name: options_from({"data": "digits", "model": name}, []).initialisation for name in ("resnet20", "lenet5")}
    assert told == {"resnet20": "fan-out", "lenet5": "fan-in"}
    labels = make_task(TaskOptions("digits", "resnet20", 0.25)).labels
    assert options_from(labels, []).initialisation == "fan-in"
    assert "initialisation" not in make_task(TaskOptions("digits", "lenet5")).labels
