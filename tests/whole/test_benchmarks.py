"""The benchmarks' own arithmetic, and a page that keeps its words."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

import tombola as tb
from pretended_device import NAME, pretended_device
from tombola import zoo
from tombola.training import binary_accuracy, binary_cross_entropy

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import __main__ as bench
from benchmarks import gpu, optimizers, spiral
from benchmarks.ensemble import compared, perceptron
from benchmarks.greedy import selection
from benchmarks.measure import Figure, Times, interleaved, peak_bytes, saved_bytes
from benchmarks.scores import memory, memory_of_step
from benchmarks.sparse import a_random_ticket, at


def test_variants_take_turns_and_the_slower_one_is_told_from_the_faster():
    order: list[str] = []

    def work(name: str, seconds: float):
        def run() -> None:
            order.append(name)
            time.sleep(seconds)

        return run

    times = interleaved({"fast": work("fast", 0.002), "slow": work("slow", 0.012)}, 5, warm=1)
    assert order == ["fast", "slow"] * 6
    assert times.ratio("slow", "fast") > 2


def test_a_figure_knows_whether_it_meets_its_bar():
    times = Times({"a": 1.0, "b": 2.0}, 0.1)
    assert [times.figure("x", "a", "b", bar).met for bar in (0.5, 0.4, None)] == ["yes", "no", "–"]


def test_saved_bytes_are_those_that_backward_needs():
    weight = torch.randn(10, 10, requires_grad=True)
    x = torch.randn(4, 10)
    assert saved_bytes(lambda: (x @ weight).square().sum()) == 4 * (4 * 10) * 2


def test_peak_bytes_are_the_most_that_is_held_at_once():
    def work() -> None:
        for _ in range(3):
            torch.zeros(1000, 250)
        kept = torch.zeros(1000, 500) + 1
        del kept

    assert peak_bytes(work) == pytest.approx(2 * 2_000_000, rel=0.01)


def test_prospr_takes_at_most_three_times_the_memory_of_a_training_step():
    model = zoo.model("resnet20", (3, 32, 32), 10)()
    batches = [(torch.randn(8, 3, 32, 32), torch.arange(8)) for _ in range(4)]
    step, (one, three) = (
        memory_of_step(model, batches[0]),
        (memory(tb.scores.ProsPr(own), model, batches) for own in (1, 3)),
    )
    assert 1 < three / step < 3
    assert three - one < 3 * sum(parameter.nbytes for parameter in model.parameters())


def test_the_page_keeps_its_words_and_names_the_machine(tmp_path, monkeypatch):
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n<!-- steps -->\nold\n<!-- end of steps -->\nafter\n")
    monkeypatch.setattr(bench, "PAGE", page)
    text = bench.page("steps", [Figure("one", 0.5, 1.0, "note", 0.2)])
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| one | 0.5 | ≤ 1 | yes | 20% | note |" in text
    assert torch.__version__ in text


def test_a_busy_machine_and_a_wide_spread_are_said(monkeypatch, capsys, tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("<!-- sparse -->\n<!-- end of sparse -->\n")
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "sparse"])
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (100.0, 0, 0))
    monkeypatch.setattr(bench.sparse, "figures", lambda: iter([Figure("one", 0.5, 1.0, "", 0.9)]))
    assert bench.main() == 0
    told = capsys.readouterr().out
    assert "This machine is busy" in told
    assert "1 figures spread" in told


@pytest.mark.slow
def test_the_sparse_benchmark_runs():
    model, mask = a_random_ticket("784-300-100-10", 0.95)
    figure = at("784-300-100-10", model, mask, 0.95, 256, 1)
    assert figure.bar == 1 / 5
    assert 0 < figure.ratio < 1


def test_the_optimizers_benchmark_runs():
    bars = [figure.bar for figure in optimizers.figures((4,), repeats=3)]
    assert bars == [1.03, 1.03, 1.03, None, None]


def test_the_greedy_benchmark_runs():
    figure = selection(300, 200, 3, 5, repeats=2)
    assert figure.bar == 1.3
    assert "5 of 200 neurons" in figure.what
    assert figure.ratio > 0


def test_the_spirals_benchmark_stands_for_the_whole_study():
    searched = sum(part.runs for part in spiral.parts())
    assert searched + 9 * 9 * sum(spiral.tickets_of_width().values()) == 485_838


def test_a_group_of_the_spirals_study_is_timed():
    few = [tb.training.Member(seed) for seed in range(2)]
    assert spiral.timed(few, (2, 2, 2), epochs=1) > 0


def test_the_ensemble_benchmark_compares_a_networks_epochs():
    inputs, targets = torch.randn(1280, 2), torch.randint(0, 2, (1280,))
    data = {"train": (inputs, targets), "validation": (inputs[:0], targets[:0]), "test": (inputs, targets)}
    recipe = tb.Recipe(batch=64, precision="float32")
    task = tb.SupervisedTask(perceptron, data, binary_cross_entropy, recipe, binary_accuracy)
    times = compared(task, 8, turns=1, epochs=4)
    assert times.ratio("together", "alone") > 0


def test_without_a_gpu_nothing_is_measured_there_and_said_so(capsys):
    assert gpu.main() == 0
    assert capsys.readouterr().out == "There is no GPU here, so nothing is measured.\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tombola.methods.SearchWarning")
def test_the_figures_of_a_gpu_can_be_measured(monkeypatch):
    monkeypatch.setattr(gpu, "NETWORKS", {"lenet-300-100": (1, 28, 28)})
    with pretended_device():
        figures = list(gpu.figures(torch.device(NAME), repeats=2))
    assert len(figures) == 7
    assert all(figure.ratio > 0 for figure in figures)
