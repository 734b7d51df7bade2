"""Scores, tickets and watches of networks that two processes train together: equal on both, and to one process's."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from test_attached import WRAPS, Net, batch, by_layer, mask_of, mesh, sgd, share_of
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP

import tombola as tb
from processes import in_two_processes
from tombola import Ticket, TombolaError, attach
from tombola.registry import SCORES
from tombola.structure import PartUnits
from tombola.testing import toy_network
from tombola.tickets import (
    AttachWarning,
    Seed,
    Values,
    digest_of,
    parameters_of,
    prune_by,
    put_values,
    tensors_of,
    unwrapped,
    whole,
)

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not in this build")


def agreed(thing) -> None:
    """Both ranks have the same."""
    both = [None, None]
    dist.all_gather_object(both, thing)
    assert both[0] == both[1], both


def batches(count: int) -> list:
    return [batch(Net().double(), step) for step in range(count)]


def own(pairs: list) -> list:
    """Every second batch, as a distributed sampler deals them."""
    return pairs[dist.get_rank() :: 2]


def scores_of_copies(names: list[str]) -> None:
    """With DDP, each score is that of one process which sees the batches of both, bit for bit."""
    for name in names:
        score = tb.scores.ExpectedActivation(of="filter") if name == "expected-activation" else SCORES.get(name)
        kind = toy_network if score.kind == "unit" else Net
        torch.manual_seed(0)
        plain = kind().double()
        with torch.no_grad():
            plain(torch.randn(8, *getattr(plain, "inputs", (1, 8, 8)), dtype=torch.float64))
        pairs = [batch_of(plain, step) for step in range(2 * score.reads)]
        replicated = DDP(copy.deepcopy(plain), static_graph=True)
        both = twice(score) if score.needs == "data" else score
        expected = both(plain, pairs, F.cross_entropy)
        found = score(replicated, own(pairs), F.cross_entropy)
        assert found.keys() == expected.keys(), name
        assert all(torch.equal(found[key], expected[key]) for key in found), name
        agreed({key: value.tolist() for key, value in found.items()})
        assert digest_of(tensors_of(replicated)) == digest_of(tensors_of(plain)), name
        optimizer = sgd(replicated.parameters())
        for step in range(3):  # DDP goes on as if nothing had been
            x, y = batch_of(plain, step)
            optimizer.zero_grad()
            F.cross_entropy(replicated(share_of(x, 2)), share_of(y, 2)).backward()
            optimizer.step()
        agreed([p.tolist() for p in replicated.parameters()])


def batch_of(model: nn.Module, step: int):
    generator = torch.Generator().manual_seed(step)
    shape = getattr(unwrapped(model), "inputs", (1, 8, 8))
    inputs = torch.randn(8, *shape, generator=generator, dtype=torch.float64)
    return inputs.to(next(model.parameters()).dtype), torch.arange(8) % 3


def twice(score):
    """The score, set to read the batches of both processes."""
    return type(score)(**{**vars(score), **({"batches": 2 * score.batches} if hasattr(score, "batches") else {})})


def scores_of_parts() -> None:
    """Of a sharded network: magnitude, random numbers and scales as of the whole one; what calls it is refused."""
    plain, sharded = Net().double(), by_layer(Net().double())
    pairs = own(batches(2))
    mask = mask_of(plain)
    for score in (tb.scores.magnitude, tb.scores.Random(), lambda model, **_: dict(parameters_of(model))):
        for view in ({}, {"mask": mask}, {"mask": mask, "regrow": True}):
            with torch.no_grad():
                sharded(pairs[0][0])  # leaves parameters gathered
            one, other = score(plain, **view), score(sharded, **view)
            assert all(torch.equal(one[name], whole(other[name])) for name in one)
            assert tb.select(one, 0.3).digest == tb.select(other, 0.3).digest
    assert tb.Mask.of(parameters_of(sharded)) == tb.Mask.of(parameters_of(plain))
    for name in ("snip", "grasp", "synflow", "wanda", "taylor", "weight-gradient", "prospr"):
        with pytest.raises(
            TombolaError, match=r"'conv\.weight' is spread over processes, .* do that before you distribute it"
        ):
            SCORES.get(name)(sharded, pairs, F.cross_entropy)
    with pytest.raises(TombolaError, match="spread over processes"):
        tb.Iterative(granularity=tb.Channels(), density=0.5).rounds(sharded, pairs)
    copied = Net().double()
    put_values(copied, tensors_of(sharded))
    assert digest_of(tensors_of(copied)) == digest_of(tensors_of(plain))


def tickets(folder: str, wraps: list[str]) -> None:
    """One rank writes a ticket, all load it; its start goes into sharded networks bit for bit."""
    path, rank = Path(folder) / "t.safetensors", dist.get_rank()
    for name in wraps:
        wrap = WRAPS[name]
        model = wrap(Net())
        assert digest_of(tensors_of(model)) == digest_of(tensors_of(Net()))
        ticket = Ticket(tb.select(tb.scores.magnitude(model), 0.4), Values(tensors_of(model), "init"), ("conv.bias",))
        agreed(ticket.digest)
        if rank == 0:
            ticket.save(path)
        dist.barrier()
        loaded = Ticket.load(path)
        assert loaded == ticket
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
            model(batch(model, 0)[0])
        loaded.put_into(model)
        assert digest_of(tensors_of(model)) == digest_of(tensors_of(Net()))
        optimizer = sgd(model.parameters())
        with attach(loaded, model, optimizer):
            x, y = batch(model, 0)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        values = {name: whole(p) for name, p in parameters_of(model).items()}
        assert all(not values[name][~ticket.mask[name]].any() for name in ticket.mask)
        assert torch.equal(values["conv.bias"], Net().conv.bias)
        dist.barrier()
        for weights in ("own", "signed-constant", "kaiming-normal"):
            seed = Seed.of(Net(), 3, weights, ticket.mask, ("conv.bias",))
            built = wrap(Net())
            Ticket(ticket.mask, seed, held=("conv.bias",)).put_into(built)
            assert digest_of(tensors_of(built)) == seed.digest


class Layer(nn.Module):
    """Attention with four heads, and hidden neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(8, 8) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(8, 11), nn.Linear(11, 8)

    def forward(self, x):
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, 2)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        x = x + self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(self.fc1(x).relu())


class Attending(nn.Module):
    """Two layers of attention; nothing keeps statistics."""

    inputs = (3, 8)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.head = nn.Sequential(Layer(), Layer()), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layers(x).mean(1))


def watched(model: nn.Module, method, replicas: int, resumed: bool = False):
    """What a watch sees in three epochs, and the values of its ticket."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    watch = method.watch(model, optimizer)
    seen = []
    for epoch in range(3):
        if resumed and epoch == 1:
            state = copy.deepcopy(watch.state_dict())
            watch.detach()
            watch = method.watch(model, optimizer)
            watch.load_state_dict(state)
        model.train()
        for step in range(2):
            x, y = batch_of(model, 10 * epoch + step)
            optimizer.zero_grad()
            F.cross_entropy(model(share_of(x, replicas)), share_of(y, replicas)).backward()
            optimizer.step()
        with torch.no_grad():
            model.eval()(x)
        watch.epoch_end()
        seen += [watch.ticket.mask.digest, round(watch.distance, 6)]
    agreed(seen)
    return seen, watch.ticket.start.tensors


def watches() -> None:
    harsh = {"density": 0.5, "window": 2, "truncate": "always", "truncation": 0.01, "penalty": 0.01, "momentum": True}
    for wrap in (DDP, by_layer, fully_shard):
        torch.manual_seed(0)
        watched(wrap(toy_network().double()), tb.Worm(**harsh), 2)
    for kind in ("head", "neuron"):
        method = tb.Worm(granularity=PartUnits(kind), **{**harsh, "penalty": 0.0})
        seen, values = watched(Attending().double(), method, 1)
        for wrap in (DDP, fully_shard, lambda model: fully_shard(model, mesh=mesh(1, 2))):
            also, others = watched(wrap(Attending().double()), method, 2, resumed=True)
            assert also == seen, kind
            assert all(torch.allclose(values[name], others[name], rtol=1e-9, atol=1e-12) for name in values), kind


def moving_masks() -> None:
    """Watches that move the mask by steps: as in one process, also where it grows by gradients."""
    for method in (tb.methods.RigL(density=0.5, every="2it"), tb.methods.Gradual(density=0.3)):
        ends = []
        for wrap in (lambda model: model, DDP, by_layer, lambda model: fully_shard(model, mesh=mesh(1, 2))):
            model = wrap(Net().double())
            optimizer = sgd(model.parameters())
            watch, seen = method.watch(model, optimizer, steps=10), []
            for step in range(8):
                if step == 4:
                    state = copy.deepcopy(watch.state_dict())
                    watch.detach()
                    watch = method.watch(model, optimizer, steps=10)
                    watch.load_state_dict(state)
                x, y = batch(model, step)
                optimizer.zero_grad()
                replicas = 2 if ends else 1
                F.cross_entropy(model(share_of(x, replicas)), share_of(y, replicas)).backward()
                optimizer.step()
                seen.append(watch.ticket.mask.digest)
            watch.detach()
            agreed(seen)
            assert len({*seen}) > 1
            ends.append((seen, Values(tensors_of(model), "end").tensors))
        for seen, values in ends[1:]:
            assert seen == ends[0][0]
            assert all(torch.allclose(values[key], ends[0][1][key], rtol=1e-9, atol=1e-12) for key in values)


def refusals() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flat = FullyShardedDataParallel(Net(), use_orig_params=True, device_id=torch.device("cpu"))
    with pytest.raises(TombolaError, match="FullyShardedDataParallel, whose flat parameters a mask cannot follow"):
        attach(mask_of(Net()), flat)
    late = Net()
    handle = attach(mask_of(late), late)
    fully_shard(late)
    with pytest.warns(AttachWarning, match=r"'conv\.weight' of the model is another parameter now"):
        handle.detach()
    sharded = fully_shard(toy_network())
    with pytest.raises(TombolaError, match="spread over processes"):
        prune_by(mask_of(sharded), sharded)
    optimizer = sgd(sharded.parameters())
    with pytest.raises(TombolaError, match="spread over processes"):
        tb.EarlyBird(0.5).watch(sharded, optimizer, torch.randn(4, 1, 8, 8))
    with pytest.raises(TombolaError, match="spread over processes"):
        tb.shrink(sharded, tb.Mask.full(parameters_of(sharded)), example=torch.randn(4, 1, 8, 8))


READ_NOTHING = ["random", "magnitude", "batch-norm-scale", "synflow"]
READ_DATA = ["snip", "grasp", "taylor", "wanda", "weight-gradient", "prospr", "expected-activation"]


@pytest.mark.slow
def test_scores_are_those_of_one_process_that_sees_all_batches(tmp_path):
    in_two_processes(scores_of_copies, tmp_path, READ_NOTHING + READ_DATA)


@pytest.mark.slow
@pytest.mark.parametrize("body", [scores_of_parts, watches, moving_masks, refusals])
def test_networks_in_two_processes(body, tmp_path):
    in_two_processes(body, tmp_path)


@pytest.mark.slow
def test_tickets_of_sharded_networks(tmp_path):
    in_two_processes(tickets, tmp_path, str(tmp_path), list(WRAPS))
