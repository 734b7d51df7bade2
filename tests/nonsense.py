"""Tasks that make no sense, in forty and more ways, and what is to come of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import tombola as tb

INPUTS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(60) % 3
RECIPE = tb.Recipe(epochs=1, batch=16, lr=0.01, precision="float32")


class UsersError(Exception):
    """What the user's own code raises."""


def mlp(outputs: int = 3, inputs: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 12), nn.ReLU(), nn.Linear(12, outputs))


def conv(outputs: int = 3) -> nn.Module:
    """A network that every method can search."""
    body = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    return nn.Sequential(nn.Unflatten(1, (2, 2, 2)), *body, nn.ReLU(), nn.Flatten(), nn.Linear(16, outputs))


def data(inputs: Any = INPUTS, targets: Any = CLASSES, **splits: Any) -> dict[str, Any]:
    return {"train": (inputs, targets), "validation": (inputs[:16], targets[:16]), "test": (inputs, targets)} | splits


def task(
    model: Callable[[], nn.Module] = conv, given: dict[str, Any] | None = None, **settings: Any
) -> tb.SupervisedTask:
    return tb.SupervisedTask(model, given or data(), **({"recipe": RECIPE} | settings))


def raising(*_: Any, **__: Any) -> Any:
    raise UsersError


def with_value(tensor: Tensor, value: float, place: int = 7) -> Tensor:
    changed = tensor.clone()
    changed[place] = value
    return changed


class Raising(nn.Linear):
    forward = raising


class Wide(nn.Module):
    def __init__(self, of: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.of = conv(), of

    def forward(self, inputs: Tensor) -> Any:
        return self.of(self.body(inputs))


class Unreadable(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        raise UsersError


def frozen(*names: str) -> nn.Module:
    model = conv()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


def of_type(dtype: torch.dtype) -> Callable[[], nn.Module]:
    return lambda: conv().to(dtype)


def loaders(dataset: Any = None) -> dict[str, Any]:
    dataset = dataset or TensorDataset(INPUTS, CLASSES)
    good = DataLoader(TensorDataset(INPUTS, CLASSES), 16)
    return {"train": DataLoader(dataset, 16), "validation": good, "test": good}


ONE, BACKBONE = conv(), nn.Linear(8, 12)
NUMBERS, COLUMN = INPUTS[:, 0].clone(), INPUTS[:, :1].clone()
IMAGES = torch.randn(60, 2, 6, 6, generator=torch.Generator().manual_seed(1))
MAPS = (IMAGES[:, 0] > 0).long()
LABELS = (INPUTS[:, :3] > 0).float()


def segmenting() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))


NORM, GENERATOR = nn.BatchNorm1d(12, affine=False), torch.Generator().manual_seed(0)


def assigned() -> nn.Module:
    """Begins with tensors that the last one trained."""
    model = conv()
    model.load_state_dict(ONE.state_dict(), assign=True)
    return model


def drawn() -> nn.Module:
    """Draws on a random state that no seed reaches."""
    model = conv()
    nn.init.normal_(model[1].weight, generator=GENERATOR)
    return model


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


@dataclass(frozen=True)
class Nonsense:
    """A task, and what is said of it: "" where it works, an error of the user's where that is passed on."""

    make: Callable[[], tb.SupervisedTask]
    says: str | type[Exception]


def refused(says: str, make: Callable[[], tb.SupervisedTask]) -> Nonsense:
    return Nonsense(make, says)


def works(make: Callable[[], tb.SupervisedTask]) -> Nonsense:
    return Nonsense(make, "")


def passed_on(error: type[Exception], make: Callable[[], tb.SupervisedTask]) -> Nonsense:
    return Nonsense(make, error)


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, targets)


EMPTY = (INPUTS[:0], CLASSES[:0])
CASES: dict[str, Nonsense] = {
    # splits
    "empty training split": refused("'train' is empty", lambda: task(given=data(train=EMPTY))),
    "empty validation split": works(lambda: task(given=data(validation=EMPTY))),
    "empty test split": refused("'test' is empty", lambda: task(given=data(test=EMPTY))),
    "loader of nothing": refused("'train' is empty", lambda: task(given=loaders([]) | {"train": []})),
    "one sample": refused("at least two", lambda: task(given=data(train=(INPUTS[:1], CLASSES[:1])))),
    "one sample, set aside": refused(
        "at least two", lambda: task(given={"train": (INPUTS[:1], CLASSES[:1]), "test": (INPUTS, CLASSES)})
    ),
    "fewer targets than inputs": refused("60 and 30 samples", lambda: task(given=data(train=(INPUTS, CLASSES[:30])))),
    "fewer inputs than targets": refused("30 and 60 samples", lambda: task(given=data(test=(INPUTS[:30], CLASSES)))),
    # inputs
    "NaN in an input": refused(
        "training inputs hold nan at sample 7", lambda: task(given=data(with_value(INPUTS, torch.nan)))
    ),
    "infinity in a test input": refused(
        "test inputs hold inf at sample 59", lambda: task(given=data(test=(with_value(INPUTS, torch.inf, 59), CLASSES)))
    ),
    "NaN in a loader's first batch": refused(
        "inputs of the first training batch hold nan at sample 7",
        lambda: task(given=loaders(TensorDataset(with_value(INPUTS, torch.nan), CLASSES))),
    ),
    "double inputs": works(lambda: task(given=data(INPUTS.double()))),
    "half inputs": refused("inputs are float16", lambda: task(given=data(INPUTS.half()))),
    "byte inputs": refused("inputs are uint8", lambda: task(given=data((INPUTS * 9).byte()))),
    "whole inputs": refused("inputs are int64", lambda: task(given=data((INPUTS * 9).long()))),
    "float tokens": refused(
        "inputs are float32 and the network takes int64",
        lambda: task(
            lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(32, 3)), data(INPUTS.abs().floor())
        ),
    ),
    "inputs with a graph": works(lambda: task(given=data(INPUTS * torch.ones(8, requires_grad=True)))),
    "inputs on the meta device": refused(
        "on the device meta", lambda: task(given=data(train=(INPUTS.to("meta"), CLASSES)))
    ),
    "sparse inputs": refused("sparse, and no samples", lambda: task(given=data(train=(INPUTS.to_sparse(), CLASSES)))),
    "nested inputs": refused(
        "are nested tensors",
        lambda: task(given=data(train=[(torch.nested.nested_tensor([*INPUTS[:2]], layout=torch.jagged), CLASSES[:2])])),
    ),
    "NaN in a later batch of the validation split": refused(
        "'validation' is nan, and the inputs of its batch 4 hold nan at sample 2",
        lambda: task(given=data(validation=DataLoader(TensorDataset(with_value(INPUTS, torch.nan, 50), CLASSES), 16))),
    ),
    # targets
    "a class too many": refused(
        "training targets there are classes from 0 to 3", lambda: task(given=data(targets=with_value(CLASSES, 3)))
    ),
    "a class too many in the test split": refused(
        "test targets there are classes from 0 to 9", lambda: task(given=data(test=(INPUTS, with_value(CLASSES, 9))))
    ),
    "classes from 1": refused("classes from 1 to 3", lambda: task(given=data(targets=CLASSES + 1))),
    "a negative class": refused("classes from -1 to 2", lambda: task(given=data(targets=with_value(CLASSES, -1)))),
    "left-out targets counted": refused(
        "classes from -100", lambda: task(given=data(targets=with_value(CLASSES, -100)))
    ),
    "a class too many in a later batch": refused(
        "among the targets of a batch there are classes from 0 to 3",
        lambda: task(given=loaders(TensorDataset(INPUTS, with_value(CLASSES, 3, 50)))),
    ),
    "nothing but left-out targets": refused(
        "test targets are all -100",
        lambda: task(given=data(test=(INPUTS, CLASSES * 0 - 100)), metric="balanced-accuracy"),
    ),
    "float classes": refused(r"give targets\.long\(\)", lambda: task(given=data(targets=CLASSES.float()))),
    "short classes": works(lambda: task(given=data(targets=CLASSES.int()))),
    "classes in a column": refused(r"give targets\.squeeze\(-1\)", lambda: task(given=data(targets=CLASSES[:, None]))),
    "one-hot whole classes": refused(
        "cross_entropy' expects class numbers", lambda: task(given=data(targets=F.one_hot(CLASSES)))
    ),
    "probabilities and accuracy": refused("metric=", lambda: task(given=data(targets=F.one_hot(CLASSES).float()))),
    "bool classes": refused(r"targets\.long\(\)", lambda: task(lambda: mlp(2), data(targets=CLASSES > 0))),
    # losses
    "a loss a sample": refused(
        "reduction='mean'", lambda: task(loss=lambda o, t: F.cross_entropy(o, t, reduction="none"))
    ),
    "a loss that is NaN": refused(
        "loss of the first batch is nan", lambda: task(loss=lambda o, t: (o * torch.nan).mean())
    ),
    "a loss that is infinite": refused(
        "loss of the first batch is inf", lambda: task(loss=lambda o, t: o.exp().sum() / 0)
    ),
    "a detached loss": refused(
        "does not depend on the network", lambda: task(loss=lambda o, t: F.cross_entropy(o.detach(), t))
    ),
    "a loss of targets alone": refused(
        "does not depend on the network", lambda: task(loss=lambda o, t: t.float().mean())
    ),
    "a loss that is no tensor": refused("gives a float", lambda: task(loss=lambda o, t: F.cross_entropy(o, t).item())),
    "a loss that is a count": refused("int64", lambda: task(loss=lambda o, t: (o.argmax(1) != t).sum())),
    "a loss's class": refused(r"CrossEntropyLoss\(…\)", lambda: task(loss=nn.CrossEntropyLoss)),
    "an unknown loss": refused("did you mean 'mse'", lambda: task(loss="msee")),
    "smoothing without labels": refused(
        "does not take it as an argument",
        lambda: task(
            lambda: mlp(1), data(targets=COLUMN), loss=mse, metric="r2", recipe=replace(RECIPE, label_smoothing=0.1)
        ),
    ),
    "numbers against a column": refused(
        r"targets\.unsqueeze\(-1\)", lambda: task(lambda: mlp(1), data(targets=NUMBERS), loss=nn.MSELoss(), metric="r2")
    ),
    "a difference of numbers and a column": refused(
        r"shapes \(16, 1\) and \(16,\)",
        lambda: task(lambda: mlp(1), data(targets=NUMBERS), loss=lambda o, t: (o - t).square().mean(), metric=raising),
    ),
    # metrics
    "accuracy of numbers": refused('metric="r2"', lambda: task(lambda: mlp(1), data(targets=COLUMN), loss=F.mse_loss)),
    "accuracy of maps": refused('metric="pixel-accuracy"', lambda: task(segmenting, data(IMAGES, MAPS))),
    "accuracy of labels": refused(
        'metric="label-accuracy"', lambda: task(given=data(targets=LABELS), loss=F.binary_cross_entropy_with_logits)
    ),
    "a metric a sample": refused("not one number", lambda: task(metric=lambda o, t: (o.argmax(1) == t).float())),
    "a metric of pairs": refused(
        r"which gives every pair",
        lambda: task(
            given=data(targets=CLASSES[:, None]),
            loss=lambda o, t: F.cross_entropy(o, t.squeeze(1)),
            metric=lambda o, t: (o.argmax(1) == t).float().mean(),
        ),
    ),
    # networks
    "nothing learns": refused("nothing in the network requires a gradient", lambda: task(frozen)),
    "no parameters": refused("nothing in the network requires a gradient", lambda: task(lambda: nn.Flatten())),
    "only biases learn": works(lambda: task(lambda: frozen("1.bias", "8.bias"))),
    "only the head learns": works(lambda: task(lambda: frozen("8.weight", "8.bias"))),
    "the same network each time": refused("the same '1.weight' each time", lambda: task(lambda: ONE)),
    "a shared backbone": refused(
        "the same '0.weight' each time",
        lambda: task(lambda: nn.Sequential(BACKBONE, nn.ReLU(), nn.Linear(12, 3))),
    ),
    "shared memory": refused("the same '1.weight' each time", lambda: task(assigned)),
    "a shared batch norm": refused(
        "the same '1.running_mean' each time",
        lambda: task(lambda: nn.Sequential(nn.Linear(8, 12), NORM, nn.ReLU(), nn.Linear(12, 3))),
    ),
    "another network each time": refused("gives another '1.weight' the second time", lambda: task(drawn)),
    "a network without values": refused("on the device meta", lambda: task(lambda: conv().to("meta"))),
    "bf16 weights": works(lambda: task(of_type(torch.bfloat16), data(INPUTS.bfloat16()))),
    "half weights": works(lambda: task(of_type(torch.float16), data(INPUTS.half()))),
    "double weights": works(lambda: task(of_type(torch.float64), data(INPUTS.double()))),
    "batches of one": refused("give a batch of at least two", lambda: task(normed, recipe=replace(RECIPE, batch=1))),
    "a last batch of one": refused(
        "drop_last=True", lambda: task(normed, loaders(TensorDataset(INPUTS[:33], CLASSES[:33])))
    ),
    "outputs in a tuple": refused(
        "network's outputs are a tuple; give forward=", lambda: task(lambda: Wide(lambda o: (o, o)))
    ),
    "outputs in a dict": refused(
        "network's outputs are a dict; give forward=", lambda: task(lambda: Wide(lambda o: {"logits": o}))
    ),
    "constant outputs": refused("does not depend on the network", lambda: task(lambda: Wide(lambda o: o.detach() * 0))),
    # the user's own errors
    "a forward pass that raises": passed_on(UsersError, lambda: task(lambda: nn.Sequential(Raising(8, 3)))),
    "a forward pass of other inputs": passed_on(RuntimeError, lambda: task(lambda: mlp(inputs=9))),
    "a loss that raises": passed_on(UsersError, lambda: task(loss=raising)),
    "a metric that raises": passed_on(UsersError, lambda: task(metric=raising)),
    "a dataset that raises": passed_on(UsersError, lambda: task(given=loaders(Unreadable(INPUTS, CLASSES)))),
    "a factory that raises": passed_on(UsersError, lambda: task(raising)),
}
