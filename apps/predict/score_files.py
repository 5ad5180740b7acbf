"""Scores of files: one after the other, a row each, with all that is written of them."""

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from apps.predict import inputs
from apps.predict.chart import save_chart
from apps.predict.inputs import Reader, kind_of
from apps.predict.manners import Manner, differing
from apps.predict.open_predictor import open_predictor
from apps.predict.outputs import TABLE, UNREADABLE, Outputs, ScoredPicture, check_outputs, is_of_output
from apps.predict.own_words import UNKNOWN
from apps.predict.progress import Progress, settings_of, stamp
from apps.predict.roi import RegionMasks
from apps.predict.spec import PredictSpec, check_asked
from CLIP import sources
from engine.findings import measured
from engine.kept_scores import KeptScores
from engine.predictor import Predictor
from report.panels import panel_names
from runtime.bars import Bar
from runtime.environment import environment
from runtime.errors import SYSTEM, InputError
from runtime.files import lock, unlock


def score_file(
    predictor: Predictor, reader: Reader, outputs: Outputs, file: Path, name: str
) -> Iterator[ScoredPicture]:
    """Score one image or every slice of one file, and write what belongs to it as `name`.

    Raises InputError if it can't be read.
    """
    stack = reader.open(file)
    region = reader.region(file, stack)
    count, maps, scores, slices = len(stack.pictures), [], [], []
    bar = Bar(range(count), file.name, unit="slice", leave=False, disable=count == 1)
    for number in bar:
        started, picture = time.perf_counter(), stack.pictures[number]
        inside = None if region is None else region[number]
        if inside is None or inside.any():
            full, score, found = predictor.assess(picture, inside)
        else:
            full, score, found = np.zeros(picture.size[::-1], np.float32), 0.0, ()  # nothing of this slice counts
        if not math.isfinite(score):
            mend = "leave it out" if predictor.system.decoder.half is None else "score it with --precision fp32"
            raise InputError(f"{file}: its score is not a number; {mend}")
        seconds = round(time.perf_counter() - started, 3)
        place = number if stack.several else None
        own = f"{name}_{number:0{len(str(count - 1))}d}" if stack.several else name
        one = outputs.slice(place, full, score, measured(found, stack.spacing))
        row = outputs.write(own, file, place, picture, full, score, seconds, one.cell())
        row = replace(row, shown=stack.shown, plane=stack.plane)
        scores.append(score)
        if stack.segment is not None:
            slices.append(one)
        if stack.save is not None:
            maps.append(full)
        yield row
    if stack.several:
        save_chart(outputs.folder / "charts" / f"{name}.png", scores, outputs.threshold, file.name)
    if stack.save is not None:
        stack.save(outputs.folder / "volumes" / name, np.stack(maps))
    if stack.segment is not None:
        outputs.segment(name, file, stack, slices)


def score_files(
    predictor: Predictor,
    reader: Reader,
    outputs: Outputs,
    names: Mapping[Path, str],
    progress: Progress,
    rows: dict[Path, list[ScoredPicture]],
) -> None:
    """Score the files that have no rows yet and give them theirs, in `rows` and on the disk as they come.

    names: of what is written, by file. Raises OSError for a full disk and for output that can't be written.
    """
    for file, name in Bar(names.items(), "scoring", unit="file", leave=False):
        if not rows[file]:
            for row in rows_of(predictor, reader, outputs, file, name):
                rows[file].append(row)
            outputs.append(rows[file])
            progress.add(file, rows[file])


def rows_of(predictor: Predictor, reader: Reader, outputs: Outputs, file: Path, name: str) -> Iterator[ScoredPicture]:
    """Those of one file; whatever is wrong with it becomes the last one."""
    try:
        yield from score_file(predictor, reader, outputs, file, name)
    except Exception as fault:
        if is_of_output(fault, outputs.folder):
            raise
        note = " ".join(str(fault).split())
        if not isinstance(fault, InputError):
            note = f"{file} can't be scored ({type(fault).__name__}: {note}): leave it out, or write it again"
        yield ScoredPicture(str(file), None, None, None, UNREADABLE, None, note)


def labelled(file: Path) -> Path:
    """The absolute path; a DICOM file gets its suffix, so that the end of a UID (1.2.840.10008) is not taken for it."""
    path = file.absolute()
    return path.with_name(f"{path.name}.dcm") if kind_of(file) == "dicom" and path.suffix.lower() != ".dcm" else path


def common_folder(files: Sequence[Path]) -> str | None:
    """The folder that all files are below; None if they lie on different drives."""
    try:
        return os.path.commonpath([file.absolute().parent for file in files])
    except ValueError:
        return None


def hidden_folders(spec: PredictSpec, files: Sequence[Path]) -> list[str]:
    """The folders that inputs and masks lie below, as paths may begin: what a page that is handed on does not tell."""
    common = common_folder(files)
    return ([common, os.path.realpath(common)] if common else []) + ([str(spec.roi.absolute())] if spec.roi else [])


def page_title(obj: str, files: Sequence[Path]) -> str:
    """The object, and where its images lie: Brain: images in scans."""
    folder = common_folder(files)
    where = f"image {files[0].name}" if len(files) == 1 else f"images in {Path(folder).name}" if folder else "images"
    title = where if obj == UNKNOWN else f"{obj}: {where}"
    return title[:1].upper() + title[1:]


def finish(
    outputs: Outputs, rows: Sequence[ScoredPicture], record: dict, title: str, support: Sequence[Manner] = ()
) -> None:
    """Write what tells of all rows at once: scores.csv, settings.json, report.html; and say how it went, and in what
    files differ from the support."""
    unlike = list(differing(rows, support))
    notes = [*sources.notes(record["options"]["model_name"]), *unlike]
    table = outputs.table(rows)
    counts = Counter(row.verdict for row in rows)
    outputs.record(record | outputs.settings() | {"counts": dict(counts)})
    outputs.say(counts)
    outputs.say_unsegmented()
    print(*unlike, f"results: {table}", sep="\n")
    print(f"report: {outputs.write_page(rows, record | outputs.settings(), title, notes)}")
    if failed := [row for row in rows if row.verdict == UNREADABLE]:
        print(f"not scored: {len(failed)}", file=sys.stderr)
        for row in failed:
            print(f"  {row.note}", file=sys.stderr)


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder and hold it; whatever ends the work early, what was made of it and is still empty goes again."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        check_outputs(folder)
        held = lock(folder)
        if held is None:
            raise InputError(
                f"--output {folder} is being written to by another run; wait for it, or name another folder"
            )
        try:
            yield
        finally:
            unlock(held)
    except BaseException:
        with suppress(OSError):  # it holds something
            for one in missing:
                one.rmdir()
        raise


def predict_files(asked: Mapping[str, Any]) -> bool:
    """Score the files that --input names and write all that is told of them; whether all could be read.

    asked: settings of `PredictSpec` by name. Raises InputError where nothing could start.
    """
    check_asked(asked)
    spec = PredictSpec.of(asked)
    files = inputs.find(spec.input, spec.output)
    reader = Reader(spec.axis, spec.window, RegionMasks(spec.roi, files) if spec.roi else None)
    inputs.check_packages(files)
    with made(spec.output):
        return _score(spec, asked, reader, files)


def _score(spec: PredictSpec, asked: Mapping[str, Any], reader: Reader, files: Sequence[Path]) -> bool:
    progress = Progress(spec.output, settings_of(spec, asked), spec.restart)
    predictor, origin = open_predictor(spec, asked, reader, files)
    support = [Manner(**one) for one in origin.get("support_seen", ())]
    given = spec.threshold is not None
    if not predictor.calibrated:
        threshold = "that of --threshold" if given else "a half of them"
        print(f"uncalibrated: scores are probabilities by the prompts alone, and the threshold {threshold}")
    if spec.restart and (spec.output / TABLE).exists():
        print(f"{spec.output} holds the results of a run: those that are not written anew stay")
    outputs, started = Outputs(spec.output, predictor, given, hidden_folders(spec, files)), time.time()
    record = {"script": "predict.py", **origin, "branch": predictor.branch}
    title = page_title(origin["obj"], files)
    panels = panel_names(map(labelled, files), common_folder(files))
    names = {file: panel.removesuffix(".png") for file, panel in zip(files, panels, strict=True)}
    model = predictor.digest()
    predictor = replace(predictor, kept=KeptScores(predictor.system.cache, model))
    done = progress.start({file: stamp(file, name, reader) for file, name in names.items()}, model)
    if done:
        print(f"going on: {len(done)} of {len(files)} files were scored before")
    rows = {file: done.get(file, []) for file in files}
    try:
        outputs.begin(flat(rows))
        score_files(predictor, reader, outputs, names, progress, rows)
    except OSError as fault:  # of the output
        with suppress(OSError):
            outputs.table(flat(rows))
        if fault.errno in SYSTEM:
            raise
        name, why = fault.filename or spec.output, fault.strerror or fault
        raise InputError(f"{name} can't be written ({why}): run again when it can, or choose another folder") from fault
    except KeyboardInterrupt:
        finish(outputs, flat(rows), record | {"stopped": True}, title, support)
        raise
    record["seconds"] = round(time.time() - started, 1)
    finish(outputs, flat(rows), record | {"environment": environment(predictor.system.device)}, title, support)
    return not any(row.verdict == UNREADABLE for row in flat(rows))


def flat(rows: Mapping[Path, Sequence[ScoredPicture]]) -> list[ScoredPicture]:
    """All rows, in the order of the files."""
    return [row for part in rows.values() for row in part]
