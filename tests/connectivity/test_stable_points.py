"""Lines between networks, copies from one point, and masks compared."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.cli import main
from tombola.connectivity import Ends, Line, barrier, distance_matrix, overlap
from tombola.connectivity.earliest_point import bisected
from tombola.connectivity.instability import Pair, Point, Stability
from tombola.evidence import Measure
from tombola.testing import toy_task
from tombola.training import Step


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5))


def test_a_line_of_a_convex_loss_has_no_loss_barrier_and_its_ends_are_the_networks():
    task = toy_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
    one, other = task.build(0), task.build(1)
    (line,) = barrier(task, Ends(one, other), points=7)
    metric, loss, count = tb.training.evaluate(task, one, "test", task.recipe)
    assert (line.metrics[-1], line.losses[-1], line.samples) == (metric, loss, count)
    chord = [line.losses[0] + (line.losses[-1] - line.losses[0]) * at / 6 for at in range(7)]
    assert all(value <= limit + 1e-6 for value, limit in zip(line.losses, chord, strict=True))


def test_permuted_units_are_one_function_with_a_barrier_between():
    """The ends have equal metrics, the middle does not: a barrier that a wrong line would not show."""
    task = toy_task(plain, epochs=8)
    one = tb.train(task, seed=0).model
    other = plain()
    order = torch.arange(15, -1, -1)
    state = one.state_dict()
    state = {"1.weight": state["1.weight"][order], "1.bias": state["1.bias"][order]} | {
        "3.weight": state["3.weight"][:, order],
        "3.bias": state["3.bias"],
    }
    other.load_state_dict(state)
    (line,) = barrier(task, Ends(one, other), points=5)
    assert line.metrics[0] == line.metrics[-1]
    assert line.loss_barrier > 0.05


def test_a_line_costs_one_evaluation_a_point_and_leaves_networks_as_they_are(monkeypatch):
    task, seen = toy_task(plain), []
    real = tb.connectivity.lines.evaluate
    monkeypatch.setattr("tombola.connectivity.lines.evaluate", lambda *a: seen.append(1) or real(*a))
    ends = Ends(task.build(0), task.build(1))
    before = [p.clone() for p in ends.first.parameters()]
    barrier(task, ends)
    assert len(seen) == 30
    assert all(map(torch.equal, before, ends.first.parameters()))


def test_statistics_taken_anew_are_those_of_the_point_and_counts_of_batches_are_not_mixed():
    task = toy_task()
    ends = Ends(task.build(0), task.build(1))
    for module in ends.second.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 50
            module.num_batches_tracked += 7
    anew, interpolated = barrier(task, ends, points=3)
    clean = barrier(task, Ends(task.build(0), task.build(1)), points=3)[0]
    assert anew.losses == clean.losses
    assert interpolated.losses != anew.losses
    assert all(int(t) == 0 for name, t in ends.between(0.5).items() if "num_batches" in name)


def test_the_line_of_two_masks_runs_over_their_intersection():
    task = toy_task(plain)
    a = tb.Mask.of({"1.weight": torch.rand(16, 64) < 0.5})
    ends = Ends(task.build(0), task.build(1), (a, ~a))
    assert ends.differ_in_mask
    assert not ends.between(0.3)["1.weight"].any()


def test_networks_of_other_shapes_are_refused():
    with pytest.raises(tb.TombolaError, match=r"'weight' is \(2, 3\) in one and \(2, 4\)"):
        Ends(nn.Linear(3, 2), nn.Linear(4, 2))
    with pytest.raises(tb.TombolaError, match="z"):
        Ends(nn.Linear(3, 2), nn.Linear(3, 2), (tb.Mask.of({"z": torch.ones(2)}),) * 2)


def test_copies_share_start_and_mask_and_differ_in_order():
    task = toy_task(plain, epochs=3)
    ticket = tb.find(task, tb.Iterative(density=0.5, rewind="2it"), seed=3)
    found = tb.stability(task, ticket, at=["start", "0it", "1ep"], orders=3, points=3)
    assert [(p.at, p.step, len(p.pairs), p.together) for p in found.points] == [
        ("0it", 0, 3, 3),
        ("start", 2, 3, 3),
        ("1ep", 6, 3, 3),
    ]
    assert all(pair.distance > 0 and pair.travelled > 0 for p in found.points for pair in p.pairs)
    origin = tb.connectivity.copies.Origin(task, ticket, 3, tb.Run())
    (copies,) = tb.connectivity.find_copies(origin, ["2it"], 2)[0].values()
    for name, kept in ticket.mask.items():
        assert torch.equal(copies.start[name], ticket.start.tensors[name] * kept)  # the ticket's own rewinding point
        assert all(not network.get_parameter(name)[~kept].any() for network in copies.networks)


def test_a_finished_study_is_read_and_not_trained_again(tmp_path, monkeypatch):
    task = toy_task(plain)
    first = tb.stability(task, at=["0it", "3it"], points=3, run=tb.Run(0, tmp_path))
    monkeypatch.setattr("tombola.training.ensemble.ensemble_training.fit_together", None)
    monkeypatch.setattr("tombola.training.run.fit", None)
    again = tb.stability(task, at=["0it", "3it"], points=3, run=tb.Run(0, tmp_path))
    assert again.points == first.points
    assert again.cost == first.cost


def test_the_order_of_the_data_without_effect_is_said():
    data = {split: (torch.ones(8, 4), torch.zeros(8, dtype=torch.long)) for split in ("train", "validation", "test")}
    task = tb.SupervisedTask(lambda: nn.Linear(4, 2), data, recipe=tb.Recipe(epochs=1, batch=4, precision="float32"))
    notes = " ".join(tb.stability(task, points=3).notes)
    assert "no effect" in notes
    assert "has 8 samples" in notes


@pytest.mark.parametrize(
    ("boundary", "asked", "earliest"), [(37, [0], 37), (0, [0], 0), (5, [40], 5), (80, [0], 80), (99, [0], None)]
)
def test_bisection_ends_at_a_measured_stable_point_beside_an_unstable_one(boundary, asked, earliest):
    """Six steps an epoch, so that it goes on to single steps; training is stable from the boundary on."""

    def measured(names):
        steps = [Step.parse(name).count for name in names]
        values = {True: (0.9, 0.9, 0.9), False: (0.9, 0.2, 0.9)}
        lines = [Line("test", "none", values[step >= boundary], (0.0, 0.0, 0.0), 1000) for step in steps]
        pairs = [Pair(0, (0, 1), (line,), 1.0, 1.0, 0.1) for line in lines]
        return [Point(f"{step}it", step, (pair,), 0.02, 2) for step, pair in zip(steps, pairs, strict=True)]

    first = measured([f"{step}it" for step in asked])
    found = first + bisected(first, 6, 90, measured)
    ordered = tuple(sorted(found, key=lambda point: point.step))
    stable = Stability("dense", ordered, tb.training.Cost()).earliest
    assert (stable and stable.step) == earliest
    assert earliest in (0, None) or max(point.step for point in found if not point.stable) == earliest - 1
    assert len(found) < 16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"at": "0it"}, "list of points"),
        ({"at": ["500"]}, "not a point in training"),
        ({"at": ["start"]}, "no start of its own"),
        ({"at": ["2ep"]}, "ends after 12 steps"),
        ({"orders": 1}, "at least 1 and 2"),
        ({"orders": "2"}, "at least 1 and 2"),
        ({"subject": "imp"}, "the subject is a str"),
        ({"subject": tb.Mask({})}, "the subject is a Mask"),
        ({"points": 2}, "from 3 on"),
        ({"splits": "test"}, "splits is"),
        ({"statistics": ("new",)}, "statistics is"),
        ({"limit": float("nan")}, "limit is"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, said):
    with pytest.raises(tb.TombolaError, match=said):
        tb.stability(toy_task(plain), **options)


def test_masks_compared():
    a, b = (tb.Mask.of({"w": torch.rand(50, 40, generator=torch.Generator().manual_seed(s)) < 0.2}) for s in (0, 1))
    found = overlap(a, b)
    assert found.iou == pytest.approx(found.expected, abs=0.03)
    assert found.hamming == a.distance(b)
    matrix = distance_matrix([a, b, a])
    assert matrix[0][2] == 0
    assert matrix[0][1] == matrix[1][0] == 1 - found.iou
    with pytest.raises(tb.TombolaError, match="one network"):
        overlap(a, tb.Mask.of({"v": torch.ones(2)}))


def test_the_barrier_is_the_worst_point_against_the_mean_of_the_ends():
    assert Line("test", "none", (0.8, 0.2, 0.6), (0.0, 1.0, 0.5), 10).barrier == pytest.approx(0.5)
    error = Measure("error-rate", lower=True)
    assert Line("test", "none", (0.2, 0.8, 0.4), (0.0, 1.0, 0.5), 10, error).barrier == pytest.approx(0.5)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    words = ["stability", "dense", "--data", "digits", "--recipe.epochs", "1", "--at", "0it", "5it"]
    words += ["--points", "3", "--device", "cpu", "--out", str(tmp_path / "s")]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "s" / "stability.json").read_text())
    assert [point["step"] for point in printed["points"]] == [0, 5]
    assert "trained from" in (tmp_path / "s" / "stability.svg").read_text()
    assert "data:image/svg+xml;base64," in (tmp_path / "s" / "stability.html").read_text()
    (tmp_path / "s" / "stability.json").write_text("mine")
    assert main(words) == 2
    assert "was not written by Tombola" in capsys.readouterr().err


def test_check_explains_why_a_ticket_does_not_win(tmp_path, capsys):
    words = ["check", "random", "--density", "0.5", "--seeds", "1", "--controls", "random", "--recipe.epochs", "1"]
    words += ["--width", "0.1", "--device", "cpu", "--out", str(tmp_path), "--explain", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdicts"][0]["wins"] is None
    assert told["explanation"]["points"][0]["step"] == 0
    assert told["explanation"]["sentence"].startswith("Training from the initialisation is")
    assert '<section id="stability">' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("imp", "imp"),
        ("concrete-ticket-search", "concrete-ticket-search"),
        ("snip", "imp"),
        ("rigl", "imp"),
    ],
)
def test_the_advised_method_is_the_tickets_own_if_it_rewinds_to_steps(subject, name):
    from tombola.cli.explain import _that_rewinds

    assert _that_rewinds(tb.method(subject), subject, "40it") == name
    mask = tb.Mask({"w": tb.tickets.mask.Bits((1,), b"\x80")})
    provenance = tb.tickets.Provenance(method=subject)
    assert _that_rewinds(tb.Ticket(mask, tb.tickets.Seed(0, ""), provenance=provenance), "runs/x", "40it") == name


def test_what_was_not_typed_is_said_by_the_ticket():
    from tombola.cli.explain import _typed

    ticket = tb.find(toy_task(plain), tb.OneShot(density=0.5), progress=False)
    ticket = replace(ticket, provenance=replace(ticket.provenance, task={"data": "digits", "recipe.lr": "0.5"}))
    assert _typed(ticket, ["--data", "mnist1d"]) == ["--density", "0.5", "--recipe.lr", "0.5"]


def test_the_advised_command_rewinds_to_a_measured_point():
    from tombola.cli.explain import _command

    point = Point("40it", 40, (), 0.02, 2)
    words = ["--density", "0.1", "--seeds", "3", "--recipe.lr", "0.5", "--explain", "--model", "lenet5"]
    expected = "tombola find imp --rewind 40it --density 0.1 --recipe.lr 0.5 --model lenet5"
    assert _command("imp", words, point) == expected
