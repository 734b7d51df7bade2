"""The contract with torch: what of its private parts tickets/torch_private.py and structure/autograd.py rest on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tombola import TombolaError
from tombola.structure import autograd
from tombola.tickets import torch_private


def changed(part: str, file: str = "tickets/torch_private.py") -> str:
    return f"torch {torch.__version__} has '{part}' otherwise than Tombola's {file} knows it; mend that file"


def test_modules_hold_their_parts_as_they_did():
    module = nn.BatchNorm1d(3)
    module.inner = inner = nn.Linear(2, 2)
    module.nothing = None
    module.register_module("empty", None)
    assert torch_private.children_of(module) == {"inner": inner, "empty": None}, changed("Module._modules")
    torch_private.children_of(module)["inner"] = other = nn.ReLU()
    assert module.inner is other, changed("Module._modules")
    assert [*torch_private.own_parameters(module)] == ["weight", "bias"], changed("Module._parameters")
    statistics = ["running_mean", "running_var", "num_batches_tracked"]
    assert [*torch_private.own_buffers(module)] == statistics, changed("Module._buffers")


def test_changes_in_place_are_counted():
    tensor = torch.ones(2)
    before = torch_private.version_of(tensor)
    assert torch_private.version_of(tensor.add_(1)) != before, changed("Tensor._version")
    assert torch_private.version_of(None) == 0


def test_buffers_outside_checkpoints_are_known():
    module = nn.Module()
    module.register_buffer("lasting", torch.ones(1))
    module.register_buffer("passing", None, persistent=False)
    assert torch_private.transient_buffers(module) == {"passing"}, changed("Module._non_persistent_buffers_set")


def test_reentrant_checkpoints_go_through_what_is_replaced():
    layer, own = nn.Linear(2, 2), torch.utils.checkpoint.CheckpointFunction
    with torch_private.without_reentrance(), torch_private.without_reentrance():
        outputs = torch.utils.checkpoint.checkpoint(layer, torch.ones(1, 2), use_reentrant=True)
    assert torch.autograd.grad(outputs.sum(), layer.weight)[0].any(), changed("utils.checkpoint.CheckpointFunction")
    assert torch.utils.checkpoint.CheckpointFunction is own


@pytest.mark.parametrize("hook", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
def test_hooks_of_modules_are_seen(hook):
    module = nn.Linear(2, 2)
    assert not torch_private.is_hooked(module), changed(f"Module._{hook}s")
    getattr(module, f"register_{hook}")(lambda *_: None)
    assert torch_private.is_hooked(module), changed(f"Module._{hook}s")


def test_hooks_of_gradients_are_seen():
    weight = nn.Parameter(torch.ones(2))
    assert torch_private.gradient_hooks(weight) == [], changed("Tensor._post_accumulate_grad_hooks")

    def hook(_: torch.Tensor) -> None: ...

    weight.register_post_accumulate_grad_hook(hook)
    assert torch_private.gradient_hooks(weight) == [hook], changed("Tensor._post_accumulate_grad_hooks")


def test_an_optimizer_in_backward_is_seen():
    from torch.distributed.optim import _apply_optimizer_in_backward

    weight = nn.Parameter(torch.ones(2))
    assert not torch_private.steps_in_backward(weight)
    _apply_optimizer_in_backward(torch.optim.SGD, [weight], {"lr": 0.1})
    assert torch_private.steps_in_backward(weight), changed("Tensor._in_backward_optimizers")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_storages_have_a_key_of_their_own(device):
    one, other = torch.ones(3, device=device), torch.ones(3, device=device)
    keys = [torch_private.storage_key(own.untyped_storage()) for own in (one, one[1:], other)]
    assert keys[0] == keys[1] != keys[2], changed("UntypedStorage._cdata")


def test_kinds_of_norms_and_dropouts_are_known():
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm2d)
    assert all(issubclass(own, torch_private.NormWithStatistics) for own in norms), changed("_NormBase")
    assert not issubclass(nn.LayerNorm, torch_private.NormWithStatistics), changed("_NormBase")
    drops = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    assert all(issubclass(own, torch_private.Dropout) for own in drops), changed("_DropoutNd")


def test_whether_the_processor_has_bf16_is_said():
    assert isinstance(torch_private.cpu_has_bf16(), bool), changed("ops.mkldnn._is_mkldnn_bf16_supported")


def test_many_tensors_at_once_are_added_as_scores_expect():
    ones, twos = [torch.ones(2), torch.ones(3)], [torch.full((2,), 2.0), torch.full((3,), 2.0)]
    expected = {
        "_foreach_add": (torch._foreach_add(ones, twos, alpha=3), 7),
        "_foreach_sub": (torch._foreach_sub(ones, twos, alpha=3), -5),
        "_foreach_mul": (torch._foreach_mul(twos, 3), 6),
        "_foreach_add_": (ones, 3),
        "_foreach_addcmul_": (twos, 2 + 9 / 2),
    }
    torch._foreach_add_(ones, twos)
    torch._foreach_addcmul_(twos, ones, ones, 0.5)
    assert expected.keys() == set(torch_private.FOREACH)
    for part, (found, value) in expected.items():
        assert all((own == value).all() for own in found), changed(part)


def test_autograd_records_what_it_recorded():
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    y, file = x * 1, "structure/autograd.py"
    for dim in (1, -3):
        joined, parts = torch.cat([y, y], dim), y.split([2, 4], dim)
        assert autograd.dim_of(joined.grad_fn) in (1, -3), changed("CatBackward._saved_dim", file)
        assert autograd.dim_of(parts[0].grad_fn) in (1, -3), changed("SplitBackward._saved_dim", file)
        shapes = [autograd.shape_of(parts[0].grad_fn, place) for place in (0, 1)]
        assert shapes == [(2, 2, 4, 4), (2, 4, 4, 4)], changed("Node._input_metadata", file)
    assert autograd.dim_of(y[:, :, 1:3].grad_fn) == 2, changed("SliceBackward._saved_dim", file)
    assert autograd.operands((y.mean(1, keepdim=True) * y).grad_fn) == [(2, 1, 4, 4), (2, 6, 4, 4)]
    assert autograd.operands(y.grad_fn) == [(2, 6, 4, 4)], changed("Node._input_metadata", file)
    assert [d % 4 for d in autograd.reduced(y.mean((-1, -2)).grad_fn)] == [3, 2], changed("Mean._saved_dim", file)
    assert [d % 4 for d in autograd.reduced(y.amax((2, 3)).grad_fn)] == [2, 3], changed("Amax._saved_dim", file)
    assert autograd.padding(F.pad(y, (1, 2, 0, 0, 3, 0)).grad_fn) == (1, 2, 0, 0, 3, 0), changed("_saved_pad", file)
    named = {F.max_pool2d(y, 2): "MaxPool", F.relu(y): "Relu", F.adaptive_avg_pool2d(y, 2): "AdaptiveAvgPool"}
    assert {autograd.stem_of(own.grad_fn): stem for own, stem in named.items()} == {
        stem: stem for stem in named.values()
    }, changed("Node.name()", file)
    assert autograd.has_leaf((y + x).grad_fn), changed("Node.next_functions", file)
    assert not autograd.has_leaf((y + y).grad_fn), changed("Node.next_functions", file)


def test_a_saved_field_that_is_gone_is_one_sentence():
    y = torch.randn(2, 6, requires_grad=True) * 1
    says = r"^torch \S+ has no 'MulBackward0\._saved_dim' as Tombola's structure/autograd\.py knows it"
    with pytest.raises(TombolaError, match=says):
        autograd.dim_of(y.grad_fn)


class Split(torch.autograd.Function):
    """An operation that torch does not have, under a name that it has."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_an_operation_of_ones_own_saves_nothing_that_is_known():
    function = Split.apply(torch.ones(2, requires_grad=True)).grad_fn
    assert autograd.dim_of(function) is None
    assert autograd.padding(function) is None
