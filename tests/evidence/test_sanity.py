"""Sanity checks: each destroys one thing and nothing else, and a table says which method passes which."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import tombola as tb
from made_up import study
from networks import short_resnet
from tombola import TombolaError
from tombola.cli import main
from tombola.evidence import CHECKS, Against, Checked, Sanity, control, control_obstacle, holm, paired_comparison
from tombola.evidence.other_data import AlteredData, HalfData, RandomImages, RandomLabels
from tombola.files import read_as
from tombola.registry import CONTROLS, METHODS
from tombola.report import GatheredArms, headline, sanity_table, write_report
from tombola.studies import Piece, RunSpec, Study, carry_out, prepare
from tombola.testing import toy_task
from tombola.tickets import tensors_of
from tombola.training import fit, start_of

SNIP = tb.method("snip", density=0.2)
WORDS = ["--data", "digits", "--width", "0.1", "--recipe.epochs", "2", "--seeds", "2"]


def against(method=SNIP, seed: int = 3, task=None) -> Against:
    task = task or toy_task()
    return Against(task, tb.find(task, method, seed=seed, progress=False), seed, method)


def loaders(shuffle: bool) -> tb.SupervisedTask:
    task = toy_task()
    inputs, targets = task.data["train"]
    test = DataLoader(TensorDataset(*task.data["test"]), 20)
    train = DataLoader(TensorDataset(inputs, targets), 20, shuffle=shuffle)
    return replace(task, data={"train": train, "validation": test, "test": test})


def samples(task, split: str = "train", seed: int = 0, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = zip(*task.batches(split, seed, epoch), strict=True)
    return torch.cat(inputs), torch.cat(targets)


# The data of a search


@pytest.mark.parametrize("task", [toy_task(), loaders(shuffle=False)], ids=["in memory", "loader"])
def test_random_labels_change_training_labels_and_nothing_else(task):
    altered = AlteredData(task, RandomLabels(5), 7)
    (inputs, targets), (own_inputs, own_targets) = samples(altered), samples(task)
    assert torch.equal(inputs, own_inputs)
    assert not torch.equal(targets, own_targets)
    assert targets.dtype == own_targets.dtype
    assert 0.5 < (targets != own_targets).float().mean() < 0.95  # Four fifths of uniform draws differ.
    assert targets.unique().tolist() == list(range(5))
    for split in ("validation", "test"):
        assert all(torch.equal(a, b) for a, b in zip(samples(altered, split), samples(task, split), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(samples(altered), (inputs, targets), strict=True))
    assert not torch.equal(samples(AlteredData(task, RandomLabels(5), 8))[1], targets)
    assert (altered.recipe, len(altered.batches("train", 0, 0))) == (task.recipe, len(task.batches("train", 0, 0)))


def test_a_sample_keeps_its_random_label_from_epoch_to_epoch():
    altered = AlteredData(toy_task(), RandomImages(5), 7)
    label = {tuple(image.flatten().tolist()): int(own) for image, own in zip(*samples(altered), strict=True)}
    later_inputs, later_targets = samples(altered, epoch=1)
    assert [label[tuple(image.flatten().tolist())] for image in later_inputs] == later_targets.tolist()


def test_each_image_is_permuted_by_an_order_of_its_own():
    task = toy_task()
    ordered = torch.arange(128.0).view(2, 1, 8, 8) % 64
    images, _ = RandomImages(5)((ordered, torch.zeros(2, dtype=torch.long)), torch.Generator().manual_seed(1))
    assert torch.equal(images.flatten(1).sort().values, ordered.flatten(1))
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], ordered[0])
    (scrambled, _), (own, _) = samples(AlteredData(task, RandomImages(5), 7)), samples(task)
    assert torch.equal(scrambled.flatten(1).sort().values, own.flatten(1).sort().values)
    assert not torch.equal(scrambled, own)


@pytest.mark.parametrize("task", [toy_task(), loaders(shuffle=False)], ids=["in memory", "loader"])
def test_half_the_data_is_always_the_same_half(task):
    half = HalfData(task)
    whole = {tuple(image.flatten().tolist()) for image in samples(task)[0]}
    seen = [{tuple(image.flatten().tolist()) for image in samples(half, epoch=epoch)[0]} for epoch in (0, 1)]
    assert seen[0] == seen[1] < whole
    assert len(seen[0]) == len(whole) // 2
    assert len(half.batches("train", 0, 0)) == len(task.batches("train", 0, 0)) // 2
    for split in ("validation", "test"):
        assert torch.equal(samples(half, split)[0], samples(task, split)[0])


def test_batches_in_another_order_each_epoch_cannot_be_halved():
    with pytest.raises(TombolaError, match="no half of the data can be cut off"):
        HalfData(loaders(shuffle=True))


# The controls


@pytest.mark.parametrize("name", ["corrupted-labels", "corrupted-pixels", "half-data"])
def test_a_search_on_other_data_changes_the_mask_alone(name):
    own = against()
    arm = control(name, own)
    assert arm.task is own.task
    assert arm.extra_epochs == 0
    assert arm.ticket.mask != own.ticket.mask
    assert arm.ticket.mask.total_kept == own.ticket.mask.total_kept
    assert replace(arm.ticket, mask=own.ticket.mask, provenance=own.ticket.provenance) == own.ticket
    assert arm.ticket.provenance.settings == {**own.ticket.provenance.settings, "control": name}
    assert control(name, own).ticket.mask == arm.ticket.mask
    if name != "half-data":
        assert control(name, replace(own, seed=4)).ticket.mask != arm.ticket.mask


@pytest.mark.parametrize("name", ["corrupted-labels", "half-data"])
def test_a_search_that_trains_starts_from_what_the_other_data_made(name):
    own = against(tb.Iterative(density=0.2, share=0.8, rewind="1ep"))
    arm = control(name, own)
    assert (arm.ticket.start.what, arm.ticket.recipe) == (own.ticket.start.what, own.ticket.recipe)
    assert arm.ticket.start != own.ticket.start
    assert tb.train(arm.task, arm.ticket, seed=3, extra_epochs=arm.extra_epochs).epochs == 2


@pytest.mark.parametrize(
    "method",
    [SNIP, tb.Iterative(density=0.2, share=0.8, rewind="1ep"), tb.method("layer-random"), tb.method("gem-miner")],
    ids=["init", "step", "blocks", "signed constants"],
)
def test_weight_shuffle_moves_kept_weights_within_their_layer_and_nothing_else(method):
    task = toy_task(short_resnet) if method.granularity.name.startswith("block") else None
    own = against(method, task=task)
    arm = control("weight-shuffle", own)
    assert (arm.task, arm.extra_epochs) == (own.task, 0)
    assert replace(arm.ticket, start=own.ticket.start) == own.ticket
    old, new = (tensors_of(start_of(own.task, ticket, 3)) for ticket in (own.ticket, arm.ticket))
    assert old.keys() == new.keys()
    moved = 0
    for name, before in old.items():
        kept = own.ticket.mask[name] if name in own.ticket.mask and before.ndim > 1 else torch.zeros_like(before).bool()
        assert torch.equal(before[~kept], new[name][~kept])
        assert torch.equal(before[kept].sort().values, new[name][kept].sort().values)
        moved += int((before[kept] != new[name][kept]).sum())
    assert moved > 0.3 * own.ticket.mask.total_kept
    assert control("weight-shuffle", own).ticket == arm.ticket
    assert control("weight-shuffle", replace(own, seed=4)).ticket.start != arm.ticket.start or method != SNIP


def test_later_scores_and_goes_on_from_the_weights_of_that_step():
    own = against(tb.method("magnitude-init", density=0.2))
    arm = control("later", own)
    whole = tb.Iterative(density=1.0, rewind="1ep", count=1)
    at_step = tb.find(own.task, whole, seed=3, progress=False).start
    assert arm.ticket.start == at_step
    weights = {name: tensor.abs() for name, tensor in at_step.tensors.items() if name in own.ticket.mask}
    assert arm.ticket.mask == tb.select(weights, 0.2)
    assert arm.ticket.recipe == {"start": "1ep"}
    trained = tb.train(arm.task, arm.ticket, seed=3, extra_epochs=arm.extra_epochs)
    assert len(trained.history) == own.task.recipe.epochs - 1


@pytest.mark.parametrize("step", ["5it", "2ep"])
def test_later_is_at_the_step_that_its_name_says(step):
    own = against(tb.method("magnitude-init", density=0.2))
    arm = control(f"later@{step}", own)
    reached = tb.find(own.task, tb.Iterative(density=1.0, rewind=step, count=1), seed=3, progress=False).start
    assert (arm.ticket.start, arm.ticket.recipe) == (reached, {"start": step})


@pytest.mark.parametrize(
    ("name", "says"), [("later@soon", "'soon' is not a point in training"), ("shuffle@1ep", "no control 'shuffle@1ep'")]
)
def test_a_step_is_for_later_alone_and_must_be_one(name, says):
    with pytest.raises(TombolaError, match=says):
        control(name, against())


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("inverted", "later")])
def test_the_global_random_state_stays(name):
    own, before = against(), torch.get_rng_state()
    control(name, own)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_controls_own_search_goes_on_where_it_was(tmp_path, monkeypatch):
    spec = RunSpec(toy_task(), tb.Iterative(density=0.2, share=0.8), "half-data")
    engine, begun = (tb.Store(tmp_path), tb.studies.Serial()), []

    def killed(*_, **__):
        raise KeyboardInterrupt

    def counted(*args, name, **kwargs):
        begun.append(name)
        return fit(*args, name=name, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["tombola.studies.execution"], "train", killed)
        with pytest.raises(KeyboardInterrupt):
            carry_out(Piece((prepare(spec, *engine),), (0,)))
    monkeypatch.setattr("tombola.training.run.fit", counted)
    carry_out(Piece((prepare(spec, *engine),), (0,)))
    assert begun == ["train"]


@pytest.mark.parametrize(
    ("name", "method", "says"),
    [
        ("later", "imp", "'later' needs scores of the untrained network"),
        ("corrupted-labels", "random", "reads no data"),
        ("half-data", "synflow", "reads no data"),
        ("corrupted-pixels", "layer-random", "reads no data"),
        ("half-data", None, "a method that the ticket's file does not hold"),
    ],
)
def test_a_check_that_cannot_be_made_says_why(name, method, says):
    own = METHODS[method] if method else None
    with pytest.raises(TombolaError, match=says):
        control(name, replace(against(), method=own))


def test_labels_that_are_no_class_numbers_are_not_corrupted():
    task = toy_task()
    data = {split: (inputs, targets.float()) for split, (inputs, targets) in task.data.items()}
    with pytest.raises(TombolaError, match="only where targets are class numbers"):
        control("corrupted-labels", replace(against(), task=replace(task, data=data)))


def test_every_method_has_its_checks():
    applying = {name: {own for own in CHECKS if not control_obstacle(own, preset)} for name, preset in METHODS.items()}
    assert applying["snip"] == set(CHECKS)
    assert applying["imp"] == set(CHECKS) - {"inverted", "later"}
    assert (
        applying["synflow"]
        == applying["random"]
        == set(CHECKS)
        - {
            "corrupted-labels",
            "corrupted-pixels",
            "half-data",
        }
    )
    assert applying["layer-cka"] == set(CHECKS)
    assert all({"shuffle", "fresh-init", "weight-shuffle"} <= own for own in applying.values())


# What it means


def test_a_check_is_passed_where_the_ticket_is_better_than_its_control():
    ticket = [0.8, 0.802, 0.801, 0.803]
    controls = {
        "shuffle": [value - 0.1 + 0.001 * (index % 2) for index, value in enumerate(ticket)],
        "fresh-init": [value + 0.0001 * (index % 2) for index, value in enumerate(ticket)],
        "weight-shuffle": [value + 0.1 + 0.001 * (index % 2) for index, value in enumerate(ticket)],
        "half-data": [value + 0.1 * (-1) ** index for index, value in enumerate(ticket)],
    }
    found = holm([paired_comparison(ticket, other, name) for name, other in controls.items()])
    checks = [*(Checked(own.against, own) for own in found), Checked("later", None, "it trains")]
    assert [own.finding for own in checks] == ["passes", "fails", "fails", "undecided", "does not apply"]
    assert checks[0].meaning == CONTROLS.entry("shuffle").matters
    assert checks[1].meaning == CONTROLS.entry("fresh-init").means
    assert checks[4].meaning == "it trains"
    whole = Sanity("snip", 0.05, (0, 1, 2, 3), tuple(checks))
    assert "passes shuffle (which weights of a layer are kept matters)" in whole.summary
    assert whole.summary.endswith("undecided: half-data; it trains: later")
    assert read_as(Sanity, json.loads(json.dumps(asdict(whole)))) == whole
    assert all(CONTROLS.entry(name).means for name in CHECKS)


@pytest.mark.slow
def test_the_report_shows_the_table(tmp_path):
    results, _ = study(methods=("imp", "snip"), densities=(0.05,))
    found = [
        Sanity(
            name,
            0.05,
            (0, 1, 2),
            (Checked("shuffle", paired_comparison(ours, others, "shuffle")), Checked("later", None, "no")),
        )
        for name, ours, others in (("imp", [0.9, 0.91, 0.9], [0.8, 0.81, 0.79]), ("snip", [0.9] * 3, [0.9] * 3))
    ]
    page = write_report(results, (), tmp_path, title="Sane", checks=found).read_text()
    assert 'id="sanity"' in page
    assert "✓ +10.33" in page
    assert "✗ +0.00" in page
    assert CONTROLS.entry("shuffle").matters in page
    assert (tmp_path / "sanity.png").read_bytes().startswith(b"\x89PNG")
    gathered = GatheredArms.of(results, (), found)
    assert sanity_table(gathered).row_count == 2
    assert "2 sanity checks" in headline(gathered)[0]
    assert "1 passed and 1 failed" in headline(gathered)[0]
    assert 'id="sanity"' not in write_report(results, (), tmp_path / "none", title="Not").read_text()


# The command


@pytest.mark.usefixtures("without_pictures")
def test_the_command_says_which_method_passes_which_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        "sanity",
        "snip",
        "random",
        "--densities",
        "0.3",
        *WORDS,
        "--checks",
        "shuffle",
        "corrupted-labels",
    ]
    assert main([*words, "--json"]) == 0
    snip, random = json.loads(capsys.readouterr().out)["sanity"]
    assert (snip["method"], snip["density"], snip["seeds"]) == ("snip", 0.3, [0, 1])
    assert snip["checks"].keys() == {"shuffle", "corrupted-labels"}
    assert all(own["comparison"] for own in snip["checks"].values())
    assert random["checks"]["corrupted-labels"]["finding"] == "does not apply"
    assert "reads no data" in random["checks"]["corrupted-labels"]["meaning"]
    assert "corrupted-labels" in (tmp_path / "runs/sanity/report.html").read_text()
    assert not list((tmp_path / "runs/sanity").glob("*/stages"))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Sanity checks: ticket minus control, points" in out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == stamps
    assert Study.load(tmp_path / "runs/sanity").sanity[0].subject == "snip"
    assert main(["report", "runs/sanity", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sanity"] == [snip, random]


@pytest.mark.slow
def test_blocks_are_checked_too():
    method = tb.OneShot(score=tb.scores.Snip(), granularity=tb.structure.Blocks(2))
    done = tb.sanity(toy_task(short_resnet, 1), [method], checks=["shuffle", "half-data"], seeds=1)
    assert {own.finding for own in done.sanity[0].checks} == {"undecided"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sanity"], "tombola sanity METHOD…"),
        (["sanity", "snipp"], "did you mean 'snip'"),
        (["sanity", "snip", "--checks", "shufle"], "no check 'shufle'; did you mean 'shuffle'"),
        (["sanity", "imp", "--checks", "later"], "'later' needs scores of the untrained network"),
        (["sanity", "random", "--checks", "half-data"], "reads no data"),
    ],
)
def test_bad_input_gets_a_sentence(words, says, capsys):
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_without_an_engine_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tb.sanity(toy_task(), [SNIP], checks=["shuffle"], seeds=2)
    assert [own.check for own in done.sanity[0].checks] == ["shuffle"]
    assert not list(tmp_path.iterdir())
