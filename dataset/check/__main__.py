"""Look over a data set before a run: counts, sizes, duplicates across splits, masks, files that can't be read.

python -m dataset.check data --obj Brain
"""

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import dataset
from dataset.check.findings import KINDS, Flaw, Review, review
from dataset.check.near_duplicates import ALIKE
from dataset.support import Request
from runtime.errors import InputError, Parser, exit_code
from runtime.files import atomic_write, no_formula
from runtime.flags import MANY, WORKERS, natural, number, path, positive, words

EXIT = "exit code: 0 when a run can start, whatever was found; 2 when it can't, or would stop at a file; 1 is not used"
SHOWN = 3  # files named of every finding, unless told


def table(result: Review, shown: int) -> str:
    """The report on one object."""
    info, listing = result.info, result.listing
    whose = "drawn by dataset.demo" if result.drawn else info.modality
    layout = listing.layout or "none that is read whole"
    lines = [f"{info.name}: {whose}", f"{result.root}, layout: {layout}", *result.passed_over, ""]
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
    if not result.flaws and all(result.listing.splits.values()) and not any(result.runs.values()):
        yield "nothing found"
    by_what: dict[tuple[str, str], list[Flaw]] = {}
    for flaw in result.flaws:
        by_what.setdefault((flaw.kind, flaw.what), []).append(flaw)
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
    with atomic_write(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(("object", "kind", "finding", "file", "other", "detail"))
        for result in results:
            for one in result.flaws:
                cells = (result.info.name, one.kind, one.what, str(one.file), str(one.other or ""), one.detail)
                rows.writerow(map(no_formula, cells))


def options() -> argparse.ArgumentParser:
    """The command line."""
    kinds = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    parser = Parser(
        prog="python -m dataset.check",
        description="Look over a data set before a run.",
        epilog=f"Findings are of three kinds ({kinds}). {EXIT[0].upper()}{EXIT[1:]}.",
    )
    parser.add_argument("data_path", type=path, metavar="PATH", help="what a run takes as --data_path")
    parser.add_argument(
        "--obj", type=words, required=True, help="Brain, mvtec/bottle, mvtec (all classes), a name of your own"
    )
    parser.add_argument("--shot", type=positive, default=4, help="support of the run that is tried (default 4)")
    parser.add_argument("--abnormal_shot", type=natural, help="its abnormal images (default: as many)")
    parser.add_argument("--iterate", type=number(int, -1, MANY), default=0, help="as train_few.py's (default 0)")
    parser.add_argument(
        "--alike", type=number(float, 0, 1), default=ALIKE, help=f"correlation of near duplicates (default {ALIKE})"
    )
    parser.add_argument("--show", type=natural, default=SHOWN, help=f"files named of every finding (default {SHOWN})")
    parser.add_argument("--csv", type=path, metavar="FILE", help="write every finding there")
    parser.add_argument(
        "--workers", type=number(int, 1, WORKERS), default=os.cpu_count() or 1, help="threads that read"
    )
    return parser


def main() -> None:
    """Check every object that --obj names."""
    args = options().parse_args()
    if not args.data_path.is_dir():
        raise InputError(f"no folder {args.data_path}: give the folder that a run takes as --data_path")
    request, results, faults = Request(args.shot, args.abnormal_shot, args.iterate), [], []
    for obj in dataset.expand(args.obj):
        try:
            results.append(review(obj, args.data_path, request, alike=args.alike, workers=args.workers))
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
