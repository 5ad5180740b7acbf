"""The weights in a TorchScript archive, read without its program: tensors one at a time, nothing of it runs.

An archive is a zip file whose `data.pkl` holds the modules as nested records of an unknown class each, and whose
`data/N` hold the numbers of storage N, uncompressed.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Module(dict):
    """A module's attributes, whatever class it was of."""

    def __setstate__(self, attributes: dict) -> None:
        self.update(attributes)


@dataclass(frozen=True)
class _Stored:
    """Where a tensor's numbers lie."""

    storage: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Reader(pickle.Unpickler):
    """Makes of an archive's pickle nothing but the records above; anything else is an UnpicklingError."""

    def find_class(self, module: str, name: str) -> object:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        known: dict[tuple[str, str], Callable] = {
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known and module != "torch.jit._pickle":  # which makes plain lists
            raise pickle.UnpicklingError(f"{module}.{name} has no place among weights")
        return known.get((module, name), list)

    def persistent_load(self, pid: tuple) -> tuple[str, torch.dtype]:
        _, dtype, key, *_ = pid
        return key, dtype

    @staticmethod
    def _tensor(storage: tuple[str, torch.dtype], offset: int, size: tuple, stride: tuple, *_: object) -> _Stored:
        return _Stored(*storage, offset, tuple(size), tuple(stride))


class Archive(Mapping):
    """Name -> tensor, parameters and buffers as `state_dict` names them; a tensor is read when it is asked for.

    Raises pickle.UnpicklingError for what no archive of weights holds, and what zipfile raises on damage.
    """

    def __init__(self, path: Path) -> None:
        self.file = zipfile.ZipFile(path)
        (pickled,) = (name for name in self.file.namelist() if PurePosixPath(name).name == "data.pkl")
        self.root = PurePosixPath(pickled).parent
        with self.file.open(pickled) as content:
            self.stored = dict(_flat(_Reader(content).load()))

    def __getitem__(self, name: str) -> Tensor:
        stored = self.stored[name]
        content = bytearray(self.file.read(str(self.root / "data" / stored.storage)))
        numbers = torch.frombuffer(content, dtype=stored.dtype)
        return numbers.as_strided(stored.size, stored.stride, stored.offset)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def _flat(module: _Module, prefix: str = "") -> Iterator[tuple[str, _Stored]]:
    for name, value in module.items():
        if isinstance(value, _Stored):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _flat(value, f"{prefix}{name}.")
