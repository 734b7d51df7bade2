"""Attacks keep to ball and bounds, find what can be worked out by hand, and come near to AutoAttack's."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola import TombolaError
from tombola.robust import fgsm, pgd
from tombola.zoo.convnet import conv_n
from tombola.zoo.digits import digits

EPSILONS = {"one": 0.1, "none": 0.0, "wide": 3.0, "by channel": torch.tensor([0.05, 0.2]).view(2, 1, 1)}
BOUNDS = {"one": (0.0, 1.0), "by channel": (torch.tensor([-0.5, 0.0]).view(2, 1, 1), torch.ones(2, 1, 1))}


def made(classes: int = 3) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of two-channel images with batch norm and dropout, images in [0, 1] and targets."""
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 36, classes),
    )
    return network, torch.rand(5, 2, 6, 6), torch.randint(classes, (5,))


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ball_and_bounds_are_kept_exactly(dtype, attack, epsilon, bounds):
    network, images, targets = made()
    network, images = network.to(dtype), images.to(dtype)
    reach, (low, high) = EPSILONS[epsilon], BOUNDS[bounds]
    attacked = attack(network, images, targets, F.cross_entropy, reach, (low, high))
    assert attacked.shape == images.shape
    assert attacked.dtype == images.dtype
    assert not attacked.requires_grad
    assert (attacked >= images - reach).all()
    assert (attacked <= images + reach).all()
    assert (attacked >= low).all()
    assert (attacked <= high).all()
    assert torch.equal(attacked, images) == (epsilon == "none")


def test_fgsm_is_a_step_along_the_sign_of_the_gradient():
    network, images, targets = made()
    wanted = images.clone().requires_grad_()
    F.cross_entropy(copy.deepcopy(network).eval()(wanted), targets).backward()
    assert wanted.grad is not None
    expected = (images + 0.1 * wanted.grad.sign()).clamp(0, 1)
    assert torch.allclose(fgsm(network, images, targets, F.cross_entropy, 0.1, (0.0, 1.0)), expected, atol=1e-7)


def test_one_step_of_pgd_without_random_start_is_fgsm():
    network, images, targets = made()
    once = pgd(network, images, targets, F.cross_entropy, 0.1, (0.0, 1.0), steps=1, step=0.1, random_start=False)
    assert torch.equal(once, fgsm(network, images, targets, F.cross_entropy, 0.1, (0.0, 1.0)))


@pytest.mark.parametrize("random_start", [True, False])
def test_on_a_linear_network_pgd_finds_the_worst_case(random_start):
    """The loss grows by ε·Σ|w| where no bound stops it, each input at its own end of the ball."""
    weight, images = torch.randn(20), torch.rand(8, 20)
    targets = torch.tensor([1.0, -1.0] * 4)
    worst = (images - 0.1 * targets[:, None] * weight.sign()).clamp(0, 1)
    found = pgd(
        lambda x: x @ weight,
        images,
        targets,
        lambda outputs, targets: F.softplus(-targets * outputs).mean(),
        0.1,
        (0.0, 1.0),
        random_start=random_start,
    )
    assert torch.allclose(found, worst, atol=1e-6)


def test_normalised_images_are_attacked_as_plain_ones_are():
    network, images, targets = made()
    mean, std = torch.tensor([0.3, 0.6]).view(2, 1, 1), torch.tensor([0.5, 0.125]).view(2, 1, 1)
    plain = pgd(lambda x: network.eval()((x - mean) / std), images, targets, F.cross_entropy, 0.1, (0.0, 1.0))
    bounds = (0 - mean) / std, (1 - mean) / std
    scaled = pgd(network, (images - mean) / std, targets, F.cross_entropy, 0.1 / std, bounds)
    assert torch.allclose(scaled * std + mean, plain, atol=1e-5)


def test_the_seed_decides_the_start():
    network, images, targets = made()
    same, again, other = (
        pgd(network, images, targets, F.cross_entropy, 0.1, (0.0, 1.0), steps=2, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_network_and_random_state_are_as_before(attack):
    network, images, targets = made()
    network[3].eval()
    F.cross_entropy(network(images), targets).backward()
    before, given = copy.deepcopy(network), images.clone()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    state = torch.get_rng_state()
    with torch.no_grad():
        attack(network, images, targets, F.cross_entropy, 0.1, (0.0, 1.0))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, given)
    assert not images.requires_grad
    assert [part.training for part in network.modules()] == [part.training for part in before.modules()]
    assert network.training
    for name, value in before.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_the_modes_come_back_after_an_error():
    network, images, _ = made()
    with pytest.raises(ValueError):
        fgsm(network, images, torch.zeros(99, dtype=torch.long), F.cross_entropy, 0.1, (0.0, 1.0))
    assert all(part.training for part in network.modules())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"images": torch.full((2, 2, 6, 6), 2.0)}, "reach from 2 to 2, outside their bounds"),
        ({"images": torch.full((2, 2, 6, 6), float("nan"))}, "outside their bounds"),
        ({"images": torch.ones(2, 2, 6, 6, dtype=torch.uint8)}, "torch.uint8; give them as floats"),
        ({"epsilon": -0.1}, "at least 0 and at least one step, not -0.1 and 10"),
        ({"steps": 0}, "at least one step, not 0.1 and 0"),
    ],
)
def test_bad_input_is_refused(changed, words):
    network, images, targets = made()
    given = {"images": images, "targets": targets, "loss": F.cross_entropy, "epsilon": 0.1, "bounds": (0.0, 1.0)}
    with pytest.raises(TombolaError, match=words):
        pgd(network, **{**given, **changed})


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A Conv-2 trained on the digits, with their test images in [0, 1]."""
    (images, labels), (tests, targets) = digits().values()
    low, high = images.min(), images.max()
    images, tests = ((own - low) / (high - low) for own in (images, tests))
    network = conv_n(2, (1, 8, 8), 10, width=0.25)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(12):
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return network.eval(), tests, targets


@pytest.mark.slow
def test_pgd_comes_near_to_autoattacks_apgd():
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    network, images, targets = trained()

    @torch.no_grad()
    def accuracy(inputs: Tensor) -> float:
        return float((network(inputs).argmax(1) == targets).float().mean())

    assert accuracy(images) > 0.95
    for epsilon in (0.05, 0.1, 0.15):
        stronger = autopgd.APGDAttack(network, n_iter=50, eps=epsilon, seed=0, device="cpu").perturb(images, targets)
        ours = pgd(network, images, targets, F.cross_entropy, epsilon, (0.0, 1.0), steps=20)
        once = fgsm(network, images, targets, F.cross_entropy, epsilon, (0.0, 1.0))
        assert accuracy(stronger) <= accuracy(ours) <= accuracy(stronger) + 0.03
        assert accuracy(ours) < accuracy(once) < accuracy(images)
