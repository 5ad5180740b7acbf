"""A pretend accelerator: tensors that lie on the CPU, and are refused or counted where a real device's would be.

`PretendTensor` wraps a CPU tensor; every operation unwraps, computes on the CPU, and wraps. What CUDA or MPS would not
do is refused: tensors of two devices in one operation (but CPU numbers of no dimension), a CPU generator, float64.
What makes the host wait for a device is counted, and what is copied between them (`COUNTS`).

PyTorch's Python backend for PrivateUse1 is experimental: `unavailable` says why there is none. Registering it is for
the whole process and for good, so it happens in processes of its own (`tests/pretend/conftest.py`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
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
CPU = torch.device("cpu")


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
    if is_composite(func):  # in inference mode those that are made of others come whole
        return func.decompose(*args, **kwargs)
    if func in COPIES:
        return copied(func, args, kwargs)
    given = [*leaves(args), *leaves(tuple(kwargs.values()))]
    tensors = [one for one in given if isinstance(one, Tensor)]
    for one in given:
        if isinstance(one, torch.Generator) and one.device.type == "cpu":
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({func})")
    indices = args[INDEXING[func]] if func in INDEXING else ()
    check_devices(func, tensors, indices)
    count(func, args, indices)
    if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == NAME:
        kwargs = kwargs | {"device": CPU}
    with torch.inference_mode(False), torch.no_grad():
        found = func(*there(args), **there(kwargs))
    # A view of a plain tensor is a plain tensor, even where all others become inference tensors.
    plain = func.is_view and torch.is_inference_mode_enabled() and not any(one.is_inference() for one in tensors)
    with torch.inference_mode(False) if plain else nullcontext():
        return given_back(func, args, kwargs, found)


@cache
def is_composite(func: Any) -> bool:
    """Whether an operation is made of others on every device."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), torch._C.DispatchKey.CompositeImplicitAutograd)


def leaves(tree: Any) -> Iterator[Any]:
    """What lies in tuples and lists within each other."""
    for one in tree:
        if isinstance(one, (tuple, list)):
            yield from leaves(one)
        else:
            yield one


def there(tree: Any) -> Any:
    """The same with the CPU tensors of those on the device."""
    if isinstance(tree, PretendTensor):
        return tree.data_there
    if isinstance(tree, dict):
        return {name: there(one) for name, one in tree.items()}
    return type(tree)(there(one) for one in tree) if isinstance(tree, (tuple, list)) else tree


def wrapped(tree: Any) -> Any:
    """The same with tensors on the device for those of the CPU."""
    if isinstance(tree, Tensor):
        return PretendTensor(tree)
    return type(tree)(wrapped(one) for one in tree) if isinstance(tree, (tuple, list)) else tree


def copied(func: Any, args: tuple, kwargs: dict) -> Any:
    """A copy within the device, into it, or out of it."""
    if func is aten._to_copy.default:
        source, device = args[0], kwargs.get("device")
        inside = isinstance(source, PretendTensor) if device is None else torch.device(device).type == NAME
        move(source, inside)
        found = aten._to_copy.default(there(source), **kwargs | {"device": device and CPU, "non_blocking": False})
        return PretendTensor(found) if inside else found
    target, source = args[:2] if func is aten.copy_.default else args[1::-1]
    move(source, isinstance(target, PretendTensor))
    there(target).copy_(there(source))
    return target


def move(source: Tensor, inside: bool) -> None:
    """Count a copy between host and device."""
    if isinstance(source, PretendTensor) and not inside:
        COUNTS.update(copies_out=1, bytes_out=source.nbytes)
        wait("copy to the CPU")
    elif inside and not isinstance(source, PretendTensor) and source.dim():  # a number goes along with the operation
        COUNTS.update(copies_in=1, bytes_in=source.nbytes)


def wait(name: str) -> None:
    """Count a wait of the host for the device."""
    COUNTS["waits"] += 1
    WAITING[name] += 1


def check_devices(func: Any, tensors: Sequence[Tensor], indices: Sequence[Tensor | None]) -> None:
    """Raise RuntimeError for tensors of two devices, but for numbers of no dimension, and indices that are copied."""
    for one in tensors:
        if isinstance(one, PretendTensor) or not one.dim() or one.device.type == "meta":
            continue
        if isinstance(tensors[0], PretendTensor) and any(one is index for index in indices):
            continue
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {NAME}:0 and {one.device} in {func}"
        )


def count(func: Any, args: tuple, indices: Sequence[Tensor | None]) -> None:
    """Count what an operation makes the host wait for, and the indices that it copies in."""
    if func is aten._local_scalar_dense.default:
        COUNTS.update(copies_out=1, bytes_out=args[0].element_size())
        wait("item")
    elif func in SIZED_BY_VALUES:
        wait(func.name())
    value = args[2] if len(args) > 2 else None
    filled = isinstance(value, Tensor) and value.numel() == 1  # becomes masked_fill, which waits for nothing
    for one in indices:
        if one is not None and not isinstance(one, PretendTensor):
            COUNTS.update(copies_in=1, bytes_in=one.nbytes)
        if one is not None and one.dtype in (torch.bool, torch.uint8) and not filled:
            wait("boolean indexing")


@cache
def written(func: Any) -> tuple[tuple[int, str], ...]:
    """Place and name of the arguments that an operation writes into."""
    arguments = enumerate(func._schema.arguments)
    return tuple((place, one.name) for place, one in arguments if one.alias_info and one.alias_info.is_write)


def given_back(func: Any, args: tuple, kwargs: dict, found: Any) -> Any:
    """What an operation gives: its own arguments where it wrote into them, else new tensors of the device."""
    if not written(func) or not func._schema.returns:
        return wrapped(found)
    own = [kwargs[name] if name in kwargs else args[place] for place, name in written(func)]
    return own[0] if len(func._schema.returns) == 1 else tuple(own)


def made(func: Any) -> Callable[..., Tensor]:
    """A factory on the device."""

    def make(*args: Any, **kwargs: Any) -> Tensor:
        kwargs = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory", "layout")}
        return PretendTensor(func(*args, **kwargs, device="cpu"))

    return make


class Backend(getattr(backend_registration, "_DummyBackendModule", object)):
    """`torch.pretend`."""

    def synchronize(self, device: object = None) -> None:
        """Wait for all that the device was given."""
        wait("synchronize")

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """What autocast may ask for; it has no rules for this device, so that adapters stay in float32 under it."""
        return [torch.bfloat16, torch.float16]


def register() -> torch.device:
    """Register the backend in this process, once; its device."""
    if torch._C._get_privateuse1_backend_name() == NAME:
        return torch.device(NAME, 0)
    getattr(backend_registration, SETUP)(NAME, backend_module=Backend())
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
