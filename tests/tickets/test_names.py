"""Names by what a wrapper is, not by what it is called."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn, optim
from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as wrapping
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import tombola as tb
from tombola import Mask, Ticket, TombolaError, attach
from tombola.shrinking import sparse_copy
from tombola.sparse_inference import trial
from tombola.structure import PartUnits, prunable, residual_blocks
from tombola.structure.declared_parts import query_key_weights
from tombola.testing.toys import toy_task
from tombola.tickets import (
    Values,
    bare,
    digest_of,
    eager,
    is_spread,
    modules_of,
    names_of,
    parameters_of,
    paths_of,
    tensors_of,
    unwrapped,
    wrappers,
)

IMAGES, CLASSES = torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(3)), torch.arange(8) % 3
BATCHES = [(IMAGES, CLASSES)]
INNER = "3"


def make() -> nn.Sequential:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    first = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(*first, block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # ty: ignore[invalid-return-type]


def inside(wrap):
    """A network with its block wrapped."""

    def wrapped(model: nn.Sequential) -> nn.Module:
        model[3] = wrap(model[3])
        return model

    return wrapped


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path_factory.mktemp('gloo') / 'sync'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


WRAPS = {
    "compiled": compiled,
    "DataParallel": nn.DataParallel,
    "DDP": DistributedDataParallel,
    "AveragedModel": AveragedModel,
    "checkpointed": wrapping.checkpoint_wrapper,
    "offloaded": wrapping.offload_wrapper,
}
EVERY = {
    **WRAPS,
    **{f"{name} inside": inside(wrap) for name, wrap in WRAPS.items()},
    "compiled DDP": lambda model: compiled(DistributedDataParallel(model)),
    "DDP, compiled inside": lambda model: DistributedDataParallel(inside(compiled)(model)),
    "compiled twice": lambda model: compiled(inside(compiled)(model)),
}
every = pytest.mark.parametrize("wrap", EVERY.values(), ids=EVERY.keys())
pytestmark = [
    pytest.mark.usefixtures("one_process"),
    pytest.mark.filterwarnings("ignore:(The .grad attribute of a Tensor|Dynamo does not know how to trace)"),
]


def half(model: nn.Module) -> Mask:
    return tb.select(tb.scores.magnitude(model), 0.5)


# Wrappers


@every
def test_a_wrapped_network_has_the_names_of_the_plain_one(wrap):
    plain, model = make(), wrap(make())
    counted = {f"{INNER}.n_averaged"} if wrap is EVERY["AveragedModel inside"] else set()
    assert tensors_of(model).keys() - counted == tensors_of(plain).keys()
    assert [*parameters_of(model)] == [*parameters_of(plain)]
    assert {name: type(own) for name, own in modules_of(model).items()} == {
        name: type(own) for name, own in modules_of(plain).items()
    }
    assert names_of(model).keys() == set(model.modules())
    values = {name: own for name, own in tensors_of(model).items() if name not in counted}
    assert digest_of(values) == digest_of(tensors_of(plain))


@every
def test_paths_lead_to_the_tensors_of_a_wrapped_network(wrap):
    model = wrap(make())
    for name, path in paths_of(model).items():
        owner, _, part = path.rpartition(".")
        assert getattr(model.get_submodule(owner), part).data_ptr() == tensors_of(model)[name].data_ptr()


@every
def test_a_ticket_fits_the_network_however_it_is_wrapped(wrap, tmp_path):
    plain, model = make(), wrap(make())
    for own, other in ((plain, model), (model, plain)):
        other = copy.deepcopy(other)
        if tensors_of(own).keys() != tensors_of(other).keys():
            continue  # A network that averages a part of itself has a count more.
        mask = half(own)
        assert mask.digest == half(other).digest
        Ticket(mask, Values(tensors_of(own), "end")).save(tmp_path / "t.safetensors")
        ticket = Ticket.load(tmp_path / "t.safetensors")
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        ticket.put_into(other)
        attach(ticket, other).detach()
        dead = copy.deepcopy(plain)
        attach(mask, dead).detach()
        assert digest_of(tensors_of(other)) == digest_of(tensors_of(dead))


@every
def test_scores_and_channels_of_a_wrapped_network_are_the_plain_ones(wrap):
    plain, model = make(), wrap(make())
    scores = [tb.scores.magnitude, tb.scores.Wanda()]
    if not any(isinstance(own, wrapping.CheckpointWrapper) for own in model.modules()):
        scores += [tb.scores.snip, tb.scores.grasp]  # Which recomputation would do at the model's own weights.
    for score in scores:
        own, other = (score(net, BATCHES, F.cross_entropy) for net in (plain, model))
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], other[name]) for name in own)
    one, two = (tb.Channels().units(net, lambda net: net(IMAGES)) for net in (plain, model))
    assert [group.name for group in one.groups] == [group.name for group in two.groups]


def channels_of(model: nn.Module) -> Mask:
    units = tb.Channels().units(model, lambda net: net(IMAGES))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    return units.expand(kept, tensors_of(model))


@every
def test_a_wrapped_network_shrinks_as_the_plain_one_or_says_why_not(wrap):
    plain, model, mask = make(), wrap(make()), channels_of(make())
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    F.cross_entropy(model(IMAGES), CLASSES).backward()
    optimizer.step()
    if any(isinstance(own, DistributedDataParallel) for own in model.modules()):
        with pytest.raises(TombolaError, match="is wrapped in DDP"):
            tb.shrink(model, mask, optimizer, IMAGES)
        return
    small, expected = tb.shrink(model, mask, optimizer, IMAGES), tb.shrink(plain, mask, example=IMAGES)
    shapes = {name: own.shape for name, own in parameters_of(expected).items()}
    assert {name: own.shape for name, own in parameters_of(small).items()} == shapes
    assert optimizer.param_groups[0]["params"] == list(small.parameters())
    F.cross_entropy(small(IMAGES), CLASSES).backward()
    optimizer.step()


@every
def test_linear_layers_of_a_wrapped_network_run_sparse(wrap, monkeypatch):
    model = wrap(make())
    mask = Mask.of({"6.weight": torch.eye(3, 4) > 0})
    monkeypatch.setattr(trial, "MIN_GAIN", 0)
    found = sparse_copy(model, mask, batch=8)
    sparse = found.network
    assert [own.layer for own in found.timings] == ["6"]
    assert isinstance(modules_of(sparse)["6"], tb.shrinking.SparseProgram)
    attach(mask, model).detach()
    with torch.no_grad():
        assert torch.allclose(sparse(IMAGES), model.eval()(IMAGES), atol=1e-5)


def test_a_compiled_linear_layer_runs_sparse(monkeypatch):
    monkeypatch.setattr(trial, "MIN_GAIN", 0)
    model, mask = nn.Linear(4, 3), Mask.of({"weight": torch.eye(3, 4) > 0})
    for wrapped in (compiled(model), nn.DataParallel(model), nn.Sequential(compiled(model))):
        own = mask if len(names_of(wrapped)) == 2 and "weight" in parameters_of(wrapped) else None
        own = own or Mask.of({"0.weight": mask["weight"]})
        with torch.no_grad():
            expected = F.linear(IMAGES[:, 0, 0, :4], model.weight * mask["weight"], model.bias)
            assert torch.allclose(tb.shrinking.sparse(wrapped, own, batch=8)(IMAGES[:, 0, 0, :4]), expected, atol=1e-5)


def test_fully_sharded_networks_have_the_names_of_the_plain_one():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That FSDP of the first kind is deprecated, and there is no GPU.
        flat = FullyShardedDataParallel(make(), use_orig_params=True, device_id=torch.device("cpu"))
    assert [*parameters_of(flat)] == [*parameters_of(make())]
    assert modules_of(flat).keys() == modules_of(make()).keys()
    assert unwrapped(flat) is flat._fsdp_wrapped_module
    with pytest.raises(TombolaError, match="the model is wrapped in FullyShardedDataParallel"):
        attach(half(make()), flat)
    sharded = make()
    fully_shard(sharded)
    with torch.no_grad():
        sharded(IMAGES)  # leaves gathered copies in the places of the parameters
    assert [*parameters_of(sharded)] == [*parameters_of(make())]
    assert all(is_spread(parameter) for parameter in parameters_of(sharded).values())
    attach(half(make()), sharded).detach()
    dead = make()
    attach(half(make()), dead).detach()
    values = {name: own for name, own in tensors_of(sharded).items() if name in parameters_of(dead)}
    assert digest_of(values) == digest_of(dict(parameters_of(dead)))


def test_a_class_derived_from_a_wrapper_is_one():
    class Mine(nn.DataParallel):
        pass

    assert parameters_of(Mine(make())).keys() == parameters_of(make()).keys()


def test_torch_still_has_every_wrapper_that_is_known_by_name():
    """What fails here was moved or renamed by torch: mend it in tickets/wrappers.py."""
    known = {own.called: kind for kind, own in wrappers.loaded().items() if own is not None}
    assert known.keys() >= {own.called for own in wrappers.WRAPPERS if own.where.startswith("torch")}
    made = [wrap(make()) for wrap in WRAPS.values()]
    for model in made:
        own = wrappers.wrapper_of(model, wrappers.loaded())
        assert own is not None, type(model)
        assert [name for name, _ in model.named_children()] == [own.child], type(model)
        assert {*own.tensors} == {*model._parameters, *model._buffers}, type(model)
        assert isinstance(model, known[own.called])


def test_nothing_is_imported_to_know_wrappers():
    code = (
        "import sys, torch, tombola\n"
        "from tombola.tickets import bare, eager, tensors_of\n"
        "tensors_of(bare(torch.nn.DataParallel(torch.nn.Linear(2, 2))))\n"
        "with eager(): pass\n"
        "assert not {'torch._dynamo', 'torch.distributed.fsdp'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=60)


def test_bare_takes_away_what_only_changes_how_a_network_runs():
    model = nn.DataParallel(compiled(inside(wrapping.checkpoint_wrapper)(make())))
    stripped = bare(model)
    assert stripped is model
    assert {type(own) for own in model.modules()} == {nn.DataParallel, *map(type, make().modules())}
    own = make()
    assert bare(compiled(own)) is own


def test_compiled_networks_run_as_they_are_written_where_hooks_look_at_them():
    calls, model = [], inside(compiled)(make())
    model(IMAGES)
    hook = unwrapped(model[3]).register_forward_hook(lambda *_: calls.append(1))
    with eager():
        model(IMAGES)
    hook.remove()
    assert calls == [1]


def test_the_count_of_an_averaged_part_is_kept_for_checkpoints():
    student = nn.Linear(2, 2)
    model = nn.ModuleDict({"student": student, "teacher": AveragedModel(student)})
    model["teacher"].update_parameters(student)
    assert tensors_of(model)["teacher.n_averaged"] == 1
    assert tensors_of(AveragedModel(student)).keys() == {"weight", "bias"}


# A network's own children that are called as wrappers call theirs


class Headed(nn.Module):
    """A backbone in a child of this name, which has a layer called as the head beside it is."""

    def __init__(self, child: str = "module") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.child = child
        self.add_module(child, nn.Sequential())
        self.backbone.add_module("conv", nn.Conv2d(2, 4, 3))
        self.backbone.add_module("flat", nn.Flatten())
        self.backbone.add_module("fc", nn.Linear(144, 6))
        self.fc = nn.Linear(6, 3)

    @property
    def backbone(self) -> nn.Module:
        return self.get_submodule(self.child)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.backbone(x).relu())


children = pytest.mark.parametrize("child", ["module", "_orig_mod", "_checkpoint_wrapped_module"])


@children
def test_a_child_called_as_a_wrapper_does_keeps_its_name_and_parameters(child):
    model = Headed(child)
    assert len(tensors_of(model)) == 6
    for wrap in (lambda own: own, *WRAPS.values()):
        wrapped = wrap(Headed(child))
        assert [*tensors_of(wrapped)] == [name for name, _ in model.named_parameters()]
        assert prunable(wrapped).keys() == {f"{child}.conv.weight", f"{child}.fc.weight", "fc.weight"}
        assert modules_of(wrapped)[f"{child}.fc"].out_features == 6
        assert modules_of(wrapped)["fc"].out_features == 3


@children
def test_such_a_network_is_fingerprinted_stored_and_put_back_whole(child, tmp_path):
    model = Headed(child)
    before = digest_of(tensors_of(model))
    mask = half(model)
    assert len(mask.shapes) == 3
    ticket = Ticket(mask, Values(tensors_of(model), "init"))
    ticket.save(tmp_path / "t.safetensors")
    assert Ticket.load(tmp_path / "t.safetensors") == ticket
    for parameter in model.parameters():
        changed = digest_of(tensors_of(model))
        parameter.data.add_(1)
        assert digest_of(tensors_of(model)) != changed
    Ticket.load(tmp_path / "t.safetensors").put_into(model)
    assert digest_of(tensors_of(model)) == before


@children
def test_all_masked_layers_of_such_a_network_are_held(child):
    model = Headed(child)
    mask, optimizer = half(model), optim.AdamW(model.parameters(), 0.01)
    with attach(mask, model, optimizer):
        for _ in range(2):
            F.cross_entropy(model(IMAGES), CLASSES).backward()
            optimizer.step()
            assert all(not own[~mask[name]].any() for name, own in prunable(model).items())


class Normed(nn.Module):
    """A backbone with a norm in a child called `module`, with a layer called as the head beside it is."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Sequential()
        self.module.add_module("conv", nn.Conv2d(1, 4, 3, stride=2))
        self.module.add_module("bn", nn.BatchNorm2d(4))
        self.module.add_module("flat", nn.Flatten())
        self.module.add_module("fc", nn.Linear(36, 8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.module(x).relu())


METHODS = ("imp", "snip", "gem-miner", "continuous-sparsification", "early-bird", "rigl", "gradual")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrap", [lambda own: own, nn.DataParallel], ids=["plain", "DataParallel"])
@pytest.mark.parametrize("name", METHODS)
def test_methods_find_and_train_tickets_of_such_a_network(name, wrap):
    task = toy_task(lambda: wrap(Normed()))
    ticket = tb.find(task, tb.method(name, density=0.5), seed=1)
    if name != "early-bird":
        assert ticket.mask.shapes.keys() == {"module.conv.weight", "module.fc.weight", "fc.weight"}
    trained = parameters_of(tb.train(task, ticket).model)
    assert ticket.removed or all(not trained[name].detach()[~ticket.mask[name]].any() for name in ticket.mask)
    if isinstance(ticket.start, Values):
        assert ticket.start.tensors.keys() == tensors_of(Normed()).keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gem-miner", "early-bird"])
def test_channel_tickets_of_such_a_network_are_smaller_networks(name):
    task = toy_task(Normed)
    ticket = tb.find(task, tb.method(name, density=0.5, granularity=tb.Channels()), seed=1)
    assert tb.train(task, ticket).model is not None


def test_channels_of_such_a_network_are_found_and_cut():
    model = Headed()
    mask = channels_of(model)
    small = tb.shrink(model, mask, example=IMAGES)
    assert small.module.conv.out_channels == 2
    assert small.fc.in_features == 3


# Names that come together


def test_two_tensors_of_one_plain_name_are_refused():
    class Mine(nn.DataParallel):
        def __init__(self, module: nn.Module) -> None:
            super().__init__(module)
            self.fc = nn.Linear(2, 2)

    for read in (tensors_of, parameters_of, paths_of, prunable):
        with pytest.raises(TombolaError, match=r"'module\.fc\.weight' and 'fc\.weight' of this model would both"):
            read(Mine(Headed()))


def test_tied_parameters_have_one_name_or_all():
    model = nn.ModuleDict({"one": nn.Linear(2, 2, bias=False), "two": nn.Linear(2, 2, bias=False)})
    model["two"].weight = model["one"].weight
    model["three"] = compiled(model["one"])
    assert [*parameters_of(model)] == ["one.weight"]
    assert [*parameters_of(model, remove_duplicate=False)] == ["one.weight", "two.weight", "three.weight"]
    assert [*modules_of(model)] == ["", "one", "two"]


# Parts known by their names


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 2
        self.query, self.key, self.value, self.out = (nn.Linear(4, 4) for _ in range(4))


@pytest.mark.parametrize("deep", [False, True])
def test_heads_behind_compiled_parts_are_known(deep):
    model = nn.Sequential(Attention())
    if deep:
        for name in ("query", "key", "value", "out"):
            setattr(model[0], name, compiled(getattr(model[0], name)))
    model = nn.Sequential(compiled(model[0]))
    assert query_key_weights(model) == ("0.query.weight", "0.key.weight")
    assert [group.name for group in PartUnits("head").units(model, lambda _: None).groups] == ["0.out"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bn(self.conv(x))


@pytest.mark.parametrize("wrap", [lambda own: own, compiled, wrapping.checkpoint_wrapper, nn.DataParallel])
def test_residual_blocks_are_found_scored_and_left_out_however_they_are_wrapped(wrap):
    torch.manual_seed(0)
    body = nn.Sequential(*[wrap(Residual()) for _ in range(3)])
    model = nn.Sequential(nn.Conv2d(2, 4, 3), body, nn.Flatten(), nn.Linear(144, 3))
    blocks = residual_blocks(model, lambda net: net(IMAGES))
    assert [(block.name, block.gives) for block in blocks] == [
        (f"1.{at}", ((f"1.{at}.bn", "weight"), (f"1.{at}.bn", "bias"))) for at in range(3)
    ]
    assert tb.scores.ExpectedActivation()(model, BATCHES, F.cross_entropy).keys() == {f"1.{at}" for at in range(3)}
    units = tb.structure.Blocks(1, least=1).units(model, lambda net: net(IMAGES))
    mask = units.expand(units.kept({"1": (1,)}), tensors_of(model))
    small = tb.shrink(model, mask, example=IMAGES)
    assert isinstance(modules_of(small)["1.2"], nn.Identity)


# Cost


def test_names_are_read_in_time_that_grows_with_the_network_alone():
    def seconds(layers: int) -> float:
        model = nn.Sequential(*[nn.Sequential(nn.Linear(1, 1), nn.ReLU()) for _ in range(layers)])
        started = time.perf_counter()
        for _ in range(3):
            tensors_of(model)
        return time.perf_counter() - started

    seconds(10)
    assert min(seconds(1000) for _ in range(3)) < 40 * min(seconds(100) for _ in range(3))
