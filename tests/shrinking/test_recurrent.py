"""Hidden units of recurrent layers: cut out exactly, whatever reads them, or refused with the reason."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import tombola as tb
from tombola import Mask, TombolaError
from tombola.shrinking import flop_counter, load_small, save_small, to_onnx
from tombola.shrinking.cutting import axes_of, narrowed
from tombola.structure import symmetries_of

WORDS, SIZE, TAGS = 20, 8, 3
LENGTHS = torch.tensor([3, 6, 2, 5])


class Tagger(nn.Module):
    """Words, a recurrent layer, and a head on one of the ways in which networks read it."""

    def __init__(self, kind: type = nn.LSTM, read: str = "last", packed: bool = False, **settings) -> None:
        super().__init__()
        self.words, self.rnn = nn.Embedding(WORDS, 5), kind(5, SIZE, **settings)
        ways, layers = 1 + self.rnn.bidirectional, self.rnn.num_layers
        width = (self.rnn.proj_size or SIZE) * ways * (layers if read == "states" else 1)
        self.head, self.read, self.packed = nn.Linear(width, TAGS), read, packed

    def forward(self, words):
        first = self.rnn.batch_first
        x = self.words(words if first else words.t())
        if self.packed:
            x = pack_padded_sequence(x, LENGTHS, batch_first=first, enforce_sorted=False)
        steps, states = self.rnn(x)
        state = states[0] if isinstance(states, tuple) else states
        if self.packed:
            steps, _ = pad_packed_sequence(steps, batch_first=first)
        steps = steps if first else steps.transpose(0, 1)
        if self.read == "state":
            read = torch.cat([state[-2], state[-1]], 1) if self.rnn.bidirectional else state[-1]
        elif self.read == "states":
            read = state.transpose(0, 1).flatten(1)
        elif self.read == "cell":
            read = states[1][-1]
        else:
            read = {"last": lambda: steps[:, -1], "mean": lambda: steps.mean(1), "each": lambda: steps}[self.read]()
        return self.head(read)


DEEP = {"num_layers": 2, "bidirectional": True}
TABLE = {
    "lstm, last step": {},
    "lstm, one word after another": {"batch_first": False},
    "lstm, mean": {"read": "mean", "bias": False},
    "lstm, a tag a word": {"read": "each", "bidirectional": True},
    "lstm, last state": {"read": "state", **DEEP},
    "lstm, all states": {"read": "states", **DEEP, "batch_first": False},
    "lstm, cell state": {"read": "cell", "num_layers": 2},
    "lstm, packed": {"read": "mean", "packed": True, "bidirectional": True},
    "lstm, packed, state": {"read": "state", "packed": True, "num_layers": 2, "batch_first": False},
    "lstm, projected": {"read": "mean", "proj_size": 3, "num_layers": 2},
    "lstm, dropout": {"read": "mean", "num_layers": 3, "dropout": 0.3},
    "gru, last step": {"kind": nn.GRU},
    "gru, both ways": {"kind": nn.GRU, "read": "mean", **DEEP},
    "gru, packed": {"kind": nn.GRU, "read": "state", "packed": True, **DEEP, "bias": False},
    "rnn, last step": {"kind": nn.RNN},
    "rnn, relu": {"kind": nn.RNN, "nonlinearity": "relu", "read": "each", **DEEP},
}


def tagger(**settings) -> Tagger:
    torch.manual_seed(0)
    return Tagger(**{"batch_first": True, **settings})


def words() -> torch.Tensor:
    return torch.randint(0, WORDS, (4, 6), generator=torch.Generator().manual_seed(1))


def half(model: nn.Module, x: torch.Tensor, **settings) -> Mask:
    """The mask that half of the channels of each layer leave."""
    units = tb.Channels(**settings).units(model, lambda network: network(x))
    kept = units.choose(tb.scores.magnitude(model), 0.5, scope="layerwise", within=None, floor=1)
    return units.expand(kept, dict(model.named_parameters()))


def stepped(model: nn.Module, mask: Mask, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    with tb.attach(mask, model, optimizer):
        optimizer.zero_grad()
        outputs = model(x).flatten(0, -2)
        F.cross_entropy(outputs, torch.arange(len(outputs)) % TAGS).backward()
        optimizer.step()


@pytest.mark.parametrize("name", TABLE)
def test_the_smaller_network_is_the_masked_one_also_after_a_step(name):
    x, model = words(), tagger(**TABLE[name]).double().eval()
    mask = half(model, x)
    for make in (lambda own: torch.optim.Adam(own, 0.01), lambda own: torch.optim.SGD(own, 0.1, 0.9, weight_decay=0.1)):
        masked = copy.deepcopy(model)
        optimizer = make(masked.parameters())
        stepped(masked, mask, optimizer, x)
        own = make(masked.parameters())
        own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        plan = tb.shrinking.preview(masked, mask, x)
        small = tb.shrink(masked, mask, own, x)
        assert (type(small.rnn), small.rnn.hidden_size) == (type(model.rnn), SIZE // 2)
        assert not plan.mask  # nothing dead is left
        assert torch.allclose(small(x), masked(x), rtol=0, atol=1e-9)
        stepped(masked, mask, optimizer, x)
        stepped(small, plan.mask, own, x)
        axes = axes_of(masked, plan.kept)
        for key, parameter in masked.named_parameters():
            less = narrowed(parameter.data, axes.get(key, {}))
            assert torch.allclose(small.get_parameter(key), less, rtol=0, atol=1e-9), key


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_removed_unit_is_zero_in_every_step_while_the_mask_is_attached(kind):
    model, x = tagger(kind=kind, **DEEP), words()
    mask = half(model, x)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    for _ in range(3):
        stepped(model, mask, optimizer, x)
    rows = mask["rnn.bias_hh_l0"].reshape(-1, SIZE)[0]
    steps, states = model.rnn(model.words(x))
    for values in (steps.unflatten(-1, (2, SIZE)), *(states if kind is nn.LSTM else [states])):
        assert torch.equal(values[..., ~rows], torch.zeros_like(values[..., ~rows]))
        assert values[..., rows].all()


class WithState(nn.Module):
    """A recurrent layer that is given its first state."""

    def __init__(self, state, layers: int = 1) -> None:
        super().__init__()
        self.hidden_dim, self.state = SIZE, state
        self.rnn, self.start = nn.GRU(5, SIZE, layers, batch_first=True), nn.Linear(5, SIZE)
        self.learnt, self.head = nn.Parameter(torch.randn(1, 1, SIZE)), nn.Linear(SIZE, TAGS)

    def forward(self, x):
        return self.head(self.rnn(x, self.state(self, x))[0][:, -1])


def written(network, x):
    state = x.new_zeros(1, len(x), network.hidden_dim)
    state[0, 0] = 1
    return state


STATES = {
    "zeros of the network's size": lambda own, x: torch.zeros(1, len(x), own.hidden_dim).to(x),
    "zeros of the layer's size": lambda own, x: x.new_zeros(1, len(x), own.rnn.hidden_size),
    "made by a layer": lambda own, x: torch.tanh(own.start(x[:, 0])).unsqueeze(0),
    "learnt": lambda own, x: own.learnt.expand(-1, len(x), -1).contiguous(),
}
UNKNOWN = {
    "random": lambda own, x: torch.randn(1, len(x), SIZE, device=x.device, dtype=x.dtype),
    "zeros into which something is written": written,
    "lit": lambda own, x: torch.sigmoid(own.start(x[:, 0])).unsqueeze(0),
}


@pytest.mark.parametrize("name", STATES)
def test_a_unit_goes_with_what_makes_its_first_state(name):
    x, model = torch.randn(4, 6, 5), WithState(STATES[name])
    small = tb.shrink(model, half(model, x), example=x)
    assert small.rnn.hidden_size == small.hidden_dim == SIZE // 2
    assert small.start.out_features == (SIZE // 2 if name == "made by a layer" else SIZE)
    assert small.learnt.shape[-1] == (SIZE // 2 if name == "learnt" else SIZE)


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_first_state_keeps_all_units_and_is_named(name):
    x, model = torch.randn(4, 6, 5), WithState(UNKNOWN[name])
    with pytest.raises(TombolaError, match="reach the first state of GRU, where all of them are needed"):
        half(model, x)


class Translator(nn.Module):
    """One layer starts from the state in which another ends, and its outputs are read by attention."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(5, 6)
        self.reads, self.writes = (nn.LSTM(6, SIZE, 2, batch_first=True) for _ in range(2))
        self.weigh, self.head = nn.Linear(SIZE, 1), nn.Linear(SIZE, TAGS)

    def forward(self, x):
        x = torch.relu(self.into(x))
        steps, states = self.reads(x)
        read = (steps * self.weigh(torch.tanh(steps)).softmax(1)).sum(1, keepdim=True)
        return self.head(self.writes(x, states)[0] + read)


class Shortcut(nn.Module):
    """Convolutions, and a recurrent layer of two directions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.into = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.LSTM(24, SIZE)
        self.rnn = nn.GRU(SIZE, SIZE // 2, batch_first=True, bidirectional=True)
        self.after, self.head = nn.BatchNorm1d(SIZE), nn.Linear(SIZE, TAGS)

    def forward(self, x):
        x, _ = self.into(torch.relu(self.norm(self.conv(x))).permute(0, 3, 1, 2).flatten(2))
        return self.head(self.after((x + self.rnn(x)[0]).mean(1)))


class Steps(nn.Module):
    """One step of a recurrent layer after another."""

    def __init__(self, kind: type, given: bool) -> None:
        super().__init__()
        self.cell, self.head, self.given = kind(5, SIZE), nn.Linear(SIZE, TAGS), given

    def forward(self, x):
        zeros = x.new_zeros(len(x), self.cell.hidden_size)
        state = (zeros, zeros) if isinstance(self.cell, nn.LSTMCell) else zeros
        state = state if self.given else None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize(
    ("build", "shape", "sizes"),
    [
        (Translator, (4, 6, 5), {"reads.weight_ih_l0": (16, 3), "writes.weight_hh_l1": (16, 4)}),
        (Shortcut, (4, 1, 4, 6), {"into.weight_ih_l0": (16, 12), "rnn.weight_ih_l0": (6, 4), "after.weight": (4,)}),
        *((lambda k=k, g=g: Steps(k, g), (4, 6, 5), {"cell.weight_hh": (n * 4, 4)})
          for k, n in ((nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)) for g in (True, False)),
    ],
)  # fmt: skip
def test_units_go_with_what_they_are_tied_to(build, shape, sizes):
    torch.manual_seed(0)
    model, x = build(), torch.randn(shape)
    small = tb.shrink(model, half(model, x), example=x)  # which compares the outputs
    assert {name: tuple(small.get_parameter(name).shape) for name in sizes} == sizes


def test_units_that_only_their_readers_lost_stay():
    """A unit that no layer behind reads is still read in the next step."""
    model, x = tagger(), words()
    kept = torch.ones(TAGS, SIZE, dtype=torch.bool)
    kept[:, 2] = False
    with pytest.warns(tb.shrinking.ShrinkWarning, match="nothing was cut out"):
        small = tb.shrink(model, Mask.of({"head.weight": kept}), example=x)
    assert small.rnn.hidden_size == SIZE


class Returning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.rnn = nn.Linear(5, 6), nn.LSTM(6, SIZE, batch_first=True)

    def forward(self, x):
        return self.rnn(self.into(x))


def test_states_that_the_network_gives_stay_whole():
    model, x = Returning(), torch.randn(4, 6, 5)
    small = tb.shrink(model, half(model, x), example=x)
    assert (small.into.out_features, small.rnn.input_size, small.rnn.hidden_size) == (3, 3, SIZE)


class Written(nn.Module):
    """The number of units is written in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(5, SIZE, batch_first=True, bidirectional=True), nn.Linear(2 * SIZE, TAGS)

    def forward(self, x):
        steps, _ = self.rnn(x)
        return self.head(torch.cat([steps[:, -1, :SIZE], steps[:, 0, SIZE:]], 1))


def test_a_projected_layer_stays_wider_than_its_projections():
    """Torch takes one as wide as they are for a layer without."""
    model, x = tagger(proj_size=3), words()
    units = tb.Channels().units(model, lambda network: network(x))
    mask = units.expand(units.kept({"rnn": tuple(range(6))}), dict(model.named_parameters()))
    assert tb.shrink(model, mask, example=x).rnn.hidden_size == 4


class Own(nn.LSTM):
    def forward(self, x, states=None):
        return super().forward(x + 1, states)


@pytest.mark.filterwarnings("ignore::tombola.structure.prunable_rule.LeftOutWarning")
@pytest.mark.parametrize(
    ("build", "says"),
    [
        (Written, "reach code that has their number written in it"),
        (lambda: Reads(parametrizations.weight_norm(nn.LSTM(5, SIZE), "weight_hh_l0")), "no plain recurrent layer"),
        (lambda: Reads(Own(5, SIZE)), "meet in each step of Own, which is no plain recurrent layer of torch"),
    ],
)
def test_what_cannot_be_cut_says_why(build, says):
    with pytest.raises(TombolaError, match=says):
        half(build(), torch.randn(4, 6, 5))


class Reads(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(SIZE, TAGS)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def test_a_saved_network_is_cut_again(tmp_path):
    model, x = tagger(**DEEP), words()
    mask = half(model, x)
    small = tb.shrink(model, mask, example=x).eval()
    save_small(tmp_path, small, tb.shrinking.preview(model, mask, x))
    loaded = load_small(tmp_path, lambda: Tagger(batch_first=True, **DEEP))
    assert torch.equal(loaded(x), small(x))
    assert repr(loaded) == repr(small)


@pytest.mark.parametrize("name", ["lstm, last state", "gru, last step"])
def test_onnx_gives_the_same_for_any_batch(tmp_path, name):
    pytest.importorskip("onnxscript")
    model, x = tagger(**TABLE[name]), words()
    small = tb.shrink(model, half(model, x), example=x).eval()
    to_onnx(small, x, tmp_path / "small.onnx")
    more = torch.cat([x, x.flip(0), x])
    assert torch.allclose(tb.shrinking.OnnxNetwork(tmp_path / "small.onnx")(more), small(more), atol=1e-5)


def test_a_batch_that_is_a_constant_of_the_file_is_refused(tmp_path):
    pytest.importorskip("onnxscript")
    model = WithState(lambda own, x: x.new_zeros(1, len(x), own.hidden_dim))
    with pytest.raises(TombolaError, match=r"would take batches of 4 samples alone: .*take x\.shape"):
        to_onnx(model, torch.randn(4, 6, 5), tmp_path / "small.onnx")


def test_onnx_has_no_packed_sequences(tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(TombolaError, match="'rnn' is given packed sequences, which ONNX does not have"):
        to_onnx(tagger(packed=True), words(), tmp_path / "small.onnx")
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_flops_are_those_of_its_matrices_forward_and_backward(kind):
    rnn, x = kind(5, SIZE, **DEEP), torch.randn(6, 4, 5, requires_grad=True)
    matrices = sum(p.numel() for p in rnn.parameters() if p.ndim == 2)
    with flop_counter() as counter:
        steps, _ = rnn(x)
        forward = counter.get_total_flops()
        steps.sum().backward()
    assert forward == 2 * 6 * 4 * matrices
    assert 2.9 * forward < counter.get_total_flops() <= 3 * forward  # a first state has no gradient


def test_units_can_change_places():
    model, x = tagger(**DEEP, read="each"), words()
    (found,) = symmetries_of(model, lambda network: network(x)).found
    assert (found.name, found.blocks) == ("rnn", SIZE)


def test_a_search_meets_a_target_of_flops():
    torch.manual_seed(0)
    x = torch.randint(0, WORDS, (96, 6))
    data = {"train": (x, x[:, 0] % TAGS), "test": (x, x[:, 0] % TAGS)}
    task = tb.SupervisedTask(model=lambda: Tagger(batch_first=True, **DEEP), data=data, recipe=tb.Recipe(epochs=1))
    method = tb.OneShot(score=tb.scores.magnitude, granularity=tb.Channels())
    ticket, model = tb.find(task, method, progress=False, flops=0.5), task.build(0)
    small = tb.shrink(model, ticket, example=x[:2])
    counts = []
    for network in (model, small):
        with flop_counter() as counter:
            network.eval()(x[:2])
        counts.append(counter.get_total_flops())
    assert 0.4 < counts[1] / counts[0] <= 0.5
