"""Look over a data set before a run: counts, sizes, duplicates across splits, masks, files that can't be read.

python -m dataset.check data --obj Brain
"""

import argparse
import csv
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import dataset
from dataset import ObjectInfo, Sample, demo, read_mask, read_rgb
from dataset.listing import Listing, list_tree
from dataset.registry import locate
from dataset.twins import ALIKE, SHAPE, thumbnail, twins
from errors import InputError, exit_code
from files import writing

EXIT = "exit code: 0 when a run can start, whatever was found; 2 when it can't, or would stop at a file; 1 is not used"
BAR_FROM = 200  # images; fewer are read before a progress bar helps
WINDOW = 512  # files in hand at a time
SHOWN = 3  # files named of every finding, unless told
KINDS = {
    "FAULT": "a run stops here",
    "LEAK": "makes figures better than they are",
    "leak?": "so too, unless all images look alike",
    "look": "may be meant, worth a look",
}


@dataclass(frozen=True)
class Finding:
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
    findings: tuple[Finding, ...] = ()


@dataclass
class Review:
    """What is known of one object."""

    info: ObjectInfo
    root: Path
    listing: Listing
    drawn: bool  # by dataset.demo, so no published count is its
    sizes: dict[str, Counter] = field(default_factory=dict)
    modes: dict[str, Counter] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)  # script -> what would stop it, "" if nothing

    @property
    def fault(self) -> str:
        """Why a run can't start or would stop; "" if it can."""
        stopped = [fault for fault in self.runs.values() if fault]
        unread = [f"{one.file}: {one.what} ({one.detail})" for one in self.findings if one.kind == "FAULT"]
        return (stopped + unread + [""])[0]


def look_at(sample: Sample) -> Look:
    """Read a sample's image and mask in full."""
    findings = list(_look_at_mask(sample)) if sample.mask else []
    try:
        pixels = read_rgb(sample.image)
        digest = hashlib.sha256(sample.image.read_bytes()).digest()
        with Image.open(sample.image) as image:
            size, mode = image.size, image.mode
    except (InputError, OSError) as fault:
        findings.append(Finding("FAULT", "image that can't be read", sample.image, detail=str(fault)))
        return Look(findings=tuple(findings))
    return Look(digest, size, mode, thumbnail(pixels), tuple(findings))


def _look_at_mask(sample: Sample) -> Iterator[Finding]:
    try:
        marked = read_mask(sample.mask)
        with Image.open(sample.mask) as mask, Image.open(sample.image) as image:
            sizes = mask.size, image.size
            levels = _levels(mask)
    except InputError as fault:
        yield Finding("FAULT", "mask that can't be read", sample.mask, detail=str(fault))
        return
    except OSError:
        return  # the image, which says so itself
    if sizes[0] != sizes[1]:
        detail = "{}x{} and {}x{}".format(*sizes[0], *sizes[1])
        yield Finding("FAULT", "mask of another size than its image", sample.mask, sample.image, detail)
    if marked.all():
        yield Finding("look", "mask that marks the whole image", sample.mask)
    elif not marked.any():
        yield Finding("look", "mask that marks nothing", sample.mask, sample.image)
    if len(levels) > 2 or (len(levels) == 2 and levels[0] != 0):
        detail = f"{len(levels)} values, {levels[0]} to {levels[-1]}; {marked.mean():.1%} counts as abnormal"
        yield Finding("look", "mask that is not black and one value", sample.mask, detail=detail)


def _levels(mask: Image.Image) -> np.ndarray:
    """The values that a mask holds, rising; a coloured one's as numbers 0xBBGGRR."""
    if mask.mode in ("1", "L") or mask.mode.startswith(("I", "F")):
        return np.unique(np.asarray(mask))
    colours = np.asarray(mask.convert("RGB")).astype(np.uint32)
    return np.unique(colours @ np.array([1, 256, 65536], np.uint32))


def review(obj: str, data_path: Path, args: argparse.Namespace) -> Review:
    """Look at one object; InputError when its folder is not found."""
    info = dataset.find(obj, data_path)
    root = locate(info, data_path)
    drawn = any((folder / demo.STAMP).is_file() for folder in (root, root.parent))
    result = Review(info, root, list_tree(info, root), drawn)
    result.runs = try_runs(obj, data_path, args, use_seed_files=not drawn)
    looks = look_at_all(result, args.workers)
    result.findings += unfit(result.listing)
    result.findings += repeated(result.listing, looks)
    result.findings += similar(result.listing, looks, args.alike)
    return result


def try_runs(obj: str, data_path: Path, args: argparse.Namespace, use_seed_files: bool) -> dict[str, str]:
    """Open the object as the scripts do: script -> the line that it would stop with, "" if it would not."""

    def few() -> object:
        shots = (args.shot, args.abnormal_shot, args.iterate)
        return dataset.open_few(obj, data_path, *shots, use_seed_files=use_seed_files)

    tries: dict[str, Callable[[], object]] = {f"train_few.py --shot {args.shot}": few}
    tries["test_zero.py"] = lambda: dataset.open_test(obj, data_path)
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
    bar = tqdm(
        total=len(rows), desc=f"reading {result.info.name}", unit="image", leave=False, disable=len(rows) < BAR_FROM
    )
    with ThreadPoolExecutor(max(1, workers)) as pool, bar:
        for window in (rows[first : first + WINDOW] for first in range(0, len(rows), WINDOW)):
            for (split, _), look in zip(window, pool.map(look_at, (sample for _, sample in window)), strict=True):
                result.findings += look.findings
                if look.size:
                    result.sizes.setdefault(split, Counter())[look.size] += 1
                    result.modes.setdefault(split, Counter())[look.mode] += 1
                    thumbnails[len(digests)] = look.thumbnail
                digests.append(look.digest)
                bar.update()
    return Looks(digests, thumbnails)


def unfit(listing: Listing) -> Iterator[Finding]:
    """Files that do not fit together."""
    for what, paths in (
        ("abnormal image without a mask", listing.bare),
        ("mask without an image", listing.strays),
        ("image with several masks", listing.doubled),
        ("file that 1cls.csv names and that is not there", listing.missing),
    ):
        yield from (Finding("FAULT", what, path) for path in sorted(paths))
    yield from (Finding("look", "image that 1cls.csv does not name", path) for path in sorted(listing.unnamed))


def repeated(listing: Listing, looks: Looks) -> Iterator[Finding]:
    """Images whose files are equal byte for byte."""
    first: dict[bytes, tuple[str, Sample]] = {}
    for (split, sample), digest in zip(listing.samples(), looks.digests, strict=True):
        if not digest:
            continue
        known, twin = first.setdefault(digest, (split, sample))
        if twin is sample:
            continue
        if twin.label != sample.label:
            yield Finding("LEAK", "image that is there as normal and as abnormal", sample.image, twin.image)
        elif known != split:
            yield Finding("LEAK", f"image that is in {known} and in {split}", sample.image, twin.image)
        else:
            yield Finding("look", f"image that is in {split} twice", sample.image, twin.image)


def similar(listing: Listing, looks: Looks, alike: float) -> Iterator[Finding]:
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
        for one, (other, value) in twins(looks.thumbnails[places], looks.thumbnails[test], alike).items():
            pair = rows[places[one]][1].image, rows[test[other]][1].image
            yield Finding("leak?", f"image of {split} that looks like one of test", *pair, f"correlation {value:.3f}")


# What is printed


def table(result: Review, shown: int) -> str:
    """The report on one object."""
    info, listing = result.info, result.listing
    whose = "drawn by dataset.demo" if result.drawn else info.modality
    lines = [f"{info.name}: {whose}", f"{result.root}, {listing.layout} layout", ""]
    beside = {} if result.drawn else {"test": info.test, "valid": info.valid, "train": info.valid}
    lines += [f"{'split':<6} {'normal':>7} {'abnormal':>8} {'total':>7} {'published':>9} {'masks':>6}  sizes; modes"]
    for split, samples in listing.splits.items():
        counts = dataset.count(samples, beside.get(split))
        masks = sum(sample.mask is not None for sample in samples)
        published = "-" if counts["published"] is None else counts["published"]
        sizes = _most(result.sizes.get(split), lambda size: "{}x{}".format(*size))
        modes = _most(result.modes.get(split), str)
        lines.append(
            f"{split:<6} {counts['normal']:>7} {counts['abnormal']:>8} {len(samples):>7} {published:>9} {masks:>6}  "
            f"{sizes}; {modes}"
        )
    lines += ["", *_found(result, shown)]
    lines += [f"{script}: {fault or 'can start'}" for script, fault in result.runs.items()]
    return "\n".join(lines)


def _most(counts: Counter | None, name: Callable[[object], str]) -> str:
    """The most frequent values with their numbers."""
    if not counts:
        return "-"
    if len(counts) == 1:
        return name(next(iter(counts)))
    parts = [f"{name(value)} ({number})" for value, number in counts.most_common(3)]
    return ", ".join(parts) + (f" and {len(counts) - 3} more" if len(counts) > 3 else "")


def _found(result: Review, shown: int) -> Iterator[str]:
    """The findings, gathered by what they are; the gravest first."""
    if not result.findings:
        yield "nothing found"
    by_what: dict[tuple[str, str], list[Finding]] = {}
    for finding in result.findings:
        by_what.setdefault((finding.kind, finding.what), []).append(finding)
    for (kind, what), same in sorted(by_what.items(), key=lambda item: (list(KINDS).index(item[0][0]), item[0][1])):
        yield f"{kind:<5} {len(same)} x {what}"
        for one in same[:shown]:
            pair = f" = {_inside(one.other, result.root)}" if one.other else ""
            yield f"        {_inside(one.file, result.root)}{pair}" + (f": {one.detail}" if one.detail else "")
        if len(same) > shown:
            yield f"        and {len(same) - shown} more (--show {len(same)}, or --csv FILE)"


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def write_csv(path: Path, results: Iterable[Review]) -> None:
    """Every finding, a line each."""
    with writing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("object", "kind", "finding", "file", "other", "detail"))
        for result in results:
            for one in result.findings:
                rows.writerow((result.info.name, one.kind, one.what, one.file, one.other or "", one.detail))


def options() -> argparse.ArgumentParser:
    """The command line."""
    kinds = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m dataset.check",
        description="Look over a data set before a run.",
        epilog=f"Findings are of three kinds ({kinds}). {EXIT[0].upper()}{EXIT[1:]}.",
    )
    parser.add_argument("data_path", type=Path, metavar="PATH", help="what a run takes as --data_path")
    parser.add_argument("--obj", required=True, help="Brain, mvtec/bottle, mvtec (all classes), a name of your own")
    parser.add_argument("--shot", type=int, default=4, help="support of the run that is tried (default 4)")
    parser.add_argument("--abnormal_shot", type=int, help="its abnormal images (default: as many)")
    parser.add_argument("--iterate", type=int, default=0, help="as train_few.py's (default 0)")
    parser.add_argument("--alike", type=float, default=ALIKE, help=f"correlation of near duplicates (default {ALIKE})")
    parser.add_argument("--show", type=int, default=SHOWN, help=f"files named of every finding (default {SHOWN})")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every finding there")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads that read")
    return parser


def main() -> None:
    """Check every object that --obj names."""
    args = options().parse_args()
    if not args.data_path.is_dir():
        raise InputError(f"no folder {args.data_path}: give the folder that a run takes as --data_path")
    results, faults = [], []
    for obj in dataset.expand(args.obj):
        try:
            results.append(review(obj, args.data_path, args))
        except InputError as fault:
            faults.append(str(fault))
            continue
        print(table(results[-1], args.show), end="\n\n")
        if results[-1].fault:
            faults.append(results[-1].fault)
    if args.csv:
        write_csv(args.csv, results)
    if faults:
        raise InputError(faults[0] + (f" (and {len(faults) - 1} more objects)" if len(faults) > 1 else ""))


if __name__ == "__main__":
    sys.exit(exit_code(main))
