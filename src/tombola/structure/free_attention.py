"""Attention whose heads can be of any number, in the place of modules whose code allows no other than the model's."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tombola.errors import TombolaError
from tombola.tickets.torch_private import leave_fused_path

WIDTH = "attention_width"
"""The attribute for the width of all heads, in modules whose code took it from the width of their input."""


class FreeAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` with heads of their own size, so that it works with any number of them.

    It has the same parameters, arguments and results. `embed_dim` stays the size of the queries and of the outputs.
    torch's fused encoder, which knows no other heads than those of the model's size, is not used with it.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results as of `torch.nn.MultiheadAttention`."""
        batched = query.ndim == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._projected(query, key, value)
        if self.bias_k is not None:
            biases: Any = ((k, self.bias_k), (v, self.bias_v))
            k, v = (torch.cat([x, bias.expand(len(x), -1, -1)], 1) for x, bias in biases)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        mask = self._mask(attn_mask, key_padding_mask, is_causal, q, k)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            logits = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            weights = (logits if mask is None else logits + mask).softmax(-1)
            weights = F.dropout(weights, dropout) if dropout else weights
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        outputs = self.out_proj(mixed.transpose(1, 2).flatten(-2))
        if not batched:
            return outputs.squeeze(0), None if weights is None else weights.squeeze(0)
        return outputs if self.batch_first else outputs.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        matrices: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            matrices = self.in_proj_weight.chunk(3)
        biases: Any = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = map(F.linear, (query, key, value), matrices, biases)
        return q, k, v

    def _mask(
        self, attention: Tensor | None, padding: Tensor | None, is_causal: bool, q: Tensor, k: Tensor
    ) -> Tensor | None:
        """All masks as one that is added to the logits, over (batch, heads, queries, keys)."""
        if is_causal and attention is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        masks = []
        if attention is not None:
            shape = (-1, self.num_heads) if attention.ndim == 3 else (1, 1)
            masks.append(_added(attention, q).reshape(*shape, *attention.shape[-2:]))
        if padding is not None:
            padding = padding if padding.ndim == 2 else padding[None]
            masks.append(_added(padding, q)[:, None, None, :])
        missing = k.shape[-2] - (masks[0].shape[-1] if masks else k.shape[-2])
        masks = [F.pad(mask, (0, missing)) for mask in masks]  # added keys are always seen
        return sum(masks[1:], masks[0]) if masks else None


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as numbers that are added: those of a bool mask are -∞ where it is True."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))
    return mask.to(like.dtype)


def free(module: nn.Module) -> None:
    """Give a module, in place, the class that allows any number of heads.

    Attention of torch becomes a `FreeAttention`. In other modules the code stays what it is, with one line more: where
    it takes the sizes of its input, the width of all heads is then its own, and no longer the input's.

    Raises:
        TombolaError: the code cannot be read, or takes no sizes.
    """
    if type(module) is nn.MultiheadAttention:
        leave_fused_path(module)
        module.__class__ = FreeAttention
    elif not isinstance(module, FreeAttention) and not hasattr(type(module), "__freed__"):
        module.__class__ = _freed(type(module))


@functools.cache
def _freed(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of modules whose heads may be narrower than their input."""

    def rebuilt(self: nn.Module, _protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (kind,), self.__getstate__()

    own = {"forward": _with_own_width(kind), "__reduce_ex__": rebuilt, "__module__": kind.__module__, "__freed__": kind}
    return type(kind.__name__, (kind,), own)


def _rebuild(kind: type[nn.Module]) -> nn.Module:
    """An empty module of the class, which is made anew where it is loaded."""
    return _freed(kind).__new__(_freed(kind))


def _with_own_width(kind: type[nn.Module]) -> Any:
    forward = inspect.unwrap(kind.forward)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, TypeError, SyntaxError) as error:
        raise TombolaError(f"the code of {kind.__name__} cannot be read") from error
    function: Any = tree.body[0]
    if not isinstance(function, ast.FunctionDef) or forward.__closure__:
        raise TombolaError(f"the code of {kind.__name__} cannot be read alone")
    function.decorator_list, function.returns = [], None
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    place, name = _sizes_taken(function) or (0, "")
    if not name:
        raise TombolaError(f"the code of {kind.__name__} takes no width from its input")
    own = ast.parse(f"{name} = {function.args.args[0].arg}.{WIDTH}").body
    function.body[place + 1 : place + 1] = own
    made: dict[str, Any] = {}
    code = compile(ast.fix_missing_locations(tree), inspect.getfile(forward), "exec")
    exec(code, forward.__globals__, made)
    return made[function.name]


def _sizes_taken(function: ast.FunctionDef) -> tuple[int, str] | None:
    """The statement `B, N, C = x.shape` or `x.size()` of a function's input, and what it calls the width."""
    given = {argument.arg for argument in function.args.args[1:]}
    for place, statement in enumerate(function.body):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple):
            value: Any = statement.value.func if isinstance(statement.value, ast.Call) else statement.value
            sizes = isinstance(value, ast.Attribute) and value.attr in ("shape", "size")
            names = [own.id for own in statement.targets[0].elts if isinstance(own, ast.Name)]
            if sizes and isinstance(value.value, ast.Name) and value.value.id in given and len(names) > 2:
                return place, next((own for own in names if own in ("C", "c", "D", "E")), names[-1])
    return None
