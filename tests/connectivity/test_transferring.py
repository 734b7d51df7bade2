"""Tickets on another initialisation."""

import json

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.cli import main
from tombola.connectivity import landscape, match, solutions
from tombola.testing import toy_task
from tombola.tickets import Provenance, Seed, Values, digest_of, tensors_of


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5))


class Attends(nn.Module):
    """Rows of an image that look at each other."""

    def __init__(self):
        super().__init__()
        self.attention, self.read = nn.MultiheadAttention(8, 4, batch_first=True), nn.Linear(64, 5)

    def forward(self, x):
        rows = x.reshape(-1, 8, 8)
        return self.read((rows + self.attention(rows, rows, rows, need_weights=False)[0]).flatten(1))


TASK = toy_task(plain, epochs=3)
TASKS = {"heads": toy_task(Attends, epochs=3)}
METHODS = {
    "init": tb.Iterative(density=0.3, count=2),
    "a step": tb.Iterative(density=0.3, count=2, rewind="2it"),
    "trained weights": tb.Iterative(density=0.3, count=2, rewind="learning-rate"),
    "fresh": tb.Iterative(density=0.3, count=2, rewind="fresh"),
    "channels": tb.OneShot(density=0.5, granularity=tb.Channels()),
    "heads": tb.OneShot(density=0.5, granularity=tb.structure.PartUnits("head")),
    "supermask": tb.method("gem-miner"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("fresh", "trained weights"))) for name in METHODS]
)
def test_to_its_own_seed_a_ticket_stays_and_to_another_each_layer_keeps_as_many(name):
    task = TASKS.get(name, TASK)
    ticket = tb.find(task, METHODS[name], seed=3)
    assert tb.transfer(task, ticket, 3, points=3).ticket.digest == ticket.digest
    found = tb.transfer(task, ticket, 4, points=3)
    moved = found.ticket
    assert moved.mask.counts == ticket.mask.counts
    assert moved.mask != ticket.mask
    assert {group: len(units) for group, units in moved.removed.items()} == {
        group: len(units) for group, units in ticket.removed.items()
    }
    assert (moved.recipe, moved.held, moved.provenance.seed) == (ticket.recipe, ticket.held, 4)
    assert moved.provenance.settings["transferred"] == {"from": ticket.digest, "from_seed": 3, "by": "activations"}
    assert moved.provenance.cost["dense_epochs"] == pytest.approx(ticket.provenance.cost["dense_epochs"] + 6)
    assert found.unmatched.mask == ticket.mask
    assert found.unmatched.start == moved.start
    if isinstance(ticket.start, Seed):
        assert moved.start == Seed(4, moved.start.digest, ticket.start.weights)
    assert tb.train(task, moved).epochs == 3


def test_tickets_are_carried_to_other_data_and_a_matrix_says_how_they_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "others.py").write_text(
        "import torch\n\n\ndef pieces():\n    rows = torch.arange(240).reshape(40, 6) % 7\n"
        '    return dict.fromkeys(("train", "test"), (rows, torch.arange(40) % 2))\n\n\n'
        "def threes():\n    rows = torch.arange(240).reshape(40, 6) % 5\n"
        '    return dict.fromkeys(("train", "test"), (rows, torch.arange(40) % 3))\n\n\n'
        "class Net(torch.nn.Sequential):\n    def __init__(self):\n        super().__init__(torch.nn.Embedding(7, 4), "
        "torch.nn.Flatten(), torch.nn.Linear(24, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))\n"
    )
    words = ["--model", "others:Net", "--recipe.epochs", "1", "--recipe.precision", "float32"]
    assert main(["find", "bert-imp", "--data", "others:pieces", *words, "--count", "1", "--out", "t", "--json"]) == 0
    capsys.readouterr()
    told = ["transfer", "t", "--to-data", "others:threes", "others:pieces", *words]
    assert main([*told, "--trust", "--seeds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["matrix"].keys() == found["bag_of_words"].keys() == {"others:threes", "others:pieces"}
    (cell,) = found["matrix"]["others:threes"].values()
    assert cell.keys() == {"metric", "minus_dense", "wins"}
    assert set(tb.Ticket.load(found["carried"]["others:threes"]["of others:pieces"]).mask) == {"2.weight"}
    assert main(told) == 2
    assert "code that would be imported" in capsys.readouterr().err
    assert main([*told[:2], "nothing", *told[2:], "--trust"]) == 2
    assert "'nothing' is no ticket" in capsys.readouterr().err


def test_a_step_is_the_step_of_the_other_dense_training():
    ticket = tb.find(TASK, METHODS["a step"], seed=3)
    there = tb.find(TASK, METHODS["a step"], seed=4)
    assert tb.transfer(TASK, ticket, 4, points=3).ticket.start == there.start


def test_the_mask_follows_the_units_that_it_keeps():
    """To a permuted copy of its own initialisation a ticket moves whole: both then compute the same."""
    task = toy_task(plain, epochs=1)
    ticket = tb.find(task, tb.Iterative(density=0.3, count=1), seed=3)
    source, first = tb.train(task, seed=3).model, task.build(3)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    other = plain()
    state = {"1.weight": first[1].weight[order], "1.bias": first[1].bias[order], "3.weight": first[3].weight[:, order]}
    other.load_state_dict(state | {"3.bias": first[3].bias})
    moved = tb.transfer(task, ticket, other, source=source, points=3).ticket
    assert torch.equal(moved.mask["1.weight"], ticket.mask["1.weight"][order])
    assert torch.equal(moved.mask["3.weight"], ticket.mask["3.weight"][:, order])
    assert moved.start.what == "given"
    assert digest_of(moved.start.tensors) == digest_of(tensors_of(other))
    here, there = (tb.train(task, own, seed=0).model for own in (ticket, moved))
    inputs = torch.randn(9, 1, 8, 8)
    assert torch.allclose(here(inputs), there(inputs), atol=1e-5)


def test_matched_dense_networks_have_a_lower_barrier():
    first, second = tb.transfer(TASK, tb.find(TASK, METHODS["init"], seed=0), 1, points=5).lines
    assert second.loss_barrier < first.loss_barrier


@pytest.mark.parametrize(
    ("ticket", "to", "said"),
    [
        (METHODS["init"], "1", "to is '1'"),
        (METHODS["init"], -1, "to is -1"),
        (METHODS["init"], nn.Linear(3, 2), "different layers"),
        (tb.method("rigl", density=0.3), 1, "trained to the end"),
        (METHODS["supermask"], plain(), "give to=1"),
        (tb.Iterative(density=0.5, count=1, granularity=tb.structure.NM(2, 4)), 4, "matching parts neighbours"),
    ],
)
@pytest.mark.filterwarnings("ignore:the mask stays as it was drawn")
def test_what_cannot_be_transferred_is_refused(ticket, to, said):
    task = toy_task(plain, epochs=1)
    with pytest.raises(tb.TombolaError, match=said):
        tb.transfer(task, tb.find(task, ticket, seed=3), to, points=3)


def test_values_of_one_network_and_unknown_seeds_are_refused():
    model = TASK.build(0)
    mask = tb.select(tb.scores.magnitude(model), 0.5)
    made = tb.Ticket(mask, Values(tensors_of(model), "transformed"), provenance=Provenance(seed=0))
    with pytest.raises(tb.TombolaError, match=r"made for its own network \('transformed'\)"):
        tb.transfer(TASK, made, 1)
    with pytest.raises(tb.TombolaError, match="give source="):
        tb.transfer(TASK, tb.Ticket(mask, Values(tensors_of(model), "2it")), 1)


def test_solutions_of_a_search_and_how_they_lie():
    found = solutions(TASK, METHODS["init"], seed=1)
    assert [own.name for own in found.networks] == ["dense", "round-01", "ticket"]
    dense = tb.train(TASK, seed=1).model
    assert all(map(torch.equal, found["dense"].network.parameters(), dense.parameters()))
    assert not found["ticket"].network.get_parameter("1.weight")[~found.ticket.mask["1.weight"]].any()
    lying = landscape(TASK, found, points=3)
    assert lying.barriers[0][2] == lying.barriers[2][0] == lying.between("dense", "ticket")
    assert lying.mask_distances[0][2] == pytest.approx(1 - found.ticket.mask.density, abs=1e-3)
    assert 0 < lying.angles[1][2] < lying.angles[0][2]
    assert "the last one of its search (round-01)" in lying.sentence
    assert [own.name for own in solutions(TASK, found.ticket).networks] == ["dense", "ticket"]
    with pytest.raises(tb.TombolaError, match="no solution 'round-09'"):
        lying.between("dense", "round-09")


def test_a_matching_of_another_network_is_refused():
    found = match(TASK, TASK.build(0), TASK.build(1))
    with pytest.raises(tb.TombolaError, match="another network's"):
        found.symmetries.moved({}, {"other": ()})


def test_the_command(tmp_path, capsys):
    words = ["find", "snip", "--data", "digits", "--width", "0.1", "--recipe.epochs", "1", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "f"), "--json"]) == 0
    capsys.readouterr()
    words = ["transfer", str(tmp_path / "f"), "--to-seed", "1", "--points", "3", "--device", "cpu"]
    words += ["--out", str(tmp_path / "t")]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    moved = tb.Ticket.load(told["ticket"])
    assert moved.digest == told["transferred"]
    assert set(told["barriers"]) == {"matched", "unmatched"}
    assert main(words) == 0
    assert "units changed places" in capsys.readouterr().out
    for wrong, said in ((["imp"], "is no ticket"), ([str(tmp_path / "f")], "--to-seed 1")):
        assert main(["transfer", *wrong]) == 2
        assert said in capsys.readouterr().err
