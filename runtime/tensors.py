"""Tensors that come from files: whether they can be weights at all, and a hash of what holds them."""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from runtime.errors import InputError

LARGEST = torch.finfo(torch.float32).max


def digest(content: object) -> str:
    """The hexadecimal SHA-256 of tensors (type, shape and numbers) and plain data, in dicts, lists and tuples.

    The order of a dict's entries does not count. Raises TypeError for anything else.
    """
    whole = hashlib.sha256()

    def feed(part: object) -> None:
        if isinstance(part, Tensor):
            whole.update(repr((part.dtype, tuple(part.shape))).encode())
            whole.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(part, Mapping):
            whole.update(f"{len(part)} named".encode())
            for name in sorted(part, key=repr):
                feed(repr(name))
                feed(part[name])
        elif isinstance(part, (list, tuple)):
            whole.update(f"{len(part)} in order".encode())
            for one in part:
                feed(one)
        else:
            whole.update(json.dumps(part).encode() + b"\n")

    feed(content)
    return whole.hexdigest()


def load(path: str | Path) -> object:
    """What a .pth file holds, tensors on the CPU and mapped from the file where that can be, without running any of it.

    Raises pickle.UnpicklingError for more than tensors and plain data, and much else on damage. What PyTorch has to
    say of old or rare kinds of tensors is for those who write files, not for those who read them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def check_weights(tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError unless these are weights: plain floating-point tensors, finite, no matrix of one value alone."""
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
        if not plain or not tensor.is_floating_point() or tensor.itemsize < 2:
            raise InputError(
                f"{name} is not a plain tensor of floats of 16 bits or more; save the trained weights again"
            )
        if not tensor.numel():
            continue
        low, high = (float(bound) for bound in tensor.detach().aminmax())
        if not (low >= -LARGEST and high <= LARGEST):  # nan is neither; aminmax hands it on
            raise InputError(f"{name} is not finite in float32; the file is of a training that failed, or damaged")
        if low == high and tensor.ndim > 1 and tensor.numel() > 1:
            raise InputError(f"{name} is {low:g} throughout, so it was never trained or is damaged; take another file")
