"""Law 12: controls differ from the ticket where they should and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from tombola import Mask, OneShot, Prunable, Recipe, SupervisedTask, Ticket, TombolaError, find, select
from tombola import train as train_arm
from tombola.evidence import Against, Arm, budget_gap, control, effective
from tombola.methods import Slimming, method
from tombola.registry import CONTROLS
from tombola.scores import Magnitude
from tombola.testing import toy_task
from tombola.tickets import Seed, Values, digest_of, tensors_of
from tombola.zoo import data, model

ANEW = ("corrupted-labels", "corrupted-pixels", "half-data", "later")  # See test_sanity.
OF_WEIGHTS = [name for name in CONTROLS if not name.startswith("scratch") and name not in ANEW]
FROM_INIT = [name for name in OF_WEIGHTS if name not in ("shuffle", "weight-shuffle", "inverted")]
LENET = partial(model, "lenet-300-100", (1, 8, 8), 10)


def make_task(width: float = 0.2) -> SupervisedTask:
    few = {name: (x[:200], y[:200]) for name, (x, y) in data("digits").items()}
    recipe = Recipe(epochs=1, batch=64, precision="float32")
    return SupervisedTask(model=LENET(width), data=few, recipe=recipe, narrower=LENET)


def make_ticket(task: SupervisedTask, kind: str = "init") -> Ticket:
    """A magnitude ticket; `kind`: its start is the initialisation, a step, or trained weights."""
    ticket = find(task, OneShot(density=0.2, score=Magnitude()), seed=3, progress=False)
    ticket = replace(ticket, held=("5.bias",), recipe={"lr": 0.05})
    values = {name: tensor + 0.01 for name, tensor in tensors_of(task.build(3)).items()}
    if kind == "step":
        return replace(ticket, start=Values(values, "5it", 0.5), recipe={"start": "5it"})
    return replace(ticket, start=Values(values, "end", 6.0)) if kind == "end" else ticket


def against(kind: str = "init", seed: int = 3) -> Against:
    task = make_task()
    return Against(task, make_ticket(task, kind), seed, OneShot(density=0.2, score=Magnitude()))


def started(arm_task: SupervisedTask, ticket: Ticket) -> nn.Module:
    built = arm_task.build(ticket.start.seed if isinstance(ticket.start, Seed) else 0)
    ticket.put_into(built)
    return built


@pytest.mark.parametrize("kind", ["init", "step", "end"])
def test_shuffle_changes_the_bits_and_nothing_else(kind):
    own = against(kind)
    arm = control("shuffle", own)
    assert arm.task is own.task
    assert arm.extra_epochs == 0
    assert replace(arm.ticket, mask=own.ticket.mask) == own.ticket
    assert arm.ticket.mask.counts == own.ticket.mask.counts
    for name in own.ticket.mask:
        assert not torch.equal(arm.ticket.mask[name], own.ticket.mask[name])


@pytest.mark.parametrize("kind", ["init", "step", "end"])
@pytest.mark.parametrize("name", ["fresh-init", "random"])
def test_controls_from_a_new_initialisation_keep_layer_counts_and_held(name, kind):
    own = against(kind)
    arm = control(name, own)
    assert arm.ticket.held == own.ticket.held
    assert arm.ticket.mask.counts == own.ticket.mask.counts
    assert (arm.ticket.mask == own.ticket.mask) == (name == "fresh-init")
    assert arm.ticket.recipe == (own.ticket.recipe if kind == "init" else {})
    old, new = tensors_of(started(own.task, own.ticket)), tensors_of(started(arm.task, arm.ticket))
    assert all(not torch.equal(old[n], new[n]) for n in own.ticket.mask)


def test_fresh_weights_come_from_the_same_distribution():
    own = against()
    old, new = (tensors_of(started(own.task, t)) for t in (own.ticket, control("fresh-init", own).ticket))
    for name in own.ticket.mask:
        assert ks_2samp(old[name].flatten().numpy(), new[name].flatten().numpy()).pvalue > 1e-3


def test_random_shares_neither_mask_nor_weights_with_the_other_controls():
    own = against()
    made = {name: control(name, own).ticket for name in ("shuffle", "fresh-init", "random")}
    assert made["random"].mask != made["shuffle"].mask
    assert made["random"].start != made["fresh-init"].start


def test_inverted_keeps_the_lowest_scores_with_the_same_layer_counts():
    own = against()
    arm = control("inverted", own)
    assert arm.ticket.mask.counts == own.ticket.mask.counts
    assert arm.ticket.start == own.ticket.start
    weights = tensors_of(own.task.build(3))
    for name in arm.ticket.mask:
        kept = arm.ticket.mask[name]
        assert weights[name][kept].abs().max() <= weights[name][~kept].abs().min()


def test_inverted_needs_a_method_that_scores_the_untrained_network():
    for own in (None, method("imp")):
        with pytest.raises(TombolaError, match="'inverted' needs scores of the untrained network"):
            control("inverted", replace(against(), method=own))


@pytest.mark.parametrize("name", ["erk", "smart-ratio", "magnitude-init"])
def test_other_masks_keep_as_many_weights_at_the_initialisation(name):
    own = against()
    arm = control(name, own)
    assert arm.ticket.mask.total_kept == own.ticket.mask.total_kept
    assert arm.ticket.mask.shapes == own.ticket.mask.shapes
    assert arm.ticket.start == own.ticket.start
    initial = {n: w for n, w in tensors_of(own.task.build(3)).items() if n in own.ticket.mask}
    scope = "global" if name == "magnitude-init" else name
    expected = select({n: w.abs() for n, w in initial.items()}, own.ticket.density, scope=scope)
    assert arm.ticket.mask.counts == expected.counts
    assert (arm.ticket.mask == expected) == (name == "magnitude-init")


@pytest.mark.parametrize("name", ["erk", "smart-ratio", "magnitude-init"])
def test_controls_prune_the_same_parameters_as_the_ticket(name):
    task = make_task()
    own = OneShot(density=0.2, score=Magnitude(), prunable=Prunable(exclude=("5.*",)))
    ticket = find(task, own, seed=3, progress=False)
    mask = control(name, Against(task, ticket, 3, own)).ticket.mask
    assert mask.shapes == ticket.mask.shapes
    assert mask.total_kept == ticket.mask.total_kept


@pytest.mark.parametrize(
    "name", ["shuffle", "fresh-init", "random", "inverted", "erk", "smart-ratio", "magnitude-init"]
)
def test_what_the_ticket_prescribes_and_holds_holds_for_its_controls(name):
    own = against()
    ticket = control(name, own).ticket
    assert ticket.held == own.ticket.held == ("5.bias",)
    assert ticket.recipe == own.ticket.recipe == {"lr": 0.05}


@pytest.mark.parametrize("name", ["inverted", "shuffle", "fresh-init", "random"])
def test_layer_counts_survive_where_the_method_spares_layers(name):
    task = make_task()
    own = OneShot(density=0.2, score=Magnitude(), prunable=Prunable(exclude=("5.*",)), floor=7)
    ticket = find(task, own, seed=3, progress=False)
    assert control(name, Against(task, ticket, 3, own)).ticket.mask.counts == ticket.mask.counts


def test_scratch_trains_the_smaller_network_anew_for_its_epochs_or_the_dense_networks_work():
    task = toy_task(epochs=3)
    ticket = find(task, Slimming(0.5), progress=False)
    own = Against(task, ticket, 0)
    once, budget = control("scratch-e", own), control("scratch-b", own)
    assert (once.extra_epochs, once.ticket.mask) == (0, ticket.mask)
    assert once.ticket == budget.ticket
    assert isinstance(once.ticket.start, Seed)
    dense = train_arm(task)
    longer = train_arm(budget.task, budget.ticket, extra_epochs=budget.extra_epochs)
    assert longer.epochs > dense.epochs
    assert dense.cost.flops <= longer.cost.flops < dense.cost.flops * (1 + 1.1 / dense.epochs)
    with pytest.raises(TombolaError, match="need a ticket of whole units"):
        control("scratch-b", against())


@pytest.mark.parametrize(("kind", "gap"), [("init", 0.0), ("step", 0.0), ("end", 6.0)])
@pytest.mark.parametrize("name", FROM_INIT)
def test_arms_from_an_initialisation_train_for_what_both_stages_of_the_ticket_took(name, kind, gap):
    own = against(kind)
    assert budget_gap(own.ticket, own.task) == gap
    assert control(name, own).extra_epochs == gap


@pytest.mark.parametrize(("more", "gap"), [(1, 7.0), (-2, 4.0), (-9, 0.0)])
@pytest.mark.parametrize("name", FROM_INIT)
def test_a_ticket_that_prescribes_how_long_it_trains_is_held_against_that(name, more, gap):
    own = against("end")
    own = replace(own, ticket=replace(own.ticket, recipe={"epochs": own.task.recipe.epochs + more}))
    assert budget_gap(own.ticket, own.task) == gap
    assert control(name, own).extra_epochs == gap


@pytest.mark.parametrize("density", [0.03, 0.2, 0.7])
def test_narrow_is_a_dense_network_of_about_the_tickets_size(density):
    task = make_task(1.0)
    ticket = find(task, OneShot(density=density, score=Magnitude()), progress=False)
    arm = control("narrow", Against(task, ticket, 0))
    size = sum(p.numel() for p in Prunable()(arm.task.build(0)).values())
    assert arm.ticket is None
    assert size == pytest.approx(ticket.mask.total_kept, rel=0.05)


def test_narrow_is_refused_by_a_task_that_cannot():
    own = against()
    with pytest.raises(TombolaError, match="narrow"):
        control("narrow", replace(own, task=replace(own.task, narrower=None)))


def test_dense_is_the_whole_network_of_the_same_task():
    own = against()
    arm = control("dense", own)
    assert arm.ticket is None
    assert arm.task is own.task


def test_an_unknown_control_is_refused_with_the_nearest():
    with pytest.raises(TombolaError, match="no control 'shufle'; did you mean 'shuffle'"):
        control("shufle", against())


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_controls_are_functions_of_the_seed_and_leave_the_global_random_state(name):
    own, before, numpy_before = against(), torch.get_rng_state(), np.random.get_state()[1].copy()
    one, two = control(name, own), control(name, own)
    assert (one.ticket and one.ticket.digest) == (two.ticket and two.ticket.digest)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    if name in ("shuffle", "random", "erk", "smart-ratio"):
        assert control(name, replace(own, seed=4)).ticket.mask != one.ticket.mask
    if name in ("fresh-init", "random"):
        assert control(name, replace(own, seed=4)).ticket.start != one.ticket.start


@pytest.mark.parametrize("kind", ["init", "end"])
@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_every_arm_trains(name, kind):
    arm = control(name, against(kind))
    trained = train_arm(arm.task, arm.ticket, seed=3, extra_epochs=arm.extra_epochs)
    assert trained.epochs == 1 + arm.extra_epochs
    if arm.ticket is not None:
        for parameter, kept in arm.ticket.mask.items():
            assert not trained.model.get_parameter(parameter).detach()[~kept].any()


def test_the_fresh_start_is_one_that_the_task_can_build():
    own = against()
    start = control("fresh-init", own).ticket.start
    assert start.digest == digest_of(tensors_of(own.task.build(start.seed)))


# Dead paths


def bits(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def test_what_is_alive_costs_what_a_network_of_these_widths_costs():
    task, scattered = make_task(), make_ticket(make_task())
    weights = {name: p for name, p in task.build(3).named_parameters() if p.ndim == 2}
    first, second = weights["1.weight"].shape[0], weights["3.weight"].shape[0]
    kept = {name: torch.ones_like(p, dtype=torch.bool) for name, p in weights.items()}
    kept["3.weight"][:, : first // 2] = False  # nothing reads these neurons

    def work(width: int) -> int:  # the first layer's inputs need no gradient
        return 2 * 64 * width + 3 * width * second + 3 * second * 10

    half = replace(scattered, mask=Mask.of(kept))
    assert Arm(task, half).alive_flops(3) == pytest.approx(work(first - first // 2) / work(first))
    kept["3.weight"][0] = True  # each is read by one
    assert Arm(task, replace(half, mask=Mask.of(kept))).alive_flops(3) == 1
    assert Arm(task, None).alive_flops(3) is None


def test_a_network_that_cannot_be_cut_ends_no_run(monkeypatch):
    def failing(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tombola.evidence.arms.smaller", failing)
    task = make_task()
    empty = {
        name: torch.zeros(p.shape, dtype=torch.bool) for name, p in task.build(3).named_parameters() if p.ndim == 2
    }
    assert Arm(task, replace(make_ticket(task), mask=Mask.of(empty))).alive_flops(3) is None


def test_weights_off_every_path_are_not_effective():
    """Hidden unit 0 is on a path, 1 reaches no output, no input reaches 2."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    mask = Mask.of({"0.weight": bits([[1, 0], [1, 1], [0, 0]]), "2.weight": bits([[1, 0, 1], [0, 0, 1]])})
    before = digest_of(tensors_of(net))
    alive = effective(net, mask, [(torch.randn(4, 2), torch.zeros(4))])
    assert alive["0.weight"].int().tolist() == [[1, 0], [0, 0], [0, 0]]
    assert alive["2.weight"].int().tolist() == [[1, 0, 0], [0, 0, 0]]
    assert digest_of(tensors_of(net)) == before


@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-30, 0.0])
def test_what_is_alive_does_not_depend_on_the_weights_values(scale):
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    mask = Mask.full({"0.weight": (3, 2), "2.weight": (2, 3)})
    assert effective(net, mask, [(torch.randn(4, 2), torch.zeros(4))]) == mask


@pytest.mark.parametrize("trained", [False, True])
def test_dead_channels_are_found_through_batch_norm(trained):
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    )
    if trained:  # batch statistics move, and say nothing about paths
        net[1].running_mean.fill_(5.0)
        net[1].bias.data.fill_(-3.0)
        net[1].weight.data.mul_(-1)
    kept = {"0.weight": torch.ones(3, 1, 3, 3), "3.weight": torch.ones(2, 3, 3, 3), "6.weight": torch.ones(2, 8)}
    kept["0.weight"][0] = 0  # channel 0 gets nothing
    kept["3.weight"][:, 1] = 0  # channel 1 goes nowhere
    alive = effective(net, Mask.of(kept), [(torch.randn(2, 1, 6, 6), torch.zeros(2))])
    assert alive["0.weight"].flatten(1).sum(1).tolist() == [0, 0, 9]
    assert alive["3.weight"].sum((0, 2, 3)).tolist() == [0, 0, 18]
    assert alive.kept("6.weight") == 16


def test_a_skip_connection_keeps_paths_alive():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.last(x + torch.relu(self.inner(x)))

    mask = Mask.of({"inner.weight": torch.zeros(3, 3), "last.weight": torch.ones(1, 3)})
    assert effective(Residual(), mask, [(torch.randn(2, 3), torch.zeros(2))]) == mask
