"""The callback in real Lightning: searches, rounds, kills, and what Lightning's own pruning gets wrong."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tombola as tb
from tombola.methods import Gradual, RigL, SearchWarning
from tombola.testing import toy_network, toy_task
from tombola.tickets import tensors_of

lightning = pytest.importorskip("lightning")
from lightning.pytorch.callbacks import (  # noqa: E402
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from tombola.integrations.lightning import TicketCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

INPUTS, TARGETS = toy_task().data["train"]
GRADUAL, RIGL = Gradual(density=0.1, count=6), RigL(density=0.3, every="3it")
EARLY = tb.EarlyBird(density=0.5, epsilon=0.25, window=3)
METHODS = {
    "gradual": GRADUAL,
    "rigl": RIGL,
    "set": replace(RIGL, grow="random", rewind="init"),
    "early-bird": EARLY,
    "worm": tb.Worm(density=0.5, epsilon=0.25, window=3),
}


class Killed(Exception):
    """What ends a training as a kill does: the process has nothing but its checkpoints then."""


class Kill(lightning.Callback):
    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.at:
            raise Killed

    def on_train_epoch_end(self, trainer, module):
        if trainer.global_step == self.at:
            raise Killed


class Classifier(lightning.LightningModule):
    def __init__(self, optimizer=lambda p: torch.optim.AdamW(p, lr=0.01)):
        super().__init__()
        torch.manual_seed(1)
        self.net, self._optimizer = toy_network(), optimizer
        self.net[7].p = 0.0  # Lightning's checkpoints do not hold the random state

    def training_step(self, batch, index):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return self._optimizer(self.net.parameters())


def loader():
    return DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=20)


def fit(module, callbacks, epochs=6, validate=False, ckpt_path=None, **settings):
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    settings = {"logger": False, "enable_checkpointing": checkpoints} | settings
    if validate:
        settings |= {"val_check_interval": 0.5}  # a checkpoint is then written after validation, before the epoch ends
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, loader(), loader() if validate else None, ckpt_path=ckpt_path)
    return trainer


def searched(what, folder, kill=None, resume=False, every=None, **settings):
    module, callback = Classifier(), TicketCallback(what, part="net")
    checkpoints = ModelCheckpoint(folder, save_last=True, every_n_train_steps=every)
    callbacks = [callback, checkpoints, *([Kill(kill)] if kill is not None else [])]
    try:
        trainer = fit(module, callbacks, ckpt_path=folder / "last.ckpt" if resume else None, **settings)
    except Killed:
        trainer = None
    return module, callback, trainer


def equal(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize(
    "saving",
    [{}, {"validate": True}, {"every": 1}],
    ids=["saved after an epoch", "saved after validation", "saved after each step"],
)
@pytest.mark.parametrize("kill", [6, 8, 18])
def test_a_killed_training_ends_as_the_undisturbed_one(method, saving, kill, tmp_path):
    if kill == 8 and "every" in saving:
        pytest.skip("Lightning begins the epoch's data anew")
    module, callback, trainer = searched(method, tmp_path / "whole", **saving)
    assert searched(method, tmp_path / "killed", kill=kill, **saving)[2] is None
    resume = (tmp_path / "killed" / "last.ckpt").exists()  # killed at the end of the first epoch, it begins anew
    other, again, second = searched(method, tmp_path / "killed", resume=resume, **saving)
    assert equal(module, other)
    assert again.ticket.digest == callback.ticket.digest
    assert (again.drawn_at, second.global_step) == (callback.drawn_at, trainer.global_step)
    assert callback.drawn_at == (3 if isinstance(method, tb.EarlyBird) else None)
    saved = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == module.state_dict().keys()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_training_that_had_ended_gives_its_ticket_again(method, tmp_path):
    module, callback, trainer = searched(method, tmp_path, validate=True)
    other, again, second = searched(method, tmp_path, resume=True, validate=True)
    assert second.global_step == trainer.global_step
    assert again.ticket.digest == callback.ticket.digest
    assert equal(module, other)


def test_it_is_what_the_watch_does_in_ones_own_loop():
    module, callback = Classifier(), TicketCallback(RIGL, part="net", seed=4)
    fit(module, [callback], accumulate_grad_batches=2, gradient_clip_val=0.5)
    own = Classifier()
    optimizer = own.configure_optimizers()
    watch = RIGL.watch(own.net, optimizer, steps=18, seed=4)
    for _ in range(6):
        for index, (inputs, targets) in enumerate(loader(), 1):
            (F.cross_entropy(own.net(inputs), targets) / 2).backward()
            if index % 2 == 0:
                nn.utils.clip_grad_norm_(own.net.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()
    assert callback.ticket.mask == watch.ticket.mask
    assert equal(module, own)


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (lambda p: torch.optim.AdamW(p, lr=0.01), {"precision": "bf16-mixed", "gradient_clip_val": 0.1}),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), {"precision": "bf16-true", "accumulate_grad_batches": 3}),
        (lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2), {"precision": "64-true"}),
        (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1), {"max_steps": 20, "gradient_clip_val": 0.1}),
    ],
    ids=["bf16-mixed", "bf16-true", "l-bfgs", "max_steps"],
)
@pytest.mark.parametrize("method", [GRADUAL, RIGL], ids=["gradual", "rigl"])
def test_dead_weights_are_zero_in_every_precision_and_with_every_optimizer(method, optimizer, settings):
    module, callback = Classifier(optimizer), TicketCallback(method, part="net")

    class Look(lightning.Callback):
        kept = 0

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            mask = callback.ticket.mask
            assert not any(module.net.get_parameter(name)[~mask[name]].any() for name in mask)

    fit(module, [callback, Look()], **settings)
    assert callback.ticket.mask.total_kept == round(method.density * 732)


class Gan(lightning.LightningModule):
    """Two networks, two optimizers, and a loop of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        self.critic = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, index):
        generator, critic = self.optimizers()
        real = batch[0][:, 0, 0, :2]
        noise = real.repeat(1, 2)
        score = self.critic(self.generator(noise).detach())
        loss = F.softplus(score).mean() + F.softplus(-self.critic(real)).mean()
        critic.zero_grad()
        self.manual_backward(loss)
        critic.step()
        self.toggle_optimizer(generator)
        loss = F.softplus(-self.critic(self.generator(noise))).mean()
        generator.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(generator, 1.0)
        generator.step()
        self.untoggle_optimizer(generator)

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.generator, self.critic)]


def test_a_gan_has_a_ticket_in_each_network(tmp_path):
    def callbacks():
        parts = [TicketCallback(GRADUAL, part="generator", steps=36), TicketCallback(RIGL, part="critic", steps=36)]
        return [*parts, ModelCheckpoint(tmp_path, save_last=True)]

    module, whole = Gan(), callbacks()
    fit(module, whole)
    with pytest.raises(Killed):
        fit(Gan(), [*callbacks(), Kill(2 * 8)])
    other, again = Gan(), callbacks()
    fit(other, again, ckpt_path=tmp_path / "last.ckpt")
    assert equal(module, other)
    for part, one, two in zip((module.generator, module.critic), whole, again[:2], strict=False):
        mask = one.ticket.mask
        assert mask == two.ticket.mask
        assert not any(part.get_parameter(name)[~mask[name]].any() for name in mask)
    assert whole[0].ticket.density == pytest.approx(0.1, abs=0.01)


def trained_in_rounds(method, folder, kill=None):
    """IMP: a Trainer a round; each goes on from its own checkpoint, if it has one."""
    module, tickets = Classifier(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)), []
    for own in method.rounds(module.net, folder=folder):
        place = folder / f"round-{own.index}"
        callbacks = [TicketCallback(own), ModelCheckpoint(place, save_last=True)]
        if kill is not None and kill[0] == own.index:
            callbacks.append(Kill(kill[1]))
        fit(module, callbacks, epochs=3, ckpt_path=place / "last.ckpt" if (place / "last.ckpt").exists() else None)
        tickets.append(own.ticket)
    return module, tickets


@pytest.mark.parametrize("rewind", ["init", "8it", "learning-rate"])
def test_rounds_of_iterative_pruning_are_trainings_and_go_on_after_a_kill(rewind, tmp_path):
    method = tb.Iterative(density=0.2, count=2, rewind=rewind)
    module, tickets = trained_in_rounds(method, tmp_path / "whole")
    assert [ticket.mask.total_kept for ticket in tickets] == [732, 327, 146]
    for kill in ((0, 14), (1, 3), (2, 8)):
        folder = tmp_path / f"{kill}"
        with pytest.raises(Killed):
            trained_in_rounds(method, folder, kill)
        other, ended = trained_in_rounds(method, folder)
        assert equal(module, other)
        assert [one.digest for one in ended] == [one.digest for one in tickets[kill[0] :]]


def test_a_ticket_trains_as_it_is_and_only_with_its_own_checkpoints(tmp_path):
    ticket = tb.find(replace(toy_task(), recipe=tb.Recipe(epochs=1, batch=20)), tb.OneShot(density=0.2))
    module, (_, callback, _) = Classifier(), searched(ticket, tmp_path)
    assert callback.ticket is ticket
    other = tb.select(tb.scores.magnitude(module.net), 0.2)
    with pytest.raises(tb.TombolaError, match="another mask"):
        searched(other, tmp_path, resume=True, epochs=9)
    assert searched(other, tmp_path)[1].ticket.mask == other


def test_without_a_stop_the_epoch_is_marked_and_training_goes_on_dense():
    module, callback = Classifier(), TicketCallback(METHODS["worm"], part="net", stop=False)
    trainer = fit(module, [callback])
    dense, marked = Classifier(), TicketCallback(EARLY, part="net", stop=False)
    fit(dense, [marked])
    alone = Classifier()
    fit(alone, [])
    assert (callback.drawn_at, trainer.current_epoch) == (3, 6)
    assert callback.ticket.start.what == "3ep"
    assert equal(dense, alone)  # Early-Bird only looks on


@pytest.mark.parametrize("averaging", [WeightAveraging, lambda: StochasticWeightAveraging(0.01, 2, 1)])
@pytest.mark.parametrize("method", [GRADUAL, RIGL], ids=["gradual", "rigl"])
def test_averaged_weights_are_sparse_at_the_end(method, averaging):
    module, callback = Classifier(), TicketCallback(method, part="net")
    fit(module, [callback, averaging()])
    mask = callback.ticket.mask
    assert not any(module.net.get_parameter(name)[~mask[name]].any() for name in mask)
    copy.deepcopy(module.net)


def test_other_callbacks_and_loggers_see_nothing_new(tmp_path):
    fit(Classifier(), [TicketCallback(GRADUAL, part="net"), LearningRateMonitor()], logger=CSVLogger(tmp_path))


def test_the_package_of_the_earlier_name_has_it_too():
    package = pytest.importorskip("pytorch_lightning")
    from tombola.integrations.pytorch_lightning import TicketCallback as Earlier

    class Net(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = toy_network()

        training_step, configure_optimizers = Classifier.training_step, Classifier.configure_optimizers
        _optimizer = staticmethod(lambda p: torch.optim.SGD(p, lr=0.1))

    callback = Earlier(GRADUAL)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    package.Trainer(max_epochs=2, accelerator="cpu", callbacks=[callback], enable_model_summary=False, **options).fit(
        Net(), loader()
    )
    assert callback.ticket.mask.total_kept == 73


@pytest.mark.parametrize(
    ("what", "options", "settings", "message"),
    [
        (tb.Iterative(), {}, {}, "for round in method.rounds"),
        (tb.OneShot(), {}, {}, "OneShot does not search while you train"),
        (GRADUAL, {"part": "nett"}, {}, "no part 'nett'"),
        (GRADUAL, {}, {"epochs": -1}, "how many steps training will take"),
        (replace(RIGL, every="1ep"), {}, {}, "counted, not epochs"),
        (Gradual(granularity=tb.Channels(), floor=1), {"part": "net"}, {}, "give example="),
    ],
)
def test_what_cannot_be_is_one_sentence(what, options, settings, message):
    with pytest.raises(tb.TombolaError, match=message):
        fit(Classifier(), [TicketCallback(what, **options)], **settings)


def test_a_trainer_that_has_nothing_left_to_train_and_a_checkpoint_without_the_search_are_refused(tmp_path):
    module, method = Classifier(), tb.Iterative(density=0.2, count=1)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=1, enable_model_summary=False, **options)
    with pytest.raises(tb.TombolaError, match="make a new Trainer for each training"):
        for own in method.rounds(module.net):
            trainer.callbacks = [TicketCallback(own)]
            trainer.fit(module, loader())
    fit(Classifier(), [ModelCheckpoint(tmp_path, save_last=True)], epochs=1)
    with pytest.raises(tb.TombolaError, match="goes on from step 6 without the state"):
        searched(GRADUAL, tmp_path, resume=True)


def test_a_search_that_training_cuts_short_says_so():
    callback = TicketCallback(GRADUAL, part="net", steps=100)
    with pytest.warns(SearchWarning, match="training ended before the search did"):
        fit(Classifier(), [callback], epochs=2)
    assert callback.ticket.density > 0.1


# What Lightning's ModelPruning gets wrong (2.6.6), and we do not.


def lightnings(**settings):
    return ModelPruning("l1_unstructured", **{"amount": 0.3, "parameter_names": ["weight"], **settings})


def test_its_lottery_ticket_rewinds_once_and_ours_after_every_round(tmp_path):
    """Lightning#13643: what it copies back are the stored weights themselves, which the next epoch then trains."""
    module = Classifier()
    initial = module.net[8].weight.detach().clone()
    drifts = []

    class Look(lightning.Callback):
        def on_train_epoch_start(self, trainer, module):
            layer = module.net[8]
            weight = layer.weight_orig if hasattr(layer, "weight_orig") else layer.weight
            drifts.append(float((weight - initial).abs().max()))

    fit(module, [lightnings(use_lottery_ticket_hypothesis=True), Look()], epochs=4)
    assert drifts[1] == 0
    assert min(drifts[2:]) > 0.01
    ours = Classifier()
    initial = {name: tensor.clone() for name, tensor in tensors_of(ours.net).items()}
    for own in tb.Iterative(density=0.3, count=3).rounds(ours.net):
        assert all(torch.equal(tensor, initial[name]) for name, tensor in tensors_of(ours.net).items())
        fit(ours, [TicketCallback(own)], epochs=1)


def test_its_checkpoint_forgets_the_mask_and_ours_does_not(tmp_path):
    """A resumed training of its own revives what was pruned."""

    def pruned_once():
        return lightnings(apply_pruning=lambda epoch: epoch == 0, use_lottery_ticket_hypothesis=False, amount=0.9)

    fit(Classifier(), [pruned_once(), ModelCheckpoint(tmp_path, save_last=True)], epochs=1)
    resumed = Classifier()
    fit(resumed, [pruned_once()], epochs=2, ckpt_path=tmp_path / "last.ckpt")
    weights = torch.cat([resumed.net[at].weight.detach().flatten() for at in (0, 3, 8)])
    assert (weights != 0).float().mean() > 0.9
    module, callback, _ = searched(GRADUAL, tmp_path / "ours", epochs=6)
    kept = sum(int((module.net.get_parameter(name) != 0).sum()) for name in callback.ticket.mask)
    assert kept == callback.ticket.mask.total_kept == 73


def test_its_checkpoints_of_a_training_do_not_fit_the_plain_module_and_ours_do(tmp_path):
    callbacks = [lightnings(make_pruning_permanent=False), ModelCheckpoint(tmp_path, save_last=True)]
    fit(Classifier(), callbacks, epochs=1)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    with pytest.raises(RuntimeError, match=r"net\.0\.weight_orig"):
        Classifier().load_state_dict(state)
    searched(GRADUAL, tmp_path / "ours")
    Classifier().load_state_dict(torch.load(tmp_path / "ours" / "last.ckpt", weights_only=True)["state_dict"])


def test_in_training_its_module_cannot_be_copied_or_trained_again_and_ours_can():
    """pytorch#37322, Lightning#8542: what averages weights or keeps the best model copies it."""
    errors = []

    class Copy(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            try:
                copy.deepcopy(module.net)
            except RuntimeError as error:
                errors.append(str(error))

    fit(Classifier(), [lightnings(), Copy()], epochs=2)
    assert any("graph leaves" in error for error in errors)
    errors.clear()
    fit(Classifier(), [TicketCallback(GRADUAL, part="net"), Copy()], epochs=2)
    assert not errors


def test_its_dead_weights_keep_moving_and_ours_are_zero():
    """Momentum and weight decay change what it keeps below the mask, and clipping counts it."""
    momentum = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1)}
    module = Classifier(**momentum)
    seen = []

    class Look(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            layer = module.net[8]
            if hasattr(layer, "weight_mask"):
                seen.append(layer.weight_orig.detach()[layer.weight_mask == 0][:200].clone())

    once = lightnings(amount=lambda epoch: 0.5 if epoch == 0 else 0, use_lottery_ticket_hypothesis=False)
    fit(module, [once, Look()], epochs=2)
    assert (seen[0] - seen[-1]).abs().max() > 1e-3
    ours, callback = Classifier(**momentum), TicketCallback(RIGL, part="net")

    class Zero(lightning.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            mask, step = callback.ticket.mask, trainer.global_step
            for name in mask if step % 3 or step >= 9 else ():
                weight, dead = module.net.get_parameter(name), ~mask[name]
                momentum = optimizer.state[weight].get("momentum_buffer", torch.zeros_like(weight))
                assert not weight[dead].any()
                assert not weight.grad[dead].any()
                assert not momentum[dead].any()

    fit(ours, [callback, Zero()], epochs=2)


def test_by_default_it_prunes_norms_and_biases_and_never_says_what_is_left():
    """Its amount is of what the last epoch left, so that the density is another after each; ours is what was asked."""
    module = Classifier()
    fit(module, [ModelPruning("l1_unstructured", amount=0.5)], epochs=3)
    weights = torch.cat([module.net[at].weight.detach().flatten() for at in (0, 3, 8)])
    assert (weights != 0).float().mean() < 0.2
    assert (module.net[8].bias == 0).any()
    ours, callback = Classifier(), TicketCallback(Gradual(density=0.5), part="net")
    fit(ours, [callback], epochs=3)
    assert callback.ticket.mask.total_kept == 366
    assert set(callback.ticket.mask) == {"0.weight", "3.weight", "8.weight"}
    assert (ours.net[8].bias != 0).all()
