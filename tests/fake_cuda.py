"""A GPU without a GPU: tensors that live in the computer's memory, say `cuda:0`, and obey a GPU's rules.

Inside `fake_cuda()` everything on "cuda" is a `CudaTensor`, a wrapper around a plain tensor that does the arithmetic.
What fails on a GPU and not on a CPU fails here: an operation on tensors of both devices, a CPU generator drawing onto
the GPU, NumPy reading from it. PyTorch itself takes such a tensor for one on `meta`, the one device besides the CPU
that autograd serves without a driver; Python sees `cuda:0`. Speed and CUDA's own rounding are not imitated, and
autocast, which does not know `meta`, changes nothing: results are those of the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

DEVICE, _META, _CPU = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
_aten = torch.ops.aten
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
_INDEXING |= {_aten._unsafe_index, _aten._unsafe_index_put}
_EMPTY = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided}
_MAKERS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}  # of data, which `meta` would not keep


class CudaTensor(Tensor):
    """A tensor that says it is on the GPU; `plain` holds its values."""

    plain: Tensor
    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, plain: Tensor) -> CudaTensor:
        if torch.is_inference_mode_enabled() and not plain.is_inference():  # a view of what was made before
            with torch.inference_mode(False):
                return cls(plain)
        shape = {"strides": plain.stride(), "storage_offset": plain.storage_offset(), "dtype": plain.dtype}
        result = Tensor._make_wrapper_subclass(cls, plain.shape, device=_META, **shape)
        result.plain = plain
        return result

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def get_device(self) -> int:
        return 0

    def tolist(self) -> Any:
        return self.plain.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to the host")

    __array__ = numpy

    def __repr__(self, **kwargs: Any) -> str:
        return f"CudaTensor({self.plain!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("only tensors created by the user support deepcopy")
        if id(self) not in memo:
            copied = CudaTensor(self.plain.clone()).requires_grad_(self.requires_grad)
            memo[id(self)] = nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int) -> tuple:  # files hold plain tensors, which torch.load takes to a device
        return self.plain.__reduce_ex__(protocol)


def _run(func, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One operation: on plain tensors, if a GPU would do it."""
    fake: list[CudaTensor] = []
    here: list[Tensor] = []  # on the CPU

    def plain(value: Any) -> Any:
        if isinstance(value, CudaTensor):
            fake.append(value)
            return value.plain
        if isinstance(value, Tensor):
            here.append(value)
        return [plain(item) for item in value] if type(value) in (list, tuple) else value

    inner, options = plain(args), {name: plain(value) for name, value in kwargs.items()}
    device = kwargs.get("device")
    onto = bool(fake) if device is None else device.type in ("meta", "cuda")  # where results lie
    if not fake and not onto:
        return func(*args, **kwargs)
    _check(func, args, kwargs.get("generator"), fake, here)
    if device is not None:
        options["device"] = _CPU

    def place(value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)([place(item) for item in value])
        if not isinstance(value, Tensor) or any(own is value for own in here):
            return value
        written = next((own for own in fake if own.plain is value), None)  # in place
        return written if written is not None else CudaTensor(value) if onto else value

    result = func(*inner, **options)
    if (
        func.overloadpacket in _EMPTY and result.dtype is not torch.bool
    ):  # what is read before it is written should be seen
        result.fill_(torch.nan if result.is_floating_point() else torch.iinfo(result.dtype).max)
    return place(result)


def _check(func, args: tuple, generator: torch.Generator | None, fake: list[CudaTensor], here: list[Tensor]) -> None:
    """A RuntimeError for what a GPU does not do."""
    if generator is not None and generator.device.type != "cuda":
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({func})")
    if not fake or not here or func.overloadpacket is _aten.copy_:  # copying is what goes between devices
        return
    if func.overloadpacket in _INDEXING:  # a GPU's tensor takes a CPU's indices, and not the other way round
        both = [args[0], *(value for value in args[2:3] if value.ndim > 0)]
        allowed = all(isinstance(tensor, CudaTensor) for tensor in both)
    else:  # a number in a tensor takes part in arithmetic, and cannot take the result
        written = func._schema.is_mutable and not isinstance(args[0], CudaTensor)
        allowed = torch.Tag.pointwise in func.tags and all(tensor.ndim == 0 for tensor in here) and not written
    if not allowed:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in here)
        problem = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        raise RuntimeError(f"{problem} ({func}, on the CPU: {shapes})")


@functools.cache
def _has_parts(func) -> bool:
    return func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)


class _Operations(TorchDispatchMode):
    """All operations, for some make a `CudaTensor` of none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if _has_parts(func):  # on tensors of inference mode it comes whole
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """All calls, for those that name "cuda" would look for a driver."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is Tensor.cuda:
            return args[0].to(_META)
        if func is Tensor.new_tensor:
            func, args, kwargs = torch.tensor, args[1:], {"device": args[0].device, **kwargs}
        if func in _MAKERS and isinstance(args[0], (list, tuple)):
            args = ([x.item() if isinstance(x, CudaTensor) else x for x in args[0]], *args[1:])
        if func in _MAKERS and kwargs.get("device") is not None:
            options = {name: value for name, value in kwargs.items() if name not in ("device", "requires_grad")}
            made = func(*args, **options).to(_as_meta(kwargs["device"]))
            return made.requires_grad_(kwargs.get("requires_grad", False))
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], CudaTensor):
            args = (args[0], _indices(args[1]), *args[2:])
        if "device" in kwargs:
            kwargs = kwargs | {"device": _as_meta(kwargs["device"])}
        if func is Tensor.to:
            args = (args[0], *map(_as_meta, args[1:]))
        return func(*args, **kwargs)


def _indices(index: Any) -> Any:
    """An index without lists, of which PyTorch would make a tensor on `meta`."""
    if isinstance(index, tuple):
        return tuple(map(_indices, index))
    return torch.tensor(index, dtype=None if index else torch.long) if isinstance(index, list) else index


def _as_meta(device: Any) -> Any:
    """`meta` for "cuda" and "cuda:0", an error for other GPUs; what is no GPU as it is."""
    if not isinstance(device, (str, torch.device)) or torch.device(device).type != "cuda":
        return device
    if torch.device(device).index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return _META


def _load(load: Callable, *args: Any, map_location: Any = None, **kwargs: Any) -> Any:
    """`torch.load`, also onto the GPU."""
    if _as_meta(map_location) is not _META:
        return load(*args, map_location=map_location, **kwargs)
    return tree_map_only(Tensor, lambda tensor: tensor.to(_META), load(*args, map_location=_CPU, **kwargs))


def _answers(memory: int) -> dict[str, Any]:
    """What `torch.cuda` says of a machine with one GPU of so many bytes."""
    yes = dict.fromkeys(("is_available", "is_initialized", "is_bf16_supported"), True)
    no = {"is_current_stream_capturing": False, "_is_in_bad_fork": False}
    device = {"device_count": 1, "current_device": 0, "get_device_name": "no GPU", "mem_get_info": (memory, memory)}
    used = dict.fromkeys(("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"), 0)
    done = ("_lazy_init", "synchronize", "empty_cache", "reset_peak_memory_stats", "manual_seed_all")
    return yes | no | device | used | dict.fromkeys(done)  # random numbers come from the CPU's generator


@contextlib.contextmanager
def fake_cuda(memory: int = 2**34) -> Iterator[None]:
    """A machine with one GPU of `memory` bytes, for this thread, while it lasts. Tensors live on after it."""
    with contextlib.ExitStack() as stack:
        for name, answer in _answers(memory).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *_, answer=answer, **__: answer))
        if hasattr(torch, "accelerator"):  # which would ask the driver
            stack.enter_context(mock.patch.object(torch.accelerator, "is_available", lambda: False))
        stack.enter_context(mock.patch.object(torch, "load", functools.partial(_load, torch.load)))
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        stack.enter_context(_Operations())
        stack.enter_context(_Calls())
        yield


def means_on_both(main: Callable[[str, Path], object], directory: Path) -> tuple[list[float], list[float]]:
    """The means of the results that `main(device, file)` writes on the GPU, and on the CPU."""
    on_gpu, on_cpu = directory / "gpu.json", directory / "cpu.json"
    with fake_cuda():
        main("cuda", on_gpu)
    main("cpu", on_cpu)
    read = lambda file: [r["mean"] for r in json.loads(file.read_text(encoding="utf-8"))["results"]]
    return read(on_gpu), read(on_cpu)
