"""The callback in the real Trainer of Hugging Face: searches, kills, and what cannot be."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

import tombola as tb
from tombola.methods import Gradual, RigL
from tombola.structure import QueryKey

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from tombola.integrations.transformers import TicketCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
transformers.logging.set_verbosity_error()

GENERATOR = torch.Generator().manual_seed(0)
PIECES = torch.randint(5, 60, (48, 12), generator=GENERATOR)
LABELS = (PIECES[:, :6].sum(1) > PIECES[:, 6:].sum(1)).long()
DATA = [{"input_ids": pieces, "labels": label} for pieces, label in zip(PIECES, LABELS, strict=True)]
GRADUAL, RIGL = Gradual(density=0.1, count=6), RigL(density=0.3, every="3it")
EARLY = tb.EarlyBird(density=0.5, epsilon=0.3, window=2, granularity=QueryKey())
METHODS = {"gradual": GRADUAL, "rigl": RIGL, "set": replace(RIGL, grow="random", rewind="init"), "early-bird": EARLY}


class Killed(Exception):
    """What ends a training as a kill does: the process has nothing but its checkpoints then."""


class Kill(transformers.TrainerCallback):
    def __init__(self, at):
        self.at = at

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.at:
            raise Killed

    def on_epoch_end(self, args, state, control, **_):
        if state.global_step == self.at:
            raise Killed


def network():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=2,
    )
    return transformers.BertForSequenceClassification(config)


def arguments(folder, **settings):
    options = {
        "num_train_epochs": 4,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "save_strategy": "epoch",
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    return transformers.TrainingArguments(str(folder), **options | settings)


def trained(callbacks, folder, resume=None, model=None, **settings):
    model = model or network()
    trainer = transformers.Trainer(model, arguments(folder, **settings), train_dataset=DATA, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return model, trainer


def killed(what, folder, at, **settings):
    with pytest.raises(Killed):
        trained([TicketCallback(what), Kill(at)], folder, **settings)


def equal(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize(
    ("settings", "at"),
    [
        ({}, 8),
        ({"save_strategy": "steps", "save_steps": 1}, 8),
        ({"save_strategy": "steps", "save_steps": 6}, 12),
        ({"gradient_accumulation_steps": 2, "bf16": True, "gradient_checkpointing": True}, 5),
        ({"optim": "adafactor", "max_grad_norm": 0.1}, 8),
    ],
    ids=["", "steps", "last step", "accumulated", "adafactor"],
)
def test_a_killed_training_ends_as_the_undisturbed_one(method, settings, at, tmp_path):
    callback = TicketCallback(method)
    model, trainer = trained([callback], tmp_path / "whole", **settings)
    killed(method, tmp_path / "killed", at, **settings)
    again = TicketCallback(method)
    other, second = trained([again], tmp_path / "killed", resume=True, **settings)
    assert equal(model, other)
    assert again.ticket.digest == callback.ticket.digest
    assert again.drawn_at == callback.drawn_at
    # Where the ticket was drawn at the end of an epoch whose checkpoint was written before that, the Trainer takes one
    # step more, which is taken back.
    assert second.state.global_step - trainer.state.global_step == (at == 12 and method is EARLY)
    mask = callback.ticket.mask
    if not isinstance(method, tb.EarlyBird):
        assert mask.total_kept == round(method.density * mask.size)
        assert not any(model.get_parameter(name)[~mask[name]].any() for name in mask)


def test_a_training_that_had_drawn_its_ticket_takes_no_further_step(tmp_path):
    callback, again = TicketCallback(EARLY), TicketCallback(EARLY)
    model, _ = trained([callback], tmp_path)
    other, _ = trained([again], tmp_path, resume=True)
    assert callback.drawn_at == again.drawn_at == 2
    assert equal(model, other)
    assert again.ticket.digest == callback.ticket.digest


def test_a_checkpoint_may_stand_elsewhere_but_must_have_the_search_and_be_whole(tmp_path):
    callback, again = TicketCallback(RIGL), None
    model, _ = trained([callback], tmp_path / "whole")
    killed(RIGL, tmp_path / "killed", 8)
    place = shutil.move(tmp_path / "killed" / "checkpoint-6", tmp_path / "moved")
    with pytest.raises(tb.TombolaError, match=r"has no tombola.pt .* resume_from=…"):
        trained([TicketCallback(RIGL)], tmp_path / "other", resume=place)
    again = TicketCallback(RIGL, resume_from=place)
    other, _ = trained([again], tmp_path / "other", resume=place)
    assert equal(model, other)
    assert again.ticket.digest == callback.ticket.digest
    with open(tmp_path / "moved" / "tombola.pt", "r+b") as file:
        file.seek(200)
        file.write(b"?")
    with pytest.warns(tb.errors.DamageWarning), pytest.raises(tb.TombolaError, match=r"has no tombola.pt"):
        trained([TicketCallback(RIGL, resume_from=place)], tmp_path / "third", resume=place)


def test_a_ticket_in_a_part_trains_as_it_is(tmp_path):
    model = network()
    mask = tb.select(tb.scores.magnitude(model.bert.encoder), 0.2)
    callback = TicketCallback(mask, part="bert.encoder")
    trained([callback], tmp_path, model=model)
    for name in mask:
        weight = model.bert.encoder.get_parameter(name)
        assert not weight[~mask[name]].any()
        assert weight[mask[name]].all()
    assert (tmp_path / "checkpoint-24" / "tombola-bert.encoder.pt").exists()
    other = tb.select(tb.scores.magnitude(network().bert.encoder), 0.3)
    with pytest.raises(tb.TombolaError, match="another mask"):
        trained([TicketCallback(other, part="bert.encoder")], tmp_path, resume=True, num_train_epochs=5)


def test_rounds_of_iterative_pruning_are_trainings(tmp_path):
    def rounds(folder, kill=None):
        model, tickets = network(), []
        for own in tb.Iterative(density=0.2, count=2, rewind="2it").rounds(model, folder=folder):
            place = folder / f"round-{own.index}"
            callbacks = [TicketCallback(own), *([Kill(8)] if kill == own.index else [])]
            resume = any(place.glob("checkpoint-*")) or None
            trained(callbacks, place, resume, model, num_train_epochs=2, optim="adamw_torch")
            tickets.append(own.ticket)
        return model, tickets

    model, tickets = rounds(tmp_path / "whole")
    for kill in (0, 1):
        with pytest.raises(Killed):
            rounds(tmp_path / f"{kill}", kill)
        other, ended = rounds(tmp_path / f"{kill}")
        assert equal(model, other)
        assert [ticket.digest for ticket in ended] == [ticket.digest for ticket in tickets[kill:]]


def test_the_best_model_of_before_the_mask_was_final_is_refused(tmp_path):
    options = {"load_best_model_at_end": True, "eval_strategy": "epoch", "metric_for_best_model": "loss"}
    trainer = transformers.Trainer(
        network(),
        arguments(tmp_path, **options),
        train_dataset=DATA,
        eval_dataset=DATA,
        callbacks=[TicketCallback(RIGL)],
    )
    with pytest.raises(tb.TombolaError, match="weights of before the mask was final"):
        trainer.train()
