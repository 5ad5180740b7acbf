"""Out-of-fold scores: what such a system says of support images that it was neither trained on nor filled with.

The support is dealt into folds by image, an image's variants together. For each fold adapters are trained from the same
start on the rest, and score it against a bank of the rest. So a support of 4 + 4 images in 4 folds says what systems of
3 + 3 do: a little less than what all of it makes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.support import Support
from runtime.errors import InputError
from runtime.files import atomic_write
from runtime.tensors import digest, load
from scoring.cues import Cues
from scoring.patch_scores import PatchScores

FORMAT = 1
Found = Mapping[str, PatchScores | Cues]  # by head, and cues, of some rows of the support
T = TypeVar("T")


@dataclass(frozen=True)
class Fold:
    """Rows of the support: those that are left out and scored, those that are trained on; and who is left out, by
    `left_out_together`."""

    left_out: Tensor
    kept: Tensor
    owners: tuple[int, ...]


def deal(support: Support, count: int, seed: int, rows: Tensor) -> list[Fold]:
    """At most `count` folds, each of some images of either label, in an order drawn by the seed.

    rows: of the support, those that are scored. What was made of an image that is left out (`Support.parents`) is left
    out of training too. Of a label's only image the variants are dealt, since a training needs both labels.
    """
    owners = left_out_together(support)
    dealt, most = torch.full((len(support.labels),), -1), 0
    for label in (0, 1):
        own = (support.labels == label) & ~support.is_synthetic
        names = owners[own].unique()
        order = np.random.default_rng([seed, label]).permutation(len(names))
        for place, row in enumerate(order):
            dealt[own & (owners == names[row])] = place % count
        most = max(most, min(count, len(names)))
    folds = []
    for number in range(most):
        out = dealt == number
        kept = ~out
        if support.parents is not None:
            kept &= ~torch.isin(support.parents, support.source[out].unique()).any(dim=1)
        folds.append(Fold(rows[out[rows]], kept.nonzero()[:, 0], tuple(owners[out].unique().tolist())))
    return [fold for fold in folds if len(fold.left_out)]


def left_out_together(support: Support) -> Tensor:
    """(V,), equal for rows that leave together: those of an image; of a label's only image each by itself."""
    tied, rows = support.source.clone(), torch.arange(len(support.labels))
    for label in (0, 1):
        own = (support.labels == label) & ~support.is_synthetic
        if own.any() and len(tied[own].unique()) == 1:
            tied[own] = len(rows) + rows[own]  # unlike any image's number
    return tied


def in_order(parts: Sequence[tuple[Tensor, Found]], rows: Tensor) -> Found:
    """What folds found of their rows, in the order of all `rows`."""
    every = torch.cat([part for part, _ in parts])
    places = {row: place for place, row in enumerate(every.tolist())}
    order = [places[row] for row in rows.tolist()]
    first = parts[0][1]
    return {name: type(one).join([found[name] for _, found in parts])[order] for name, one in first.items()}


def kept_or_made(path: Path, make: Callable[[], dict[int, Found]]) -> dict[int, Found]:
    """What a fold found after so many epochs, from its file; else it is made now and kept there."""
    if path.exists():
        return _read(path)
    found = make()
    content = {"format": FORMAT, "epochs": {str(epoch): _plain(one) for epoch, one in found.items()}}
    with atomic_write(path) as draft:
        torch.save(content | {"sha256": digest(content)}, draft)
    return found


def _plain(found: Found) -> dict[str, dict]:
    """As a file holds it."""
    return {
        name: {"names": list(one.names), "values": one.values}
        if isinstance(one, Cues)
        else {"zero": one.zero, "few": one.few}
        for name, one in found.items()
    }


def _read(path: Path) -> dict[int, Found]:
    try:
        content = load(path)
        known = content.pop("sha256")
        if content["format"] != FORMAT or digest(content) != known:
            raise ValueError("it is not what was written")
        return {
            int(epoch): {name: _found(one) for name, one in found.items()} for epoch, found in content["epochs"].items()
        }
    except Exception as fault:
        raise InputError(f"{path} is damaged or of another version; --restart begins anew") from fault


def _found(one: dict) -> PatchScores | Cues:
    return Cues(one["values"], tuple(one["names"])) if "names" in one else PatchScores(one["zero"], one["few"])
