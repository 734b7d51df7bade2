"""A device that is not there: its tensors hold CPU values, and may not meet those of the CPU.

Torch's fake tensors have no values, so that `.item()` and every mask fail on them. These have. What CUDA refuses is
refused here with the same kind of error, and what makes the CPU wait for a GPU is counted.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
aten = torch.ops.aten

COPIES = (aten._to_copy.default, aten.copy_.default, aten._copy_from.default)
"""What brings values from one device to another."""
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""What takes indices that lie on the CPU."""
JOINED = (aten.cat.default, aten.stack.default)
"""What takes no single number from the CPU either."""
READING = (
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
)
"""What waits for the device, since the CPU needs a value or a size."""


class OtherDeviceError(RuntimeError):
    """Tensors of two devices met."""


class PretendedTensor(Tensor):
    """A tensor on the pretended device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendedTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return PretendedDevice.active().call(func, args, kwargs or {})

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: PretendedTensor) -> None:
        Tensor.data.__set__(self, value)
        self.held = value.held

    def tolist(self) -> Any:  # Torch has none for subclasses.
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().cpu().__reduce_ex__(protocol)


class PretendedDevice(TorchDispatchMode):
    """While it is entered, `torch.device("pretended")` can be used.

    Attributes:
        waits: the operations for which the CPU waited for the device, in their order.
        ran: the operations that ran there, in their order.
    """

    stack: list[PretendedDevice] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.ran: list[str] = []

    @classmethod
    def active(cls) -> PretendedDevice:
        return cls.stack[-1]

    def __enter__(self) -> PretendedDevice:
        self.stack.append(self)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self.stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
        device = kwargs.get("device")
        goes_there = bool(there) if device is None else device.type == NAME
        if func is aten.copy_.default:
            goes_there = isinstance(args[0], PretendedTensor)
        if not there and not goes_there:
            return func(*args, **kwargs)
        self.ran.append(str(func))
        if there:
            check_one_device(func, args, tensors)
        self._note_wait(func, args, kwargs, goes_there)
        if goes_there and (generator := kwargs.get("generator")) is not None:
            raise OtherDeviceError(f"{func}: expected a generator of '{NAME}' but found one of '{generator.device}'")
        held_args, held_kwargs = tree_map_only(PretendedTensor, lambda tensor: tensor.held, (args, kwargs))
        if device is not None and device.type == NAME:
            held_kwargs = {**held_kwargs, "device": torch.device("cpu")}
        out = func(*held_args, **held_kwargs)
        if not goes_there:
            # What came to the CPU must not share memory with the device.
            return out.clone() if func is aten._to_copy.default and out is held_args[0] else out
        out = tree_map_only(Tensor, PretendedTensor, out)
        for tensor in there:
            assert tensor.shape == tensor.held.shape, f"{func} changed a shape in place, which is not pretended"
        return return_and_correct_aliasing(func, args, kwargs, out)

    def synchronize(self, device: torch.device) -> None:
        assert device.type == NAME
        self.waits.append("synchronize")

    def _note_wait(self, func: Any, args: Any, kwargs: dict[str, Any], goes_there: bool) -> None:
        blocking = not (kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2]))
        source = args[1] if func is aten.copy_.default else args[0] if args else None
        crosses = func in COPIES and isinstance(source, Tensor) and isinstance(source, PretendedTensor) != goes_there
        to_meta = kwargs.get("device") is not None and kwargs["device"].type == "meta"
        by_mask = func in INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1])
        if func in READING or by_mask or (crosses and blocking and not to_meta):
            self.waits.append(str(func))


def check_one_device(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raise OtherDeviceError where CUDA's kernels would refuse tensors of the CPU."""
    if func in COPIES:
        return
    if func in INDEXED:
        indices = {id(index) for index in args[1] if index is not None and isinstance(args[0], PretendedTensor)}
        tensors = [tensor for tensor in tensors if id(tensor) not in indices]
    # A single number on the CPU goes with anything; what is written to must be where the rest is.
    numbers = func not in JOINED and not (func._schema.is_mutable and not isinstance(args[0], PretendedTensor))
    foreign = [t for t in tensors if not isinstance(t, PretendedTensor) and not (numbers and t.ndim == 0)]
    if foreign:
        raise OtherDeviceError(
            f"{func}: expected all tensors to be on the same device, but found at least two devices, '{NAME}:0' and "
            f"'{foreign[0].device}' (shape {tuple(foreign[0].shape)})"
        )


class _Backend:
    """What torch asks the module of a device, as it asks torch.cuda. Outside of the blocks there is no device."""

    def is_available(self) -> bool:
        return bool(PretendedDevice.stack)

    def is_initialized(self) -> bool:
        return self.is_available()

    def device_count(self) -> int:
        return int(self.is_available())

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """It draws from the CPU's generator."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    """What torch's C++ asks."""

    def is_available(self) -> bool:
        return bool(PretendedDevice.stack)

    def has_primary_context(self, index: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


@cache
def _registered() -> torch.library.Library:
    """Make the device known to torch, with what `torch.tensor(…, device=…)` calls, which no mode sees."""
    # Torch starts the threads that go backward on devices with the first backward pass, and so none of this one's.
    torch.ones((), requires_grad=True).backward()
    _setup_privateuseone_for_python_backend(NAME, _Backend(), _Hooks())
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    return library


def _empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> PretendedTensor:
    return PretendedTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: PretendedTensor, non_blocking: bool = False) -> Tensor:
    PretendedDevice.active().waits.append("torch.tensor")
    target.held.copy_(source)
    return target


@contextmanager
def pretended_device() -> Generator[PretendedDevice]:
    """Use the device in a block; networks keep their parameters when they go there, as on the way to CUDA."""
    _registered()
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with (
            torch.autograd.set_multithreading_enabled(False),
            PretendedDevice() as device,
            mock.patch("torch.accelerator.synchronize", device.synchronize),
        ):
            yield device
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapped)
