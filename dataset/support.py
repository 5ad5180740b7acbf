"""Few-shot support: which images the model may learn from, and the counts to print before a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.images import Sample, check_headers
from dataset.registry import ObjectInfo
from runtime.errors import InputError

SEED_FILES = Path(__file__).parent / "fewshot_seed"


@dataclass(frozen=True)
class FewShotSet:
    """What a few-shot run reads: support images, and the images to score, of which none is support."""

    info: ObjectInfo
    support_normal: tuple[Sample, ...]
    support_abnormal: tuple[Sample, ...]
    test: tuple[Sample, ...]
    counts: dict


@dataclass(frozen=True)
class Request:
    """What the user asked for: k normal and `abnormal_shot` (None: k) abnormal images, picked how."""

    shot: int
    abnormal_shot: int | None = None
    iterate: int = 0
    seed: int = 111
    use_seed_files: bool = True

    def __post_init__(self):
        if self.shot < 1:
            raise InputError(f"--shot {self.shot}: at least 1 normal image is needed for the memory bank")
        if self.abnormal_shot is not None and self.abnormal_shot < 0:
            raise InputError(f"--abnormal_shot {self.abnormal_shot}: give 0 (normal images alone) or more")
        if self.iterate < -1:
            raise InputError(f"--iterate {self.iterate}: give a line of the selection file (0, 1, ...) or -1 to draw")

    @property
    def abnormal(self) -> int:
        return self.shot if self.abnormal_shot is None else self.abnormal_shot


@dataclass(frozen=True)
class Candidates:
    """What support may come from, by name (industrial abnormal images: DEFECT/name), and its places."""

    normal: Mapping[str, Sample]
    abnormal: Mapping[str, Sample]
    normal_place: Path
    abnormal_place: Path


def few_shot_set(
    info: ObjectInfo,
    split: str,
    found: Sequence[Sample],
    test: Sequence[Sample],
    candidates: Candidates,
    request: Request,
) -> FewShotSet:
    """Choose the support of a run and take it out of its `test` images; `found`: all of `split`, support's own.

    Reads every header. Raises InputError as `choose` and `check_headers`, and where a benchmark's support leaves no
    abnormal image to score.
    """
    normal, abnormal, source = choose(info, candidates, request)
    taken = set(abnormal)
    scored = tuple(sample for sample in test if sample not in taken)
    if info.layout != "own" and taken and not any(sample.label for sample in scored):
        raise InputError(
            f"{info.name}: {len(taken)} abnormal support images asked for, {len(taken)} in "
            f"{candidates.abnormal_place}: none would be left to score, use --abnormal_shot {len(taken) - 1} or less"
        )
    check_headers((*found, *test), info.name)
    counts = {
        "object": info.name,
        split: count(found, info.valid),
        "test": count(test, info.test),
        "support": {"normal": len(normal), "abnormal": len(abnormal), "source": source},
        "scored": count(scored),
    }
    return FewShotSet(info, normal, abnormal, scored, counts)


def choose(
    info: ObjectInfo, candidates: Candidates, request: Request
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], str]:
    """Normal support, abnormal support, and in words where the choice comes from.

    A stored selection (`fewshot_seed/OBJ/K-shot.txt`) wins unless `iterate` is -1; otherwise, or for more
    abnormal images than it stores, the sorted names are drawn from with `seed`: normal first, then
    abnormal. The first k of one shuffled order are taken, so a larger k keeps the images of a smaller one.
    The words say so where a selection was asked for and there is none. Raises InputError when k is more
    than there is, and for a stored selection that doesn't fit the folder or isn't of k normal images.
    """
    _enough(info, candidates, request)
    rng = np.random.default_rng(request.seed)
    normal = _draw(candidates.normal, request.shot, rng)
    abnormal = _draw(candidates.abnormal, request.abnormal, rng)
    source = f"drawn with seed {request.seed}"
    if not request.use_seed_files or request.iterate < 0:
        return normal, abnormal, source
    file = SEED_FILES / info.name / f"{request.shot}-shot.txt"
    if not file.is_file():
        return normal, abnormal, f"{source}: no published selection for {request.shot}-shot of {info.name}"
    names, abnormal_names = _selection(file, request)
    normal = _look_up(names, candidates.normal, candidates.normal_place, file)
    stored = f"{file.parent.parent.name}/{info.name}/{file.name}, iterate {request.iterate}"
    if request.abnormal > len(abnormal_names):
        return normal, abnormal, f"{stored}, which names {len(abnormal_names)} abnormal; abnormal {source}"
    wanted = abnormal_names[: request.abnormal]
    return normal, _look_up(wanted, candidates.abnormal, candidates.abnormal_place, file), stored


def _selection(file: Path, request: Request) -> tuple[list[str], list[str]]:
    """The stored names that were asked for; InputError unless they are of k normal images."""
    normal, abnormal = read_selection(file, request.iterate)
    if len(normal) != request.shot:
        raise InputError(
            f"{file} names {len(normal)} normal images in n-{request.iterate}, not {request.shot}: "
            "mend the line, or draw with --iterate -1"
        )
    return normal, abnormal


def _enough(info: ObjectInfo, candidates: Candidates, request: Request) -> None:
    there = len(candidates.normal)
    if request.shot > there:
        raise InputError(
            f"{info.name}: {request.shot} normal support images asked for, {there} in {candidates.normal_place}: "
            f"use --shot {there} or less"
            if there
            else f"{info.name}: no normal images for support in {candidates.normal_place}: put some there"
        )
    there = len(candidates.abnormal)
    if request.abnormal > there:
        less = f"--abnormal_shot {there} or less, or " if there else ""
        raise InputError(
            f"{info.name}: {request.abnormal} abnormal support images asked for, "
            f"{there} in {candidates.abnormal_place}: use {less}--abnormal_shot 0 for normal images alone"
        )


def _draw(candidates: Mapping[str, Sample], count: int, rng: np.random.Generator) -> tuple[Sample, ...]:
    names = sorted(candidates)
    return tuple(candidates[names[i]] for i in rng.permutation(len(names))[:count])


def read_selection(file: Path, iterate: int = 0) -> tuple[list[str], list[str]]:
    """The normal and abnormal names of one iteration: lines `n-0: NAME NAME ...` and `a-0: ...`.

    Raises InputError for another format, a name that comes twice in a line, and an iteration that isn't there.
    """
    lines: dict[str, list[str]] = {}
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        raise InputError(f"{file} is not UTF-8: write it again, or draw with --iterate -1") from fault
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        key, colon, names = line.partition(":")
        if not colon or key.strip()[:2] not in ("n-", "a-") or not names.split():
            raise InputError(
                f"{file}, line {number}: want 'n-0: NAME NAME ...' or 'a-0: NAME ...', found {line[:40]!r}"
            )
        lines[key.strip()] = names.split()
        twice = [name for name, times in Counter(names.split()).items() if times > 1]
        if twice:
            raise InputError(f"{file}, line {number} names {twice[0]} twice: put another image in its place")
    if f"n-{iterate}" not in lines or f"a-{iterate}" not in lines:
        stored = ", ".join(sorted(key[2:] for key in lines if key.startswith("n-"))) or "none"
        raise InputError(
            f"{file} has no selection {iterate} (it has {stored}): use one of those, or --iterate -1 to draw"
        )
    return lines[f"n-{iterate}"], lines[f"a-{iterate}"]


def _look_up(names: Sequence[str], candidates: Mapping[str, Sample], place: Path, file: Path) -> tuple[Sample, ...]:
    """The samples of a stored selection: by name, or where copies of a set have other endings by the name before it."""
    by_stem: dict[str, list[str]] = {}
    for name in candidates:
        by_stem.setdefault(Path(name).stem, []).append(name)
    found = []
    for name in names:
        alike = [name] if name in candidates else by_stem.get(Path(name).stem, [])
        if len(alike) != 1:
            raise InputError(f"{name} is named in {file} but not in {place}: restore it, or draw with --iterate -1")
        found.append(candidates[alike[0]])
    return tuple(found)


def count(samples: Sequence[Sample], published: int | None = None) -> dict[str, int | None]:
    """How many samples are normal and abnormal, beside the published total (None where there is none)."""
    abnormal = sum(sample.label for sample in samples)
    return {"normal": len(samples) - abnormal, "abnormal": abnormal, "published": published}


def describe(counts: dict, scored: bool = True) -> str:
    """Two lines to print before a run: what was found beside what is published, and the support; how many images
    will be `scored`, if they will."""
    splits = [f"{split} {_total(counts[split])}" for split in ("train", "valid", "test") if split in counts]
    lines = [f"{counts['object']}: " + "; ".join(splits)]
    if "support" in counts:
        support, left = counts["support"], counts["scored"]
        line = f"support {support['normal']} normal + {support['abnormal']} abnormal ({support['source']})"
        lines.append(line + f"; scored {left['normal']} normal + {left['abnormal']} abnormal" * scored)
    return "\n".join(lines)


def _total(found: dict) -> str:
    total = found["normal"] + found["abnormal"]
    published = found["published"]
    beside = "" if published is None else f" of the benchmark's {published}"
    return f"{found['normal']} normal + {found['abnormal']} abnormal ({total}{beside})"
