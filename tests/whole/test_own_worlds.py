"""Networks that people have, on real data: a GAN with two optimizers, an LSTM on a series, a segmentation network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tombola as tb
from tombola import zoo

pytestmark = pytest.mark.slow


def moments(images: Tensor) -> Tensor:
    """Mean and standard deviation of each pixel."""
    return torch.cat([images.mean(0), images.std(0)])


def trained_gan(density: float) -> tuple[float, nn.ModuleDict, tb.Mask]:
    """How far the moments of generated digits are from those of real ones after training, by the distance before."""
    torch.manual_seed(0)
    real = zoo.data("digits")["train"][0].flatten(1)
    gan = nn.ModuleDict(
        {
            "generator": nn.Sequential(
                nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64)
            ),
            "critic": nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1)),
        }
    )
    optimizers = {name: torch.optim.Adam(gan[name].parameters(), 1e-3, (0.5, 0.9)) for name in gan}
    mask = tb.select(tb.scores.magnitude(gan), density, scope="layerwise")
    loss = nn.functional.binary_cross_entropy_with_logits
    noise = torch.randn(1000, 16)

    def distance() -> float:
        with torch.no_grad():
            return float((moments(gan["generator"](noise)) - moments(real)).norm())

    before = distance()
    with tb.attach(mask, gan, optimizers):
        for _ in range(1500):
            some = real[torch.randint(len(real), (64,))]
            fake = gan["generator"](torch.randn(64, 16))
            judged = loss(gan["critic"](some), torch.ones(64, 1)) + loss(
                gan["critic"](fake.detach()), torch.zeros(64, 1)
            )
            optimizers["critic"].zero_grad()
            judged.backward()
            optimizers["critic"].step()
            optimizers["generator"].zero_grad()
            loss(gan["critic"](fake), torch.ones(64, 1)).backward()
            optimizers["generator"].step()
    return distance() / before, gan, mask


def test_a_gan_of_a_third_of_its_weights_learns_as_the_whole_one():
    whole, _, _ = trained_gan(1.0)
    sparse, gan, mask = trained_gan(0.33)
    print(f"distance of moments, by that before training: whole {whole:.2f}, a third of the weights {sparse:.2f}")
    assert max(whole, sparse) < 0.5
    assert not any(gan.get_parameter(name)[~mask[name]].any() for name in mask)


class Reader(nn.Module):
    """A recurrent network that reads the years before and gives the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, years: Tensor) -> Tensor:
        return self.head(self.rnn(years)[0][:, -1])


def test_an_lstm_of_the_sunspots_keeps_its_fit_at_a_fifth_of_its_weights():
    """The numbers of sunspots in the years from 1700 to 2008; the last 60 are the test."""
    sunspots = pytest.importorskip("statsmodels.datasets").sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()
    series = torch.tensor(sunspots, dtype=torch.float32) / 100
    windows, following = series.unfold(0, 20, 1)[:-1, :, None], series[20:, None]
    data = {
        "train": (windows[:-90], following[:-90]),
        "validation": (windows[-90:-60], following[-90:-60]),
        "test": (windows[-60:], following[-60:]),
    }
    recipe = tb.Recipe(epochs=150, batch=32, optimizer="adam", lr=0.01, weight_decay=0.0, precision="float32", clip=1.0)
    task = tb.SupervisedTask(Reader, data, loss="mse", recipe=recipe)
    verdict = tb.check(task, tb.Iterative(density=0.2, count=3), seeds=3)
    print(verdict, verdict.means, sep="\n")
    assert verdict.means["dense"] > 0.6
    assert verdict.means["ticket"] > verdict.means["dense"] - 0.1


def segments(split: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Digits and, for each pixel, its class: 0 for paper, 1 to 10 for ink of a digit."""
    images, classes = split
    ink = images[:, 0] > images[:, 0].mean()
    return images, torch.where(ink, classes[:, None, None] + 1, 0)


def segmentation_network() -> nn.Module:
    return nn.Sequential(
        *(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        ),
        *(nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Upsample(scale_factor=4)),
        *(nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 11, 1)),
    )


def test_a_segmentation_network_of_digits_is_searched_checked_and_shrunk():
    data = {split: segments(pair) for split, pair in zoo.data("digits").items()}
    recipe = tb.Recipe(epochs=15, batch=64, lr=0.05)
    task = tb.SupervisedTask(segmentation_network, data, loss="segmentation", recipe=recipe)
    method = tb.OneShot(density=0.5, granularity=tb.Channels(), scope="layerwise")
    verdict = tb.check(task, method, seeds=2)
    print(verdict, verdict.means, sep="\n")
    assert verdict.means["dense"] > 0.4
    assert verdict.means["ticket"] > 0.7 * verdict.means["dense"]
    found = tb.find(task, method, seed=0)
    trained = tb.train(task, found)
    assert sum(p.numel() for p in trained.model.parameters()) < 0.6 * sum(p.numel() for p in task.build(0).parameters())
