"""Fixtures that several test files share."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

# Tensors are so small that several threads only wait for each other, here and in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["LOKY_MAX_CPU_COUNT"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _on_the_cpu(request, monkeypatch):
    """Where a GPU is, the device `auto` is it in tests/cuda alone: elsewhere results are compared with the CPU's."""
    if "cuda" not in request.path.parts:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """No lines of progress, which would come wherever the machine is slow."""
    monkeypatch.setattr("tombola.training.progress.EVERY", float("inf"))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def without_pictures(monkeypatch):
    """Reports have no figures beside them, which take a second each."""
    monkeypatch.setattr("tombola.report.html_page.exports", lambda *_: {})


@pytest.fixture
def small_net() -> nn.Module:
    """A convolution, batch norm and a classifier on 1×6×6 images: every kind of tensor in a few hundred numbers."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
