"""n:m masks: the pattern holds in every group, the total is exact, and every score and schedule can make them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tombola as tb
from kinds import WEIGHT_SCORES
from networks import short_network
from tombola.structure import granularity
from tombola.testing import check_method, toy_task
from tombola.tickets import Mask, TieWarning, select_pattern


def groups_of(kept: torch.Tensor, m: int) -> torch.Tensor:
    """Kept counts of every whole group along the inputs."""
    last = kept.movedim(1, -1)
    whole = last.shape[-1] // m * m
    return last[..., :whole].reshape(-1, m).sum(-1)


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_every_group_keeps_n_of_m_the_best_and_the_total_is_exact(n, more, seed):
    m = n + more
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 11), "b": (2, 5, 3, 3), "c": (4, 1, 3)}
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    mask = select_pattern(scores, m, n / m)
    assert mask.total_kept == round(n / m * mask.size)
    for name, score in scores.items():
        assert (groups_of(mask[name], m) == n).all()
        last, kept = score.movedim(1, -1), mask[name].movedim(1, -1)
        whole = last.shape[-1] // m * m
        ranked = last[..., :whole].reshape(-1, m)
        chosen = kept[..., :whole].reshape(-1, m)
        worst = torch.where(chosen, ranked, 2.0).min(-1).values
        best_dropped = torch.where(chosen, -1.0, ranked).max(-1).values
        assert (worst > best_dropped).all()


def test_equal_scores_are_decided_by_a_hash_and_said_so():
    flat = {"a": torch.zeros(64, 64)}
    with pytest.warns(TieWarning, match="2048 of 2048"):
        mask = select_pattern(flat, 4, 0.5)
    assert (groups_of(mask["a"], 4) == 2).all()
    positions = mask["a"].reshape(-1, 4).float().mean(0)
    assert (positions - 0.5).abs().max() < 0.06  # no position of a group is preferred


def test_rounds_nest_and_a_mask_of_another_kind_is_refused():
    scores = {"a": torch.rand(6, 10)}
    earlier = select_pattern(scores, 4, 0.75)
    later = select_pattern({"a": torch.rand(6, 10)}, 4, 0.5, within=earlier)
    assert later <= earlier
    assert later.total_kept == 30
    with pytest.raises(tb.TombolaError, match="too few for 2:4"):
        select_pattern(scores, 4, 0.5, within=Mask.of({"a": torch.arange(60).reshape(6, 10) < 30}))


@pytest.mark.parametrize("name", WEIGHT_SCORES)
@pytest.mark.filterwarnings("ignore::tombola.tickets.TieWarning")  # Pixels that are always 0 are worth 0 to Wanda.
def test_every_score_makes_a_pattern(name):
    check_method(tb.OneShot(density=0.5, score=WEIGHT_SCORES[name], granularity=tb.structure.NM(2, 4)), short_network)


@pytest.mark.parametrize("rewind", ["init", "learning-rate"])
def test_iterative_pruning_makes_a_pattern(rewind):
    check_method(tb.Iterative(density=0.25, granularity=tb.structure.NM(1, 4), rewind=rewind, share=0.4), short_network)


def test_rounds_at_initialisation_make_a_pattern():
    check_method(tb.OneShot(density=0.5, score=tb.scores.SynFlow(), rounds=5, granularity=tb.structure.NM(4, 8)))


def test_a_control_of_a_pattern_can_be_inverted():
    method = tb.OneShot(density=0.5, granularity=tb.structure.NM())
    study = tb.compare(toy_task(), [method], seeds=1, controls=("inverted", "shuffle"))
    assert {result.weight_density for result in study.results if result.method} == {0.5}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tb.OneShot(density=0.1, granularity=tb.structure.NM()), "2:4 keeps 0.5 of the weights"),
        (lambda: tb.OneShot(density=0.5, granularity=tb.structure.NM(), scope="erk"), "leave it out"),
        (lambda: tb.structure.NM(5, 4), "give n from 1 to m"),
        (lambda: granularity("channels"), "no granularity 'channels'"),
    ],
)
def test_what_cannot_be_had_is_refused(make, says):
    with pytest.raises(tb.TombolaError, match=says):
        make()
