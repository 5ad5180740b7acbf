"""What `dataset.check` finds in one object: every file is read once, in full, and little is kept of it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import dataset
from dataset import ObjectInfo, Sample, demo, read_mask, read_rgb
from dataset.check.listing import Listing, list_tree
from dataset.check.near_duplicates import ALIKE, SHAPE, near_duplicates, thumbnail
from dataset.layouts import EXPECTED, MEDICAL_EXPECTED, no_layout
from dataset.registry import locate
from dataset.support import Request
from runtime.bars import Bar
from runtime.errors import InputError

BAR_FROM = 200  # images; fewer are read before a progress bar helps
WINDOW = 512  # files in hand at a time
KINDS = {
    "FAULT": "a run stops here",
    "LEAK": "makes figures better than they are",
    "leak?": "so too, unless all images look alike",
    "look": "may be meant, worth a look",
}


@dataclass(frozen=True)
class Flaw:
    """One thing about one file, or about two."""

    kind: str  # of KINDS
    what: str  # the same for all files that it is true of
    file: Path
    other: Path | None = None
    detail: str = ""


@dataclass(frozen=True)
class Look:
    """What was seen in one sample's files."""

    digest: bytes = b""
    size: tuple[int, int] | None = None
    mode: str = ""
    thumbnail: np.ndarray | None = None
    flaws: tuple[Flaw, ...] = ()


@dataclass
class Review:
    """What is known of one object."""

    info: ObjectInfo
    root: Path
    listing: Listing
    drawn: bool  # by dataset.demo, so no published count is its
    sizes: dict[str, Counter] = field(default_factory=dict)
    modes: dict[str, Counter] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)  # says so where the object is there more than once
    runs: dict[str, str] = field(default_factory=dict)  # script -> what would stop it, "" if nothing

    @property
    def fault(self) -> str:
        """Why a run can't start or would stop; "" if it can."""
        stopped = [fault for fault in self.runs.values() if fault]
        unread = [f"{one.file} {one.detail or one.what}" for one in self.flaws if one.kind == "FAULT"]
        return (stopped + unread + [""])[0]


def look_at(sample: Sample) -> Look:
    """Read a sample's image and mask in full."""
    flaws = list(_look_at_mask(sample)) if sample.mask else []
    try:
        pixels = read_rgb(sample.image)
        digest = hashlib.sha256(sample.image.read_bytes()).digest()
        with Image.open(sample.image) as image:
            size, mode = image.size, image.mode
    except (InputError, OSError) as fault:
        detail = str(fault).removeprefix(f"{sample.image} ")
        flaws.append(Flaw("FAULT", "image that can't be read", sample.image, detail=detail))
        return Look(flaws=tuple(flaws))
    return Look(digest, size, mode, thumbnail(pixels), tuple(flaws))


def _look_at_mask(sample: Sample) -> Iterator[Flaw]:
    try:
        marked = read_mask(sample.mask)
        with Image.open(sample.mask) as mask, Image.open(sample.image) as image:
            sizes = mask.size, image.size
            levels = _levels(mask)
    except InputError as fault:
        detail = str(fault).removeprefix(f"{sample.mask} ")
        yield Flaw("FAULT", "mask that can't be read", sample.mask, detail=detail)
        return
    except OSError:
        return  # the image, which says so itself
    if sizes[0] != sizes[1]:
        detail = "{}x{} and {}x{}".format(*sizes[0], *sizes[1])
        yield Flaw("FAULT", "mask of another size than its image", sample.mask, sample.image, detail)
    if marked.all():
        yield Flaw("look", "mask that marks the whole image", sample.mask)
    elif not marked.any():
        yield Flaw("look", "mask that marks nothing", sample.mask, sample.image)
    if len(levels) > 2 or (len(levels) == 2 and levels[0] != 0):
        detail = f"{len(levels)} values, {levels[0]} to {levels[-1]}; {marked.mean():.1%} counts as abnormal"
        yield Flaw("look", "mask that is not black and one value", sample.mask, detail=detail)


def _levels(mask: Image.Image) -> np.ndarray:
    """The values that a mask holds, rising; a coloured one's as numbers 0xBBGGRR."""
    if mask.mode in ("1", "L") or mask.mode.startswith(("I", "F")):
        return np.unique(np.asarray(mask))
    colours = np.asarray(mask.convert("RGB")).astype(np.uint32)
    return np.unique(colours @ np.array([1, 256, 65536], np.uint32))


def review(obj: str, data_path: Path, request: Request, *, alike: float = ALIKE, workers: int = 1) -> Review:
    """Look at one object; InputError when its folder is not found or holds no layout that is read.

    request: the support of the run that is tried. alike: correlation from which images count as near duplicates.
    """
    info = dataset.find(obj, data_path)
    root = locate(info, data_path)
    drawn = any((folder / demo.STAMP).is_file() for folder in (root, root.parent))
    result = Review(info, root, list_tree(info, root), drawn)
    if result.listing.layout is None and not any(result.listing.splits.values()):
        raise InputError(no_layout(root, MEDICAL_EXPECTED if info.layout == "medical" else EXPECTED))
    result.passed_over = dataset.passed_over(info, data_path)
    result.runs = try_runs(obj, data_path, replace(request, use_seed_files=not drawn))
    looks = look_at_all(result, workers)
    result.flaws += unfit(result.listing)
    result.flaws += repeated(result.listing, looks)
    result.flaws += similar(result.listing, looks, alike)
    return result


def try_runs(obj: str, data_path: Path, request: Request) -> dict[str, str]:
    """Open the object as the scripts do: script -> the line that it would stop with, "" if it would not."""
    tries: dict[str, Callable[[], object]] = {
        f"train_few.py --shot {request.shot}": partial(dataset.open_few, obj, data_path, **asdict(request)),
        "test_zero.py": partial(dataset.open_test, obj, data_path),
    }
    faults = {}
    for script, opened in tries.items():
        try:
            opened()
            faults[script] = ""
        except InputError as fault:
            faults[script] = str(fault)
    return faults


@dataclass(frozen=True)
class Looks:
    """What is kept of all samples, in the listing's order: digests (b"" if unread), thumbnails uint8 (N, *SHAPE)."""

    digests: list[bytes]
    thumbnails: np.ndarray


def look_at_all(result: Review, workers: int) -> Looks:
    """Read every file, a window at a time in threads (decoders release Python's lock); notes sizes and modes."""
    rows = list(result.listing.samples())
    digests, thumbnails = [], np.zeros((len(rows), *SHAPE), np.uint8)
    bar = Bar(
        total=len(rows), desc=f"reading {result.info.name}", unit="image", leave=False, disable=len(rows) < BAR_FROM
    )
    with ThreadPoolExecutor(max(1, workers)) as pool, bar:
        for window in (rows[first : first + WINDOW] for first in range(0, len(rows), WINDOW)):
            for (split, _), look in zip(window, pool.map(look_at, (sample for _, sample in window)), strict=True):
                result.flaws += look.flaws
                if look.size:
                    result.sizes.setdefault(split, Counter())[look.size] += 1
                    result.modes.setdefault(split, Counter())[look.mode] += 1
                    thumbnails[len(digests)] = look.thumbnail
                digests.append(look.digest)
                bar.update()
    return Looks(digests, thumbnails)


def unfit(listing: Listing) -> Iterator[Flaw]:
    """Files that do not fit together."""
    faults = sorted(listing.faults, key=lambda fault: (fault.what, fault.file))
    yield from (Flaw("FAULT", fault.what, fault.file) for fault in faults)
    yield from (Flaw("look", "image that 1cls.csv does not name", path) for path in sorted(listing.unnamed))


def repeated(listing: Listing, looks: Looks) -> Iterator[Flaw]:
    """Images whose files are equal byte for byte."""
    first: dict[bytes, tuple[str, Sample]] = {}
    for (split, sample), digest in zip(listing.samples(), looks.digests, strict=True):
        if not digest:
            continue
        known, twin = first.setdefault(digest, (split, sample))
        if twin is sample:
            continue
        if twin.label != sample.label:
            yield Flaw("LEAK", "image that is there as normal and as abnormal", sample.image, twin.image)
        elif known != split:
            yield Flaw("LEAK", f"image that is in {known} and in {split}", sample.image, twin.image)
        else:
            yield Flaw("look", f"image that is in {split} twice", sample.image, twin.image)


def similar(listing: Listing, looks: Looks, alike: float) -> Iterator[Flaw]:
    """Images of the support's split that look like one of `test`, other than byte for byte."""
    rows = list(listing.samples())
    known = {
        split: [row for row, (name, _) in enumerate(rows) if name == split and looks.digests[row]]
        for split in listing.splits
    }
    test = known.pop("test", [])
    same = {looks.digests[row] for row in test}
    for split, places in known.items():
        places = [row for row in places if looks.digests[row] not in same]
        if not places or not test:
            continue
        for one, (other, value) in near_duplicates(looks.thumbnails[places], looks.thumbnails[test], alike).items():
            pair = rows[places[one]][1].image, rows[test[other]][1].image
            yield Flaw("leak?", f"image of {split} that looks like one of test", *pair, f"correlation {value:.3f}")
