"""All files of an object's tree, whether or not a run could read it: what `dataset.check` looks at.

The layouts' own readers go through it; where a run stops at their first fault, here they note it and go on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset.folders import Fault, descend, images_in, subfolders
from dataset.images import Sample
from dataset.industrial import read_test, read_train, visa_rows
from dataset.layouts import NAMES, layout_of, tree_of
from dataset.medical import read_split, resolve_masks
from dataset.registry import ObjectInfo


@dataclass(frozen=True)
class Listing:
    """Samples by split ("train", "valid", "test"), files that do not fit together, and images that no table names."""

    layout: str | None  # in words; None: it has none
    splits: dict[str, tuple[Sample, ...]]
    faults: tuple[Fault, ...]
    unnamed: tuple[Path, ...]

    def samples(self) -> Iterator[tuple[str, Sample]]:
        """Every sample with its split."""
        for split, samples in self.splits.items():
            for sample in samples:
                yield split, sample


def list_tree(info: ObjectInfo, root: Path) -> Listing:
    """What is in the folder of an object; `info.masks` None: masks wherever there are some.

    Faults about whole folders are left out, since a run that stops at them says so.
    """
    faults: list[Fault] = []
    layout = layout_of(root)
    if (layout if info.layout == "own" else info.layout) == "medical":
        tree, resolved = tree_of(root), resolve_masks(info, root)
        name, unnamed = tree and tree.name, ()
        splits = {split: read_split(resolved, root, split, faults.append) for split in ("valid", "test")}
    else:
        train = read_train(info, root, faults.append)
        splits = {"train": train, "test": read_test(info, root, faults.append)[1]}
        name = NAMES.get(layout)
        unnamed = _unnamed(root) if layout == "visa" else ()
    # VisA's table is read for each split, so its faults come twice.
    return Listing(name, splits, tuple(dict.fromkeys(fault for fault in faults if fault.what)), unnamed)


def _unnamed(root: Path) -> tuple[Path, ...]:
    """Images of a VisA class that its table does not name, which a run passes over."""
    table, rows = visa_rows(root, _known)
    named = {table.parent.parent / row["image"] for _, row in rows if row["image"]}
    kinds = subfolders(descend(root.resolve() if root.name in ("", "..") else root, "Data/Images"))
    return tuple(path for kind in kinds for path in images_in(kind, _known) if path not in named)


def _known(fault: Fault) -> None:
    """Pass over a fault that the readers have met."""
