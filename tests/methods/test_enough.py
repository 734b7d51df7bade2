"""How much pre-training is enough: the formula, the bounds, the saturation point, and the watch."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F

import tombola as tb
from tombola import TombolaError, zoo
from tombola.cli import main
from tombola.methods import CurvePoint, EnoughFormula, NeuronPicks, forward_selection, saturation
from tombola.methods.neuron_tickets import TwoLayerDraw
from tombola.papers.claims.bounds import KINDS, fall, instance
from tombola.papers.claims.growing_data import Growing, figures_of
from tombola.papers.pretraining import Growth, bound_rows, enough, enough_sentences, part
from tombola.papers.pretraining.theory import after_pretraining, logless, paper, squared_diameter, telescoped
from tombola.studies import Engine, Store
from tombola.testing import toy_task
from tombola.tickets import attach
from tombola.training import Run, half_squared_error

small_net = partial(zoo.MODELS["two-layer"], (1, 8, 8), 5, 0.05)
OFTEN = tb.methods.EnoughPretraining(picks=10, examples=40, first=2, growth=1.5, stop=False)
TYPED = ["--width", "0.03", "--recipe.lr", "0.5", "--steps", "30", "--picks", "8", "--first", "4"]


def drawn(*pairs: tuple[int, float]) -> list[CurvePoint]:
    return [CurvePoint(step, ticket, 0.9, 0.1, 5) for step, ticket in pairs]


# The formula


@pytest.mark.parametrize(
    ("descent", "examples", "steps"),
    [("sgd", 1_000, 5_872), ("sgd", 50_000, 14_684_852), ("full", 1_000, 3), ("full", 50_000, 291)],
)
def test_the_thresholds_of_the_papers_formula(descent, examples, steps):
    assert round(EnoughFormula(descent=descent).steps(inputs=784, examples=examples, picks=100)) == steps


def test_after_that_many_steps_the_initial_loss_has_fallen_to_one_part_in_k():
    formula = EnoughFormula(2.5)
    steps = formula.steps(50, 400, 30)
    assert formula.remaining(math.ceil(steps), 50, 400) <= 1 / 30 < formula.remaining(math.floor(steps), 50, 400)


@pytest.mark.parametrize("descent", ["sgd", "full"])
def test_the_constant_is_found_again(descent):
    true = EnoughFormula(0.04, descent)
    measured = [(m, true.steps(20, m, 50)) for m in (100, 300, 900)]
    assert EnoughFormula.fitted(measured, inputs=20, picks=50, descent=descent).constant == pytest.approx(0.04)


def test_a_formula_with_c_1_is_not_called_a_prediction():
    assert "no prediction" in EnoughFormula().told(784, 1000, 100)
    assert "5,872" in EnoughFormula().told(784, 1000, 100)
    assert "no prediction" not in EnoughFormula(0.3).told(784, 1000, 100)
    assert "nothing" in EnoughFormula().told(784, 10, 100)


def test_too_few_examples_for_the_formula_are_refused():
    with pytest.raises(TombolaError, match=r"needs c · d/m² between 0 and 1, but it is 7\.84"):
        EnoughFormula().steps(784, 10, 100)
    with pytest.raises(TombolaError, match="no measured saturation"):
        EnoughFormula.fitted([], inputs=784, picks=100)


# The bounds


@pytest.mark.parametrize(("kind", "signs"), list(product(KINDS, (False, True))))
def test_no_loss_is_above_the_proved_bounds(kind, signs):
    generator = torch.Generator().manual_seed(17)
    for _ in range(5):
        picked = forward_selection(*instance(generator, kind, signs), 60)
        for bound in (telescoped(picked), logless(picked)):
            assert (picked.losses <= bound * (1 + 1e-9)).all()
        assert telescoped(picked)[0].item() == pytest.approx(picked.losses[0].item())


def test_the_bounds_are_those_of_the_sheet():
    """By hand for three picks, l(1) = 5, L = 2, V = 6, D² = 14."""
    picked = NeuronPicks(torch.tensor([0, 1, 0]), torch.tensor([5.0, 4.0, 3.0], dtype=torch.float64), 2, 2.0, 6.0)
    telescoped_by_hand = [5, 5 / 2 + 2 / 2 + 6 * (1 / 2) / 4, 5 / 3 + 2 * 2 / 3 + 6 * (1 / 2 + 1 / 3) / 6]
    assert telescoped(picked).tolist() == pytest.approx(telescoped_by_hand)
    by_hand = [(math.sqrt(2) + math.sqrt(6 / (2 * k))) ** 2 for k in (1, 2, 3)]
    assert logless(picked).tolist() == pytest.approx(by_hand)
    assert paper(picked, 14.0).tolist() == pytest.approx([5 / k + 14 / (2 * k) + (k - 1) / k * 2 for k in (1, 2, 3)])


def test_without_the_variance_the_bound_would_be_broken():
    broken = 0
    for seed in range(30):
        picked = forward_selection(*instance(torch.Generator().manual_seed(seed), "anywhere", signs=False), 60)
        broken += bool((picked.losses > logless(replace(picked, variance=0.0)) * (1 + 1e-9)).any())
    assert broken > 10


def test_without_repetition_a_bound_can_be_broken():
    hidden, outgoing = torch.tensor([[1.0, -1.0]]), torch.full((2, 1), 0.5)
    picked = forward_selection(hidden, outgoing, torch.ones(1, 1), 2, repeat=False)
    assert picked.losses.tolist() == [0.0, 0.5]
    assert telescoped(picked).tolist() == pytest.approx([0.0, 0.375])


def test_variance_and_diameter_are_those_of_the_features():
    hidden, outgoing, targets = instance(torch.Generator().manual_seed(1), "anywhere", signs=False)
    features = (len(outgoing) * hidden * outgoing[:, 0]).T
    apart = torch.cdist(features, features).square().max() / len(hidden)
    about = (features - features.mean(0)).square().sum(1).mean() / len(hidden)
    assert squared_diameter(hidden, outgoing) == pytest.approx(apart.item())
    assert forward_selection(hidden, outgoing, targets, 3).variance == pytest.approx(about.item())
    assert about <= apart / 2


def test_the_theorem_takes_the_place_of_the_whole_networks_loss():
    own = instance(torch.Generator().manual_seed(2), "anywhere", signs=False)
    picked, apart = forward_selection(*own, 20), squared_diameter(own[0], own[1])
    settings = {"initial": 3.0, "inputs": 10, "examples": 100}
    begun = after_pretraining(picked, apart, steps=0, zeta=2.0, **settings)
    assert torch.allclose(begun, paper(picked, apart, 6.0))
    later = after_pretraining(picked, apart, steps=10**6, **settings)
    assert torch.allclose(later, paper(picked, apart, 0.0))


def test_the_rows_of_a_chart_hold_measurement_and_bounds():
    picked = forward_selection(*instance(torch.Generator().manual_seed(3), "in the hull", signs=False), 12)
    rows = bound_rows(picked, 1.0)
    assert {row["series"] for row in rows} == {"measured", "bound (B)", "bound (C)", "the paper's form (A)"}
    assert [row["loss"] for row in rows if row["series"] == "measured"] == picked.losses.tolist()


def test_losses_in_the_hull_fall_faster_than_1_over_k():
    falls = [
        fall(forward_selection(*instance(torch.Generator().manual_seed(seed), "in the hull", False), 150).losses)
        for seed in range(8)
    ]
    assert min(falls) > 1
    assert fall(1 / torch.arange(1, 101, dtype=torch.float64)) == pytest.approx(1.0)


# Saturation and growth


def test_the_saturation_is_the_first_ticket_within_the_tolerance_of_the_best():
    curve = drawn((10, 0.5), (20, 0.7), (40, 0.795), (80, 0.8), (160, 0.8), (320, 0.8))
    found = saturation(curve, 0.01, 2)
    assert (found.step, found.settled) == (40, True)
    assert not saturation(curve[:5], 0.01, 2).settled
    assert saturation([], 0.01, 2) is None


def test_a_ticket_that_is_not_judged_yet_settles_nothing():
    rising = drawn((16, 0.549), (24, 0.521), (36, 0.542), (54, 0.556), (81, 0.646))
    assert not saturation(rising, 0.01, 4).settled
    assert saturation(drawn((1, 0.8), (2, 0.8), (4, 0.8)), 0.01, 1).settled


def test_one_lucky_ticket_decides_nothing():
    lucky = drawn((10, 0.5), (20, 0.9), (40, 0.55), (80, 0.7), (160, 0.7), (320, 0.95))
    assert (saturation(lucky, 0.01, 2).step, saturation(lucky, 0.01, 2).best) == (40, 0.7)


def test_each_law_of_growth_is_told_from_the_other():
    sizes = (1_000, 3_000, 10_000, 50_000)
    power = Growth.of([(m, 2 * m**0.5) for m in sizes])
    assert power.exponent == pytest.approx(0.5)
    assert power.power_misfit < 1e-9 < 0.05 < power.logarithm_misfit
    logarithm = Growth.of([(m, -500 + 100 * math.log(m)) for m in sizes])
    assert (logarithm.offset, logarithm.slope) == (pytest.approx(-500), pytest.approx(100))
    assert logarithm.logarithm_misfit < 1e-6 < 0.02 < logarithm.power_misfit
    assert logarithm.logarithm(1_000) == pytest.approx(-500 + 100 * math.log(1_000))
    assert power.power_law(100) == pytest.approx(20)
    falling = Growth.of([(100, 400.0), (1_000, 60.0), (10_000, 40.0)])
    assert falling.logarithm_misfit < 1
    with pytest.raises(TombolaError, match="at least three sizes"):
        Growth.of([(10, 1.0), (20, 2.0)])


# The watch


def test_a_watched_training_is_the_same_training():
    ends = []
    for own in (None, OFTEN):
        run, task = Run(0), toy_task(small_net)
        ticket = tb.find(task, tb.methods.GreedyNeurons(picks=10, until=own), run=run)
        ends.append(ticket.digest)
    assert ends[0] == ends[1]


def test_a_search_stops_by_tickets_that_are_drawn_as_its_own(monkeypatch):
    seen, find = [], TwoLayerDraw.of
    monkeypatch.setattr(TwoLayerDraw, "of", lambda own, *args: seen.append(own) or find(own, *args))
    own = tb.methods.GreedyNeurons(picks=10, repeat=False, examples=30, until=tb.methods.EnoughPretraining(first=2))
    tb.find(toy_task(small_net), own)
    assert {(one.picks, one.repeat, one.examples) for one in seen} == {(10, False, 30)}
    assert len(seen) > 2


def test_a_draw_does_not_read_the_loader_that_training_reads():
    task = toy_task(small_net)
    whole, data = task.batches("train", 0, 0), {}
    for split, pair in (("train", (whole.inputs, whole.targets)), ("validation", task.data["test"])):
        own = torch.utils.data.TensorDataset(*pair)
        data[split] = data["test"] = OneAtATime(own, batch_size=20)
    ticket = tb.find(replace(task, data=data), tb.methods.GreedyNeurons(picks=10, until=OFTEN))
    assert ticket.start.epochs_spent == 2


class OneAtATime(torch.utils.data.DataLoader):
    """A loader that can be read once at a time, as one with persistent workers."""

    reading = False

    def __iter__(self):
        assert not self.reading
        self.reading = True
        try:
            yield from super().__iter__()
        finally:
            self.reading = False


def loop(model, optimizer, steps: int, seed: int = 0):
    task = toy_task(small_net)
    for step in range(steps):
        inputs, targets = list(task.batches("train", seed, step // 6))[step % 6]
        optimizer.zero_grad()
        half_squared_error(model(inputs), targets).backward()
        optimizer.step()
        yield step


def watched(own: tb.methods.EnoughPretraining):
    torch.manual_seed(0)
    task, model = toy_task(small_net), small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    watch = own.watch(model, optimizer, task.batches("train", 0, 0), task.batches("validation", 0, 0))
    return model, optimizer, watch


def test_a_users_own_loop_is_watched_and_told_when_it_is_enough():
    own = tb.methods.EnoughPretraining(picks=10, examples=40, first=2, growth=1.5, patience=2, tolerance=0.5)
    model, optimizer, watch = watched(own)
    assert watch.sentence.startswith("No ticket has been drawn yet.")
    steps = [step + 1 for step in loop(model, optimizer, 20) if not watch.enough]
    assert [point.step for point in watch.curve] == [2, 3, 4, 6, 9, 14]
    assert len(steps) < 20
    assert watch.saturation.settled
    assert "stopped paying after" in watch.sentence
    assert "no prediction" in watch.sentence
    count = len(watch.curve)
    watch.detach()
    list(loop(model, optimizer, 10))
    assert len(watch.curve) == count


def test_a_metric_may_give_a_number_and_a_forward_its_own_precision():
    torch.manual_seed(0)
    task, model = toy_task(small_net), small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def mixed_precision(own, inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return own(inputs)

    watch = OFTEN.watch(
        model,
        optimizer,
        task.batches("train", 0, 0),
        task.batches("validation", 0, 0),
        forward=mixed_precision,
        metric=lambda outputs, targets: float((outputs.argmax(1) == targets).float().mean()),
    )
    list(loop(model, optimizer, 3))
    assert [own.step for own in watch.curve] == [2, 3]


def test_more_neurons_than_there_are_are_refused_before_training():
    with pytest.raises(TombolaError, match="60 neurons are to be picked without repetition, but '1' has 50"):
        watched(tb.methods.EnoughPretraining(picks=60, repeat=False))


def test_the_watchs_ticket_is_of_now_and_leaves_the_model_as_it_is():
    model, optimizer, watch = watched(OFTEN)
    list(loop(model, optimizer, 8))
    before = copy.deepcopy(model.state_dict())
    model.train()
    ticket = watch.ticket
    assert model.training
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    assert ticket.mask.counts["1.weight"] // 64 == watch.curve[-1].distinct
    other = small_net()
    ticket.put_into(other)
    attach(ticket.mask, other).detach()
    outputs, targets = (torch.cat(own) for own in zip(*validated(other), strict=True))
    assert (outputs.argmax(1) == targets).float().mean().item() == pytest.approx(watch.curve[-1].ticket)


def validated(model):
    return [(model(inputs), targets) for inputs, targets in toy_task(small_net).batches("validation", 0, 0)]


def test_a_watch_goes_on_from_its_state():
    whole_model, whole_optimizer, whole = watched(OFTEN)
    list(loop(whole_model, whole_optimizer, 12))
    model, optimizer, first = watched(OFTEN)
    for step in loop(model, optimizer, 12):
        if step == 5:
            state = copy.deepcopy(first.state_dict())
            first.detach()
            second = OFTEN.watch(model, optimizer, first._draws.train, first._draws.validation)
            second.load_state_dict(state)
    assert second.curve == whole.curve
    assert json.loads(json.dumps(state))["steps"] == 6
    with pytest.raises(TombolaError, match=r"give what watch\.state_dict\(\) gave"):
        second.load_state_dict({"steps": 1})


def test_a_search_stops_when_it_is_enough():
    task = toy_task(small_net, epochs=6)
    run = Run(0)
    until = tb.methods.EnoughPretraining(first=1, growth=1.2, patience=1, tolerance=1.0, examples=40)
    ticket = tb.find(task, tb.methods.GreedyNeurons(picks=10, until=until), run=run)
    assert ticket.start.epochs_spent == 1
    (row,) = (row for row in run.history if row["stage"] == "enough")
    assert {"step", "ticket", "whole", "loss", "distinct"} == set(row["curve"][0])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"growth": 1.0}, "growth is 1.0"),
        ({"picks": 0}, "picks is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"at": ("5",)}, "'5' is not a point in training"),
        ({"at": ("0it",)}, "a ticket is asked for at '0it'"),
    ],
)
def test_bad_settings_get_one_sentence(wrong, says):
    with pytest.raises(TombolaError, match=says):
        tb.methods.EnoughPretraining(**wrong)


def test_epochs_cannot_be_counted_in_a_users_own_loop():
    with pytest.raises(TombolaError, match="write tickets' steps as '500it'"):
        watched(tb.methods.EnoughPretraining(at=("1ep",)))


def test_named_steps_are_where_tickets_are_drawn():
    model, optimizer, watch = watched(tb.methods.EnoughPretraining(picks=5, examples=20, at=("3it", "7it")))
    list(loop(model, optimizer, 9))
    assert [own.step for own in watch.curve] == [3, 7]


# By size of the data


def test_parts_hold_each_other_and_train_as_long():
    task = toy_task(small_net)
    (small, _), (large, _) = (part(task, size, 3, 20).data["train"] for size in (30, 60))
    assert torch.equal(large[:30], small)
    assert part(task, 30, 3, 20).recipe.epochs == 10
    assert not torch.equal(part(task, 30, 4, 20).data["train"][0], small)
    with pytest.raises(TombolaError, match="a part of 1000 examples is asked of 108"):
        part(task, 1000, 0, 20)


def test_a_study_measures_each_size_once_and_predicts_the_largest(tmp_path):
    def study():
        return enough(
            toy_task(small_net), OFTEN, sizes=(30, 50, 100), steps=12, seeds=range(2), engine=Engine(Store(tmp_path))
        )

    done = study()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("ticket.safetensors")}
    assert len(stamps) == 6
    assert study() == done
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("ticket.safetensors")} == stamps
    assert done.sizes == (30, 50, 100)
    assert done.fitted(30) is None
    own = EnoughFormula.fitted([(m, done.steps[m]) for m in (30, 50)], inputs=64, picks=10)
    assert done.fitted(100) == own
    assert max(drawn.step for own in done.runs for drawn in own.curve) <= 12
    assert [row["formula"] for row in done.to_json()["sizes"]] == [
        EnoughFormula().steps(64, m, 10) for m in (30, 50, 100)
    ]
    assert figures_of(done)["enough at 100"] > 0
    assert set(figures_of(done)) == set(Growing(sizes=(30, 50, 100)).units)


def test_how_tickets_are_judged_trains_nothing_again(tmp_path):
    def study(**own):
        sizes, engine = (30, 100, 100), Engine(Store(tmp_path))
        return enough(toy_task(small_net), replace(OFTEN, **own), sizes=sizes, steps=12, seeds=(0,), engine=engine)

    usual = study()
    other = study(tolerance=0.3, patience=2, formula=EnoughFormula(0.3, "full"))
    assert len(list(tmp_path.rglob("ticket.safetensors"))) == 2
    assert [own.curve for own in other.runs] == [own.curve for own in usual.runs]
    assert other.seeds == 1
    assert other.said(100, other.own.formula) == EnoughFormula(0.3, "full").steps(64, 100, 10)
    assert other.fitted(100).descent == "full"
    assert "With c = 0.3 the formula says" in enough_sentences(other)[-1]


def test_one_pick_says_that_the_formula_says_nothing(tmp_path):
    own = replace(OFTEN, picks=1)
    done = enough(toy_task(small_net), own, sizes=(30, 100), steps=4, seeds=(0,), engine=Engine(Store(tmp_path)))
    assert done.fitted(100) is None
    assert "for a single pick no c makes it say more" in enough_sentences(done)[-1]
    with pytest.raises(TombolaError, match="at least two picks"):
        EnoughFormula.fitted([(30, 4.0)], inputs=64, picks=1)


@pytest.mark.parametrize(
    ("build", "targets"), [(small_net, torch.rand(120, 5)), (partial(zoo.MODELS["two-layer"], (1, 8, 8), 1), None)]
)
def test_the_study_refuses_targets_that_accuracy_cannot_count(build, targets):
    task = toy_task(build)
    inputs, classes = task.data["train"]
    own = replace(task, data={**task.data, "train": (inputs, classes if targets is None else targets)})
    with pytest.raises(TombolaError, match="judged by accuracy, which needs class numbers and an output a class"):
        enough(own, OFTEN, sizes=(30,), steps=5, seeds=(0,), engine=Engine(Store("nowhere")))


def test_the_study_refuses_what_is_no_two_layer_network():
    with pytest.raises(TombolaError, match="use the method greedy"):
        enough(toy_task(), OFTEN, sizes=(30,), steps=5, seeds=(0,), engine=Engine(Store("nowhere")))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_measures_fits_draws_and_measures_nothing_twice(here, capsys):
    words = ["enough", "--data", "digits", "--sizes", "60", "200", "600", "--seeds", "1", "--out", "e", *TYPED]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [own["examples"] for own in told["sizes"]] == [60, 200, 600]
    assert told["sizes"][0]["fitted"] is None
    assert told["sizes"][2]["c"] > 0
    assert told["growth"]["power_misfit"] >= 0
    assert "not a prediction" in told["sentences"][-1]
    page = (here / "e" / "enough.html").read_text()
    assert "http" not in page.partition("<script>")[0].replace("http-equiv", "")
    assert f"tombola {' '.join(words)}" in page
    assert {path.name for path in (here / "e").glob("*.png")} == {"ticket.png", "whole.png", "growth.png", "bounds.png"}
    stamps = {path: path.stat().st_mtime_ns for path in (here / "e").rglob("ticket.safetensors")}
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "How much pre-training was enough" in out
    assert "Report: e/enough.html" in out
    assert {path: path.stat().st_mtime_ns for path in (here / "e").rglob("ticket.safetensors")} == stamps


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "lenet5"], "use the method greedy"),
        (["--sizes", "5000", *TYPED], "a part of 5000 examples is asked of 1294"),
        (["--growth", "0.5"], "growth is 0.5"),
        (["--steps", "1", "--first", "500", *TYPED[:4]], "steps are over before the first ticket is drawn"),
    ],
)
def test_the_commands_bad_words_get_one_sentence(here, capsys, words, says):
    assert main(["enough", "--data", "digits", "--seeds", "1", *words]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_half_the_squared_error_takes_classes_and_numbers():
    outputs, classes = torch.randn(7, 3), torch.arange(7) % 3
    one_hot = F.one_hot(classes, 3).float()
    assert half_squared_error(outputs, classes) == half_squared_error(outputs, one_hot)
    assert half_squared_error(outputs, one_hot).item() == pytest.approx((outputs - one_hot).square().sum().item() / 14)


def test_one_output_a_sample_meets_flat_targets():
    numbers = torch.randn(6)
    assert half_squared_error(numbers[:, None], numbers).item() == 0
    assert half_squared_error(torch.ones(4, 1), torch.tensor([0, 1, 1, 0])).item() == pytest.approx(0.25)
    assert half_squared_error(numbers, numbers).item() == 0
    for outputs, targets in ((torch.randn(6, 2), numbers), (torch.randn(6, 2), torch.randn(6, 3))):
        with pytest.raises(TombolaError, match="do not fit outputs of shape"):
            half_squared_error(outputs, targets)
