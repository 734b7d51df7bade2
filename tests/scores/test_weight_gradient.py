"""Weight × gradient: each way of gathering, the exponent, resuming, granularities, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tombola as tb
from killed import Kill
from networks import short_network, short_resnet, short_transformer
from tombola import TombolaError
from tombola.scores import Movement, UnusedWarning, WeightGradient
from tombola.testing import check_method, check_score, toy_network, toy_task
from tombola.training import Run, gather_scores
from tombola.training.checkpoint import Checkpoint
from tombola.training.loop import fit

IN_TRAINING = [WeightGradient(gather="all-steps"), WeightGradient(gather="last-batch")]


def pencil_network() -> nn.Module:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    return model


def pencil_task(scale: float = 1.0) -> tb.SupervisedTask:
    """Two samples, one a step, of loss (w · x)² / 2, whose gradient is (w · x) x.

    From w = (1, 2) with a learning rate of ½: (−1, 1) at the first, which leaves (1.5, 1.5); (18, 6) at the second,
    which leaves (−7.5, −1.5); and there (−6, 6) and (−72, −24).
    """
    samples = TensorDataset(torch.tensor([[1.0, -1.0], [-3.0, -1.0]]), torch.zeros(2))
    loader = DataLoader(samples, batch_size=1)
    return tb.SupervisedTask(
        pencil_network,
        {"train": loader, "validation": loader, "test": loader},
        loss=lambda outputs, _: scale * outputs.square().mean() / 2,
        metric=lambda outputs, _: outputs.mean(),
        recipe=tb.Recipe(
            epochs=1, lr=0.5 / scale, momentum=0.0, weight_decay=0.0, schedule="constant", precision="float32"
        ),
    )


def after_training(score: WeightGradient, task: tb.SupervisedTask) -> list[float]:
    run, model = Run(), task.build(0)
    noted = gather_scores(score, tb.structure.prunable(model))
    run.stage("search", task, model, observers=[noted] if noted else [])
    return run.score(score, task, model, noted)["weight"].flatten().tolist()


@pytest.mark.parametrize(
    ("settings", "gathered"),
    [
        ({"gather": "all-steps"}, (19, 7)),
        ({"gather": "all-steps", "signed": True}, (17, 7)),
        ({"gather": "last-batch"}, (18, 6)),
        ({"gather": "pass"}, (78, 30)),
        ({"gather": "pass", "signed": True}, (78, 18)),
        ({"gather": "first-batch"}, (6, 6)),
    ],
)
def test_every_way_of_gathering_is_what_a_pencil_finds(settings, gathered):
    first, second = gathered
    for exponent in (0.5, 1.0, 2.0):
        score, share = WeightGradient(exponent, **settings), (second / first) ** exponent
        assert after_training(score, pencil_task()) == pytest.approx([7.5, 1.5 * share])
        assert after_training(replace(score, weighted=False), pencil_task()) == pytest.approx([1, share])


def test_movement_is_what_a_pencil_finds_and_needs_a_training():
    assert after_training(Movement(), pencil_task()) == pytest.approx([1 - 1.5 * 18, -2 - 1.5 * 6])
    assert tb.find(toy_task(), tb.OneShot(density=0.3, score=Movement(), after=1)).density == pytest.approx(
        0.3, abs=0.01
    )
    with pytest.raises(TombolaError, match="watches a network train"):
        Movement()(pencil_network())


def test_a_first_batch_of_the_untrained_network_is_snips():
    task = toy_task()
    mine, snips = (
        tb.find(task, tb.OneShot(density=0.3, score=own)).mask
        for own in (WeightGradient(gather="first-batch"), tb.scores.snip)
    )
    assert mine == snips


@pytest.mark.parametrize("gather", ["all-steps", "last-batch", "pass", "first-batch"])
def test_an_exponent_of_0_is_magnitude(gather):
    task, score = toy_task(), WeightGradient(0.0, gather=gather)
    mine, magnitudes = (
        tb.find(task, tb.Iterative(density=0.3, count=2, score=own)) for own in (score, tb.scores.magnitude)
    )
    assert mine.digest == magnitudes.digest


@pytest.mark.parametrize("exponent", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_rescaling_the_gradients_changes_nothing(exponent, scale):
    for score in (WeightGradient(exponent), *(replace(own, exponent=exponent) for own in IN_TRAINING)):
        assert after_training(score, pencil_task(scale)) == after_training(score, pencil_task())


@pytest.mark.parametrize("settings", [{"weighted": False}, {"signed": True}, {"exponent": 2.0}], ids=str)
def test_every_setting_keeps_the_laws_of_scores(settings):
    check_score(WeightGradient(**settings))


@pytest.mark.parametrize("gather", ["all-steps", "pass"])
@pytest.mark.parametrize(
    "granularity", [tb.structure.Weights(), tb.structure.NM(1, 4), tb.Channels()], ids=lambda own: own.name
)
def test_by_the_gradient_alone_nothing_comes_back_at_any_granularity(gather, granularity):
    score = WeightGradient(weighted=False, gather=gather)
    check_method(tb.Iterative(density=0.25, count=3, score=score, granularity=granularity, floor=1), short_network)


@pytest.mark.parametrize(
    ("granularity", "network"),
    [
        (tb.structure.NM(), toy_network),
        (tb.Channels(), toy_network),
        (tb.structure.Blocks(2), short_resnet),
        (tb.structure.PartUnits("head"), short_transformer),
        (tb.structure.PartUnits("neuron"), short_transformer),
    ],
    ids=lambda own: getattr(own, "name", ""),
)
def test_what_is_gathered_in_training_goes_with_every_granularity(granularity, network):
    check_method(tb.OneShot(density=0.5, score=IN_TRAINING[0], granularity=granularity, floor=1, after=1), network)


@pytest.mark.parametrize("score", IN_TRAINING, ids=lambda own: own.gather)
def test_what_was_gathered_is_carried_over_a_kill_in_mid_epoch(tmp_path, score):
    task = toy_task(epochs=4)

    def run(checkpoint=None, steps=0):
        model = task.build(0)
        noted = gather_scores(score, tb.structure.prunable(model))
        fit(task, model, task.recipe, seed=3, checkpoint=checkpoint, observers=[noted, Kill(steps)])
        return noted(model)

    checkpoint = Checkpoint(tmp_path / "going.pt", every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, steps=13)
    again, undisturbed = run(checkpoint), run()
    assert all(torch.equal(own, undisturbed[name]) for name, own in again.items())


@pytest.mark.parametrize("score", [IN_TRAINING[0], tb.scores.magnitude], ids=lambda own: own.name)
def test_a_ticket_goes_on_with_the_schedule_from_where_it_was_scored(score):
    task = toy_task(epochs=3)
    task = replace(task, recipe=replace(task.recipe, momentum=0.0))
    ticket = tb.find(task, tb.OneShot(density=1.0, score=score, after=1))
    assert (ticket.start.what, ticket.start.epochs_spent, ticket.recipe) == ("1ep", 1, {"start": "1ep"})
    whole, rest = tb.train(task), tb.train(task, ticket)
    assert all(torch.equal(own, whole.model.state_dict()[name]) for name, own in rest.model.state_dict().items())
    assert [row["lr"] for row in rest.history] == [row["lr"] for row in whole.history[1:]]


def test_where_no_epoch_is_left_the_ticket_goes_through_the_schedule_again():
    ticket = tb.find(toy_task(), tb.OneShot(after=3))
    assert (ticket.start.what, ticket.start.epochs_spent, ticket.recipe) == ("end", 2, {})


def test_a_rewound_ticket_has_the_same_mask_and_the_initialisation():
    task = toy_task()
    going_on, rewound = (tb.find(task, tb.method(f"weight-gradient-{own}")) for own in ("continue", "rewind"))
    assert rewound.mask == going_on.mask
    assert rewound.start == tb.tickets.Seed.of(task.build(0), 0)
    assert not rewound.recipe


class Idle(nn.Module):
    """A layer that the outputs do not depend on, beside one that they do."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(64, 5), nn.Linear(64, 5)

    def forward(self, x):
        return self.used(x.flatten(1))


@pytest.mark.parametrize("gather", ["all-steps", "pass"])
def test_a_layer_that_the_outputs_do_not_depend_on_is_named(gather):
    method = tb.Iterative(density=0.3, count=1, score=WeightGradient(gather=gather))
    with pytest.warns(UnusedWarning, match=r"the loss does not depend on 'idle\.weight'"):
        ticket = tb.find(toy_task(Idle), method)
    assert ticket.mask.collapsed == ("idle.weight",)


def test_a_layer_of_which_nothing_is_left_is_not_named_again():
    mask = tb.Mask.of({"used.weight": torch.ones(5, 64, dtype=bool), "idle.weight": torch.zeros(5, 64, dtype=bool)})
    task = toy_task(Idle)
    WeightGradient()(task.build(0), task.batches("train", 0, 0), task.loss, mask=mask)


@pytest.mark.parametrize(
    ("gradient", "says"), [(0.0, "depends on no prunable weight"), (torch.nan, "diverged"), (torch.inf, "diverged")]
)
def test_gradients_that_say_nothing_are_refused(gradient, says):
    with pytest.raises(TombolaError, match=says):
        WeightGradient().from_gathered(pencil_network(), {"weight": torch.full((1, 2), gradient)})


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: WeightGradient(-1.0), "the exponent is -1.0"),
        (lambda: WeightGradient(0.0, weighted=False), "the exponent is 0.0"),
        (lambda: WeightGradient(gather="all-step"), "did you mean 'all-steps'"),
        (lambda: WeightGradient()(pencil_network(), [], nn.functional.cross_entropy), "got no batch"),
        (lambda: tb.find(toy_task(), tb.OneShot(score=IN_TRAINING[0])), "tb.OneShot with after=1"),
        (lambda: next(tb.Iterative(score=IN_TRAINING[0]).rounds(toy_network())), "in your own loop give"),
        (lambda: tb.OneShot(after=-1), "after is -1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(act, says):
    with pytest.raises(TombolaError, match=says) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_in_your_own_loop_it_takes_batches():
    task, model = toy_task(), toy_network()
    batches = list(task.batches("train", 0, 0))
    method = tb.Iterative(density=0.5, count=2, score=WeightGradient())
    rounds = [own.mask.density for own in method.rounds(model, batches, task.loss)]
    assert rounds == pytest.approx([1.0, 0.5**0.5, 0.5], abs=1e-3)
