"""A pretend accelerator: tensors that lie on the CPU, and are refused or counted where a real device's would be.

`PretendTensor` wraps a CPU tensor; every operation unwraps, computes on the CPU, and wraps. What CUDA or MPS would not
do is refused: tensors of two devices in one operation (but CPU numbers of no dimension), a CPU generator, float64.
What makes the host wait for a device is counted, and what is copied between them (`COUNTS`).

PyTorch's Python backend for PrivateUse1 is experimental: `unavailable` says why there is none. Registering it is for
the whole process and for good, so it happens in processes of its own (`tests/pretend/conftest.py`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "pretend"
SETUP = "_setup_privateuseone_for_python_backend"
LEAST = (2, 9)  # of PyTorch, where it is
COUNTS: Counter[str] = Counter()  # waits, copies_in, bytes_in, copies_out, bytes_out
WAITING: Counter[str] = Counter()  # waits by the operation

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default, aten._copy_from.default}
INDEXING = {
    aten.index.Tensor: 1,
    aten.index_put.default: 1,
    aten.index_put_.default: 1,
    aten._index_put_impl_.default: 1,
}  # the place of the indices, which may lie on the CPU: they are copied in
SIZED_BY_VALUES = {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
    aten.equal.default,
    aten.bincount.default,
}  # the host has to know what the device found before it goes on
UNTOUCHED = (torch.strided,)


def unavailable() -> str | None:
    """Why this PyTorch has no such backend; None where it has."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < LEAST or not hasattr(backend_registration, SETUP):
        return f"PyTorch {torch.__version__} has no Python backend for PrivateUse1"
    return None


class PretendTensor(Tensor):
    """A tensor on the pretend device; `data_there` is its CPU tensor."""

    data_there: Tensor

    @staticmethod
    def __new__(cls, data: Tensor) -> "PretendTensor":
        if data.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"the {NAME} device has no {data.dtype}, as MPS has none")
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            data.shape,
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            layout=data.layout,
            device=torch.device(NAME, 0),
        )
        made.data_there = data
        return made

    def data_ptr(self) -> int:
        """Where it lies."""
        return self.data_there.data_ptr()

    def tolist(self) -> Any:
        """By way of the CPU, as every device does it."""
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol: int) -> Any:
        """It is saved as `torch.load(..., map_location="cpu")` gives it back."""
        return self.detach().cpu().__reduce_ex__(protocol)

    def __repr__(self, **kwargs: object) -> str:
        return f"{NAME} {self.data_there!r}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


def run(func: Any, args: tuple, kwargs: dict) -> Any:
    """One operation: checked, counted, done on the CPU."""
    parts = func.decompose(*args, **kwargs)  # in inference mode those that are made of others come whole
    if parts is not NotImplemented:
        return parts
    given = pytree.tree_leaves((args, kwargs))
    tensors = [one for one in given if isinstance(one, Tensor)]
    if func in COPIES:
        return copied(func, args, kwargs)
    for one in given:
        if isinstance(one, torch.Generator) and one.device.type == "cpu":
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({func})")
    indices = args[INDEXING[func]] if func in INDEXING else ()
    check_devices(func, tensors, indices)
    count(func, args, indices)
    device = kwargs.get("device")
    if device is not None and torch.device(device).type == NAME:
        kwargs = kwargs | {"device": torch.device("cpu")}
    with torch.inference_mode(False), torch.no_grad():
        found = func(*unwrapped(args), **unwrapped(kwargs))
    # a view of a plain tensor is a plain tensor, even where others become inference tensors
    plain = func.is_view and not any(one.is_inference() for one in tensors)
    with torch.inference_mode(torch.is_inference_mode_enabled() and not plain):
        return given_back(func, args, kwargs, found)


def copied(func: Any, args: tuple, kwargs: dict) -> Any:
    """A copy within the device, into it, or out of it."""
    if func is aten._copy_from.default:
        func, args = aten.copy_.default, (args[1], args[0], *args[2:])
    source = args[0] if func is aten._to_copy.default else args[1]
    here = isinstance(source, PretendTensor)
    if func is aten.copy_.default:
        there = isinstance(args[0], PretendTensor)
    else:
        device = kwargs.get("device")
        there = here if device is None else torch.device(device).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu") if device is not None else None, "pin_memory": None}
    move(source, here, there)
    if func is aten.copy_.default:
        args[0].data_there.copy_(unwrapped(source)) if there else args[0].copy_(unwrapped(source))
        return args[0]
    found = func(unwrapped(source), **kwargs)
    if there:
        return PretendTensor(found)
    return found


def move(source: Tensor, here: bool, there: bool) -> None:
    """Count a copy between host and device."""
    if here and not there:
        COUNTS.update(copies_out=1, bytes_out=source.nbytes)
        wait("copy to the CPU")
    elif there and not here and source.dim():  # a number goes along with the operation
        COUNTS.update(copies_in=1, bytes_in=source.nbytes)


def wait(name: str) -> None:
    """Count a wait of the host for the device."""
    COUNTS["waits"] += 1
    WAITING[name] += 1


def check_devices(func: Any, tensors: list[Tensor], indices: Iterable[Tensor | None]) -> None:
    """Raise RuntimeError for tensors of two devices, but for numbers of no dimension, and indices that are copied."""
    allowed = {id(one) for one in indices or () if isinstance(one, Tensor)}
    for one in tensors:
        if isinstance(one, PretendTensor) or one.device.type == "meta" or one.dim() == 0:
            continue
        if id(one) in allowed and isinstance(tensors[0], PretendTensor):
            continue
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {NAME}:0 and {one.device} in {func}"
        )


def count(func: Any, args: tuple, indices: Iterable[Tensor | None]) -> None:
    """Count what an operation makes the host wait for, and the indices that it copies in."""
    if func is aten._local_scalar_dense.default:
        COUNTS.update(copies_out=1, bytes_out=args[0].element_size())
        wait("item")
    elif func in SIZED_BY_VALUES:
        wait(str(func))
    for one in indices or ():
        if isinstance(one, Tensor):
            if not isinstance(one, PretendTensor):
                COUNTS.update(copies_in=1, bytes_in=one.nbytes)
            value = args[2] if len(args) > 2 else None
            filled = isinstance(value, Tensor) and value.numel() == 1  # becomes masked_fill, which waits for nothing
            if one.dtype in (torch.bool, torch.uint8) and not filled:
                wait("boolean indexing")


def unwrapped(tree: Any) -> Any:
    return pytree.tree_map_only(PretendTensor, lambda one: one.data_there, tree)


def given_back(func: Any, args: tuple, kwargs: dict, found: Any) -> Any:
    """What an operation gives: its own arguments where it wrote into them, else new tensors of the device."""
    written = [
        value
        for argument, value in zip(func._schema.arguments, args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    written += [
        kwargs[argument.name]
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write and argument.name in kwargs
    ]
    if written and len(func._schema.returns):
        given = [one for one in written if isinstance(one, Tensor)]
        return given[0] if len(func._schema.returns) == 1 and given else tuple(given) or written
    return pytree.tree_map_only(Tensor, lambda one: PretendTensor(one), found)


def made(func: Any) -> Callable[..., Tensor]:
    """A factory on the device."""

    def make(*args: Any, **kwargs: Any) -> Tensor:
        kwargs = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory", "layout")}
        return PretendTensor(func(*args, **kwargs, device="cpu"))

    return make


def register() -> torch.device:
    """Register the backend in this process, once; its device."""
    if torch._C._get_privateuse1_backend_name() == NAME:
        return torch.device(NAME, 0)
    getattr(backend_registration, SETUP)(NAME)
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", made(aten.empty.memory_format), "PrivateUse1")
    library.impl("empty_strided", made(aten.empty_strided.default), "PrivateUse1")
    for copy in (aten.copy_.default, aten._copy_from.default):
        library.impl(copy._name, lambda *args, func=copy, **kwargs: run(func, args, kwargs), "PrivateUse1")
    KEPT.append(library)
    return torch.device(NAME, 0)


KEPT: list[torch.library.Library] = []  # a library that is forgotten is taken away


@contextmanager
def counting() -> Iterator[Counter]:
    """Counts of what happens meanwhile."""
    COUNTS.clear()
    WAITING.clear()
    yield COUNTS
