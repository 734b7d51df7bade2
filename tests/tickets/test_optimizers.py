"""Several optimizers, wrapped optimizers, and layers that are unfrozen while a mask is attached."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim

from tombola import EarlyBird, Iterative, Mask, Ticket, TombolaError, attach, select
from tombola.methods import Worm
from tombola.scores import magnitude
from tombola.tickets import AttachWarning, Seed

INPUTS = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
TARGETS = torch.randint(0, 3, (64,), generator=torch.Generator().manual_seed(2))


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))


def mask_of(model: nn.Module) -> Mask:
    return select(magnitude(model), 0.3, scope="layerwise")


def sgd(parameters) -> optim.Optimizer:
    return optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.1)


class Lookahead(optim.Optimizer):
    """Slow weights in a list of its own; without Optimizer.__init__, as most have it, so that it runs no hooks."""

    def __init__(self, base):
        self.optimizer, self.param_groups, self.count = base, base.param_groups, 0
        self.slow = [[p.detach().clone() for p in group["params"]] for group in base.param_groups]

    def step(self, closure=None):
        loss = self.optimizer.step(closure)
        self.count += 1
        if self.count % 2 == 0:
            for group, slow in zip(self.param_groups, self.slow, strict=True):
                for fast, value in zip(group["params"], slow, strict=True):
                    value.add_(fast.detach() - value, alpha=0.5)
                    fast.detach().copy_(value)
        return loss


class SlowInState(optim.Optimizer):
    """Lookahead that is an Optimizer in full, and keeps slow weights in its state."""

    def __init__(self, base):
        super().__init__([p for group in base.param_groups for p in group["params"]], {})
        self.base_optimizer = base
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["slow"] = parameter.detach().clone()

    @torch.no_grad()
    def step(self, closure=None):
        self.base_optimizer.step()
        for parameter in self.param_groups[0]["params"]:
            slow = self.state[parameter]["slow"]
            parameter.copy_(slow.add_(parameter - slow, alpha=0.5))


class Sharp(optim.Optimizer):
    """SAM, whose old weights in its state become the parameters' memory."""

    def __init__(self, parameters, base, **settings):
        super().__init__(parameters, settings)
        self.base_optimizer = base(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def step(self, closure):
        parameters = self.param_groups[0]["params"]
        for parameter in parameters:
            self.state[parameter]["old_p"] = parameter.detach().clone()
            parameter.add_(0.05 * parameter.square() * (0.0 if parameter.grad is None else parameter.grad))
        self.zero_grad()
        with torch.enable_grad():
            closure()
        for parameter in parameters:
            parameter.data = self.state[parameter]["old_p"]
        self.base_optimizer.step()


class Own:
    """A wrapper that is no Optimizer, around one or several."""

    def __init__(self, *inside):
        self._inside = list(inside)

    def step(self):
        for one in self._inside:
            one.step()

    def zero_grad(self):
        for one in self._inside:
            one.zero_grad()


class Slots:
    __slots__ = ("one",)

    def __init__(self, one):
        self.one = one

    def step(self):
        self.one.step()

    def zero_grad(self):
        self.one.zero_grad()


GIVEN = {
    "list": lambda net: [sgd(net[0].parameters()), sgd(net[2].parameters())],
    "dictionary": lambda net: {"first": sgd(net[0].parameters()), "last": optim.AdamW(net[2].parameters(), 0.01)},
    "Lookahead": lambda net: Lookahead(sgd(net.parameters())),
    "slow in state": lambda net: SlowInState(sgd(net.parameters())),
    "SAM": lambda net: Sharp(net.parameters(), optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "own": lambda net: Own(sgd(net[0].parameters()), sgd(net[2].parameters())),
    "own around own": lambda net: Own(Own(Lookahead(optim.AdamW(net.parameters(), 0.01)))),
    "slots": lambda net: Slots(sgd(net.parameters())),
}


def step(net: nn.Module, given) -> None:
    optimizers = list(given.values()) if isinstance(given, dict) else given if isinstance(given, list) else [given]
    net.zero_grad()

    def closure():
        loss = F.cross_entropy(net(INPUTS), TARGETS)
        loss.backward()
        return loss

    closure()
    for optimizer in optimizers:
        optimizer.step(closure) if isinstance(optimizer, Sharp) else optimizer.step()


@pytest.mark.parametrize("dead", ["zero", "frozen"])
@pytest.mark.parametrize("make", GIVEN.values(), ids=GIVEN)
def test_dead_stays_dead_whatever_is_around_the_optimizers(make, dead):
    net = make_net()
    mask, given = mask_of(net), make(net)
    for _ in range(3):
        step(net, given)
    before = {name: net.get_parameter(name).detach().clone() for name in mask}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        handle = attach(mask, net, given, dead=dead)
    for _ in range(5):
        step(net, given)
        for name in mask:
            weight = net.get_parameter(name).detach()[~mask[name]]
            assert torch.equal(weight, before[name][~mask[name]] if dead == "frozen" else torch.zeros_like(weight))
    assert all((net.get_parameter(name).detach() != before[name])[mask[name]].any() for name in mask)
    handle.detach()
    assert "step" not in getattr(given, "__dict__", {})
    step(net, given)
    assert all((net.get_parameter(name).detach() != before[name])[~mask[name]].any() for name in mask)


def test_a_wrapper_keeps_its_closure_its_result_and_what_was_put_around_its_step():
    net = make_net()
    given = Lookahead(sgd(net.parameters()))
    with attach(mask_of(net), net, given):
        scheduler = optim.lr_scheduler.StepLR(given, 1, 0.5)  # wraps `step` anew
        assert given.step(lambda: 7) == 7
        scheduler.step()
    assert given.step(lambda: 8) == 8
    assert given.count == 2
    assert scheduler.get_last_lr() == [0.05]


def test_a_scheduler_from_before_is_not_told_that_its_optimizer_was_exchanged():
    net = make_net()
    given = Lookahead(sgd(net.parameters()))
    scheduler = optim.lr_scheduler.StepLR(given, 1, 0.5)
    with attach(mask_of(net), net, given), warnings.catch_warnings():
        warnings.simplefilter("error")
        step(net, given)
        scheduler.step()


def test_a_copy_of_a_wrapper_steps_itself():
    net = make_net()
    given = Own(sgd(net.parameters()))
    with attach(mask_of(net), net, given):
        two, twin = copy.deepcopy((net, given))
        before = copy.deepcopy(net.state_dict())
        step(two, twin)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert not torch.equal(two[0].weight, net[0].weight)


def test_masked_parameters_that_no_optimizer_holds_are_named():
    net = make_net()
    mask = mask_of(net)
    with pytest.warns(AttachWarning, match=r"'2\.weight' is masked and in none of the given optimizers"):
        attach(mask, net, sgd(net[0].parameters())).detach()
    net[2].requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with attach(mask, net, optimizer := sgd(net[0].parameters())):
            net[2].requires_grad_(True)
            optimizer.add_param_group({"params": list(net[2].parameters())})
            for _ in range(3):
                step(net, optimizer)
            assert all(not net.get_parameter(name).detach()[~mask[name]].any() for name in mask)


class Nothing:
    def step(self): ...


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda net: {"g": sgd(net.parameters()), "d": sgd(make_net().parameters())},
            r"'d' \(SGD\) holds none of this",
        ),
        (
            lambda net: [sgd(net.parameters()), sgd([net[2].bias])],
            r"optimizer 2 \(SGD\) holds nothing that the mask covers",
        ),
        (lambda net: Nothing(), r"the optimizer \(Nothing\) is no torch.optim.Optimizer"),
        (lambda net: [sgd(net.parameters()), None], r"optimizer 2 \(NoneType\) is no torch"),
        (lambda net: "sgd", "is no torch.optim.Optimizer"),
        (lambda net: [], "no optimizer among those given"),
    ],
)
def test_what_cannot_train_the_masked_parameters_is_refused_by_name(make, says):
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(TombolaError, match=says):
        attach(mask_of(net), net, make(net))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("with_optimizer", [True, False])
def test_layers_that_were_frozen_follow_their_mask_once_they_train(with_optimizer):
    net = make_net().requires_grad_(False)
    mask = mask_of(net)
    optimizer = optim.SGD(net.parameters(), 0.1)
    held = net[2].bias.detach().clone()
    with attach(Ticket(mask, Seed(0, ""), held=("2.bias",)), net, optimizer if with_optimizer else None):
        assert not any(p.requires_grad for p in net.parameters())
        net.requires_grad_(True)
        for _ in range(2):
            step(net, optimizer)
            assert torch.equal(net[2].bias, held)
            assert net[2].bias.grad is None
            for name in mask:
                weight = net.get_parameter(name)
                assert not weight.grad[~mask[name]].any()
                assert weight.grad[mask[name]].any()
                assert not weight.detach()[~mask[name]].any()
    step(net, optimizer)
    assert not torch.equal(net[2].bias, held)
    assert net[0].weight.grad[~mask["0.weight"]].any()


def test_rounds_count_the_steps_of_the_last_of_several_optimizers():
    net, two = make_net(), make_net()
    starts = []
    for model, make in (
        (net, lambda: sgd(net.parameters())),
        (two, lambda: [Own(sgd(two[0].parameters())), sgd(two[2].parameters())]),
    ):
        for round_ in Iterative(density=0.5, count=1, rewind="2it").rounds(model):
            given = make()
            with round_.attach(given):
                for _ in range(3):
                    step(model, given)
        starts.append(round_.start)
        assert all(not model.get_parameter(name).detach()[~round_.mask[name]].any() for name in round_.mask)
    assert starts[0] == starts[1]


@pytest.mark.parametrize("method", [EarlyBird(density=0.5, penalty=0.1), Worm(density=0.5, truncate="always")])
def test_a_watch_shapes_each_gradient_once_however_many_optimizers_there_are(method):
    weights = []
    for several in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        given = [Own(sgd(net[1].parameters())), sgd(net[3].parameters())] if several else sgd(net[1:].parameters())
        watch = method.watch(net, given)
        for _ in range(3):
            step(net, given)
            watch.epoch_end()
        watch.detach()
        weights.append(net[1].weight.detach().clone())
    assert torch.equal(*weights)
    with pytest.raises(TombolaError, match=r"does not hold '1\.weight'"):
        method.watch(net, [sgd(net[3].parameters())])


def test_a_step_of_one_optimizer_leaves_what_another_trains_untouched():
    """In a GAN the critic steps between the generator's forward and backward pass."""
    generator, critic = nn.Linear(4, 6), nn.Linear(6, 1)
    both = nn.ModuleDict({"generator": generator, "critic": critic})
    mask = Mask.of({name: torch.rand(p.shape) < 0.5 for name, p in both.named_parameters() if p.ndim > 1})
    optimizers = [torch.optim.Adam(network.parameters()) for network in (generator, critic)]
    with attach(mask, both, optimizers):
        fake = generator(torch.randn(8, 4))
        critic(fake.detach()).sum().backward()
        optimizers[1].step()
        (-critic(fake).sum()).backward()
        optimizers[0].step()
    assert not any(both.get_parameter(name)[~mask[name]].any() for name in mask)
