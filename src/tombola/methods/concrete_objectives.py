"""What Concrete Ticket Search minimises: how far the masked network is from the dense one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tombola.errors import TombolaError

Objective = Literal["reverse-kl", "kl", "loss", "loss-ratio", "gradient-norm", "gradient-match", "feature-match"]

SCALE = 100.0
"""The factor that the authors put on objectives. Adam undoes it, but for its ε."""

Loss = Callable[[Any, Any], Tensor]


@dataclass
class Passed:
    """What one pass of a network gave.

    Args:
        outputs: the network's.
        weights: the weights of all layers that it was evaluated at, before the mask.
        features: of every ReLU, in the order in which they ran.
    """

    outputs: Any
    weights: Sequence[Tensor] = ()
    features: Sequence[Tensor] = ()


@dataclass
class Both:
    """The masked and the dense network on the same inputs; the second is None where an objective does not need it."""

    sparse: Passed
    dense: Passed | None


WATCHES_FEATURES = ("feature-match",)
"""Objectives that compare what ReLUs give."""
DIFFERENTIATES = ("gradient-norm", "gradient-match")
"""Objectives of the gradients of weights, which take a derivative of a derivative."""
OF_CLASSES = ("reverse-kl", "kl", "feature-match")
"""Objectives that compare probabilities of classes."""
WITHOUT_TEACHER = ("loss", "gradient-norm")
"""Objectives of the masked network alone."""


def measured(objective: Objective, both: Both, targets: Any, loss: Loss) -> Tensor:
    """The objective's value, times the authors' factor.

    Args:
        objective: which one.
        both: the two networks' outputs.
        targets: of the batch.
        loss: the task's, of outputs and targets.

    Raises:
        TombolaError: if the outputs are not what the objective is for.
    """
    sparse, dense = both.sparse, both.dense
    if objective == "loss":
        return SCALE * loss(sparse.outputs, targets)
    if objective == "gradient-norm":
        gradients = gradients_of_loss(sparse, targets, loss, create_graph=True)
        return -SCALE * torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    assert dense is not None
    if objective == "loss-ratio":
        with torch.no_grad():
            dense_loss = loss(dense.outputs, targets)
        return SCALE * 100 * (loss(sparse.outputs, targets) / dense_loss - 1).abs()
    if objective == "gradient-match":
        theirs = [gradient.detach() for gradient in gradients_of_loss(dense, targets, loss, create_graph=False)]
        ours = gradients_of_loss(sparse, targets, loss, create_graph=True)
        return SCALE * distance(ours, theirs)
    if objective == "feature-match":
        pairs = [
            (sparse.features, dense.features),
            ([probabilities(sparse.outputs).exp()], [probabilities(dense.outputs).exp()]),
        ]
        ours, theirs = ([tensor for pair in pairs for tensor in pair[side]] for side in (0, 1))
        return SCALE * distance(ours, theirs)
    student, teacher = probabilities(sparse.outputs), probabilities(dense.outputs).detach()
    if objective == "kl":
        student, teacher = teacher, student
    return SCALE * F.kl_div(teacher, student, reduction="batchmean", log_target=True)  # KL(second ‖ first).


def gradients_of_loss(passed: Passed, targets: Any, loss: Loss, *, create_graph: bool) -> list[Tensor]:
    """The gradients of the loss in the weights before the mask."""
    gradients = torch.autograd.grad(
        loss(passed.outputs, targets), list(passed.weights), create_graph=create_graph, allow_unused=True
    )
    return [torch.zeros_like(w) if g is None else g for w, g in zip(passed.weights, gradients, strict=True)]


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """The mean squared difference of standardised tensors, averaged over them.

    Examples:
        >>> x = torch.tensor([1.0, 2.0, 4.0])
        >>> round(float(distance([x], [3 * x + 1])), 6)
        0.0
    """
    pairs = zip(ours, theirs, strict=True)
    return torch.stack([F.mse_loss(_standardised(own), _standardised(other)) for own, other in pairs]).mean()


def _standardised(tensor: Tensor) -> Tensor:
    tensor = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return (tensor - tensor.mean()) / (tensor.std() + 1e-8)


def probabilities(outputs: Any) -> Tensor:
    """The log-probabilities of classes, (samples, classes); TombolaError for outputs that are none of classes."""
    if not (isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 1):
        raise TombolaError(
            "this objective needs outputs of shape (n, classes), which the model does not give; search with "
            "objective='loss'"
        )
    return F.log_softmax(outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs, -1)
