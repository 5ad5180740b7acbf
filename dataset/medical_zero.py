"""Test splits of the medical layout: one for zero-shot scoring, the others for zero-shot training."""

from pathlib import Path

from dataset.images import Sample, check_headers
from dataset.medical_few import read_split, resolve_masks
from dataset.registry import MEDICAL, TRANSFER, ObjectInfo, barred, look_for
from runtime.errors import InputError


def open_test(info: ObjectInfo, root: Path) -> tuple[ObjectInfo, tuple[Sample, ...]]:
    """The test split of one object, masks resolved; raises InputError for any fault of the tree."""
    info = resolve_masks(info, root)
    samples = read_split(info, root, "test")
    check_headers(samples, info.name)
    return info, samples


def open_transfer(obj: str, data_path: Path, required: bool) -> list[tuple[ObjectInfo, tuple[Sample, ...]]]:
    """The test splits of all medical objects found under `data_path` but `obj` and those that share its
    images.

    Raises InputError when there is none although it is `required`: nothing could be trained on.
    """
    sources, wanted = [], [name for name in TRANSFER if name not in barred(obj)]
    for name in wanted:
        root = look_for(MEDICAL[name], data_path)
        if root is not None:
            sources.append(open_test(MEDICAL[name], root))
    if required and not sources:
        folders = ", ".join(f"{name}_AD" for name in wanted)
        raise InputError(
            f"{data_path} holds no medical object other than {obj} to train on: put some of {folders} there"
        )
    return sources
