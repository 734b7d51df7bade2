"""Corruptions are those of CIFAR-10-C and of corrupt-tta, follow from their arguments, and refuse what they cannot."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import hsv2rgb, rgb2hsv
from torch import Tensor

from tombola import TombolaError
from tombola.robust import corrupt
from tombola.robust.corruptions import _CORE, ALL, CORE, SUITES, _clouds
from tombola.training import own_randomness

SHAPES = [(2, 1, 8, 8), (3, 1, 14, 14), (2, 3, 32, 32), (1, 3, 20, 45)]


def pictures(*shape: int) -> Tensor:
    """Smooth images with a sharp edge, in [0, 1]."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, shape[2]), torch.linspace(0, 1, shape[3]), indexing="ij")
    waves = 0.5 + 0.4 * torch.sin(6 * rows + 4 * columns + torch.rand(*shape[:2], 1, 1) * 6)
    return torch.where(rows + columns > 1.2, waves, 1 - waves)


def settings(kind: str) -> list:
    return list(enumerate(_CORE[kind][1], start=1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("suite", "kind"), [(suite, kind) for suite, kinds in SUITES.items() for kind in kinds])
def test_every_corruption_follows_from_its_arguments_and_keeps_shape_and_range(suite, kind, shape):
    if suite == "all":
        pytest.importorskip("corrupt_tta")
    images = pictures(*shape)
    given, torch_state = images.clone(), torch.get_rng_state()
    for severity in range(1, 6):
        once = corrupt(images, kind, severity, seed=3, suite=suite)
        expected = np.random.RandomState()
        expected.set_state(np.random.get_state())
        again = corrupt(images, kind, severity, seed=3, suite=suite)
        assert np.random.rand() == expected.rand()
        assert torch.equal(once, again)
        assert once.shape == images.shape
        assert once.dtype == images.dtype
        assert once.is_contiguous()
        assert once.min() >= 0
        assert once.max() <= 1
        assert not torch.equal(once, images)
    assert torch.equal(images, given)
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", CORE)
def test_images_of_another_precision_are_corrupted_alike(kind, dtype):
    images = pictures(2, 3, 14, 14)
    found = corrupt(images.to(dtype), kind, 5)
    assert found.dtype == dtype
    assert (found.float() - corrupt(images, kind, 5)).abs().max() < 0.02


def test_what_normalising_and_its_undoing_round_off_is_no_other_range():
    images = torch.tensor([-1e-6, 0.0, 1.0, 1 + 1e-6]).repeat(1, 1, 8, 2)
    for kind in CORE:
        assert torch.equal(corrupt(images, kind, 2), corrupt(images.clamp(0, 1), kind, 2))


@pytest.mark.parametrize("kind", ["gaussian-noise", "fog"])
def test_the_seed_decides_what_is_random(kind):
    images = pictures(4, 1, 14, 14)
    one, other = (corrupt(images, kind, 3, seed) for seed in (0, 1))
    assert not torch.equal(one, other)
    assert not torch.equal(one[0] - images[0], one[1] - images[1])


@pytest.mark.parametrize("kind", [kind for kind in CORE if kind != "pixelate"])
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_a_higher_severity_changes_more(kind, shape):
    images = pictures(20, *shape[1:])
    changes = [float((corrupt(images, kind, severity) - images).square().mean()) for severity in range(1, 6)]
    assert changes == sorted(changes)
    assert len(set(changes)) == 5


def test_noise_has_the_spread_of_its_severity():
    images = torch.full((50, 3, 16, 16), 0.5)
    for severity, spread in settings("gaussian-noise"):
        assert float((corrupt(images, "gaussian-noise", severity) - images).std()) == pytest.approx(spread, rel=0.02)


def test_blur_is_scipys():
    images = pictures(2, 3, 14, 20)
    for severity, sigma in settings("gaussian-blur"):
        expected = gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
        assert np.allclose(corrupt(images, "gaussian-blur", severity).numpy(), expected, atol=1e-5)


def test_contrast_shrinks_each_channel_about_its_mean():
    images = pictures(2, 3, 8, 8)
    for severity, share in settings("contrast"):
        found = corrupt(images, "contrast", severity)
        assert torch.allclose(found.mean((2, 3)), images.mean((2, 3)), atol=1e-6)
        assert torch.allclose(found.std((2, 3)), share * images.std((2, 3)), atol=1e-6)


def test_brightness_adds_to_hsv_value_and_for_grey_to_the_level():
    images = pictures(2, 3, 16, 16)
    images[0, :, 0] = torch.tensor([[0.0], [0.0], [0.0]])
    images[0, :, 1] = torch.tensor([[1e-40], [0.0], [0.0]])
    images[0, :, 2] = torch.tensor([[1.0], [0.2], [0.0]])
    grey = images[:, :1]
    for severity, more in settings("brightness"):
        hsv = rgb2hsv(images.double().permute(0, 2, 3, 1).numpy())
        hsv[..., 2] = np.clip(hsv[..., 2] + more, 0, 1)
        expected = torch.from_numpy(hsv2rgb(hsv)).permute(0, 3, 1, 2)
        assert torch.allclose(corrupt(images, "brightness", severity).double(), expected, atol=1e-5)
        assert torch.allclose(corrupt(grey, "brightness", severity), (grey + more).clamp(max=1))


@pytest.mark.parametrize("side", [8, 20, 28, 32, 50])
def test_pixelate_is_pillows_box_resize(side):
    image_module = pytest.importorskip("PIL.Image")
    levels = np.random.default_rng(side).integers(0, 256, (side, side)).astype(np.uint8)
    images = torch.from_numpy(levels).float()[None, None] / 255
    for severity, share in settings("pixelate"):
        small = image_module.fromarray(levels).resize((int(share * side),) * 2, image_module.Resampling.BOX)
        expected = np.asarray(small.resize((side, side), image_module.Resampling.BOX)) / 255
        assert np.abs(corrupt(images, "pixelate", severity)[0, 0].numpy() - expected).max() < 1.6 / 255


def test_fog_lightens_the_dark_and_keeps_the_brightest_level():
    images = pictures(5, 3, 32, 32)
    brightest = images.amax((1, 2, 3))
    for severity, (thickness, _) in settings("fog"):
        found = corrupt(images, "fog", severity)
        least = images * (brightest / (brightest + thickness))[:, None, None, None]
        assert (found >= least - 1e-6).all()
        assert (found.amax((1, 2, 3)) <= brightest + 1e-6).all()
        black = corrupt(torch.zeros(1, 1, 8, 8), "fog", severity)
        assert torch.equal(black, torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("decay", [1.75, 3.0])
def test_clouds_are_like_the_benchmarks(decay):
    """The same mean, spread and likeness of neighbours, over many patterns."""
    reference = pytest.importorskip("corrupt_tta.corruptions")

    def numbers(patterns: np.ndarray) -> list[float]:
        near = [patterns - np.roll(patterns, shift, axis) for shift in (1, 2, 8) for axis in (1, 2)]
        return [patterns.mean(), patterns.std(), patterns.mean((1, 2)).std(), *(np.abs(own).mean() for own in near)]

    ours = _clouds(1000, 32, decay, torch.Generator().manual_seed(0)).double().numpy()
    with own_randomness(torch.device("cpu"), 0):
        theirs = np.stack([reference.plasma_fractal(32, decay) for _ in range(1000)])
    assert (ours.min(), ours.max()) == (0, 1)
    assert ours.shape == theirs.shape
    assert numbers(ours) == pytest.approx(numbers(theirs), rel=0.04)


def test_all_is_corrupt_ttas_own_where_nothing_is_padded():
    corrupt_tta = pytest.importorskip("corrupt_tta")
    assert {kind.replace("-", "_") for kind in ALL} == set(corrupt_tta.corruption_dict)
    levels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    images = torch.from_numpy(levels).permute(0, 3, 1, 2) / 255
    for kind in set(ALL) - {"impulse-noise"}:
        with own_randomness(torch.device("cpu"), 7, 2, *kind.encode()):
            expected = np.stack([corrupt_tta.corrupt(image, 2, kind.replace("-", "_")) for image in levels]) / 255
        found = corrupt(images, kind, 2, seed=7, suite="all").permute(0, 2, 3, 1)
        assert np.allclose(found, expected, atol=1e-6), kind


def test_impulses_are_as_many_as_corrupt_ttas():
    corrupt_tta = pytest.importorskip("corrupt_tta")
    grey = np.full((100, 100, 3), 128, np.uint8)
    for severity in range(1, 6):
        theirs = (corrupt_tta.corrupt(grey, severity, "impulse_noise") != 128).mean()
        found = corrupt(torch.full((1, 3, 100, 100), 128 / 255), "impulse-noise", severity, suite="all")
        assert ((found - 128 / 255).abs() > 0.1).double().mean() == pytest.approx(theirs, abs=0.015)


def test_without_the_extra_the_core_works_and_all_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "corrupt_tta", None)
    for kind in CORE:
        corrupt(pictures(1, 1, 8, 8), kind, 1)
    with pytest.raises(TombolaError, match=r"pip install 'tombola\[robust\]'"):
        corrupt(pictures(1, 1, 8, 8), "snow", 1, suite="all")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"kind": "gausian-noise"}, "no core-suite corruption 'gausian-noise'; did you mean 'gaussian-noise'"),
        ({"kind": "snow"}, "no core-suite corruption 'snow'"),
        ({"suite": "al"}, "no suite of corruptions 'al'; did you mean 'all'"),
        ({"severity": 0}, "no severity 0; give a whole number from 1 to 5"),
        ({"severity": 6}, "no severity 6"),
        ({"images": torch.full((1, 1, 8, 8), -0.42)}, "torch.float32 from -0.42 to -0.42; scale them to 0…1"),
        ({"images": torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)}, "torch.uint8 from 255 to 255"),
        ({"images": torch.full((1, 1, 8, 8), float("nan"))}, "from nan to nan"),
        ({"images": torch.zeros(1, 8, 8)}, r"at least 8×8, not \(1, 8, 8\)"),
        ({"images": torch.zeros(1, 2, 8, 8)}, r"not \(1, 2, 8, 8\)"),
        ({"images": torch.zeros(1, 3, 7, 8)}, r"not \(1, 3, 7, 8\)"),
        ({"images": torch.zeros(0, 3, 8, 8)}, r"not \(0, 3, 8, 8\)"),
    ],
)
def test_bad_input_is_refused(changed, words):
    given = {"images": pictures(1, 1, 8, 8), "kind": "fog", "severity": 1}
    with pytest.raises(TombolaError, match=words):
        corrupt(**{**given, **changed})
