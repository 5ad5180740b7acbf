"""What Ray's actors do: open the predictor once, then turn listed files into rows."""

import os
import platform
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from apps.predict.inputs import Reader, of_image
from apps.predict.listing import ID, ListedFiles
from apps.predict.map_store import MapStore
from apps.predict.open_predictor import open_predictor
from apps.predict.outputs import Outputs, ScoredPicture, save_png
from apps.predict.score_files import rows_of
from apps.predict.score_parts import as_table
from apps.predict.spec import PredictSpec
from apps.predict.volumes import Stack
from dataset import as_picture, readable
from dataset.images import FORMATS
from engine.predictor import Predictor
from runtime.environment import code_sha256, environment
from runtime.errors import InputError


@dataclass(frozen=True)
class Job:
    """What every worker is told. cwd: that names of files are relative to; known_by: of the model, once it is known."""

    spec: PredictSpec
    asked: Mapping[str, Any]
    cwd: str
    listing: Path
    threads: int
    maps: str | None = None
    known_by: tuple[str, ...] | None = None

    @property
    def reader(self) -> Reader:
        """How files are opened, before one's mask is known."""
        return Reader(self.spec.axis, self.spec.window)

    def settle_in(self) -> None:
        """Make this process like the one that plain predict.py runs in."""
        os.chdir(self.cwd)
        torch.set_num_threads(self.threads)


@dataclass(frozen=True)
class Opened:
    """What is told of a predictor: what its record says, its digest, what its outputs share, what opening printed."""

    origin: Mapping[str, Any]
    digest: str
    known_by: tuple[str, ...]
    branch: str
    outputs: Outputs
    environment: Mapping[str, Any]
    said: str


def describe(job: Job) -> Opened:
    """Open the predictor once where there is room for it, which need not be here, and tell of it."""
    job.settle_in()
    with redirect_stdout(StringIO()) as said:
        predictor, origin = open_predictor(job.spec, job.asked, job.reader, ListedFiles(job.listing))
    outputs = Outputs(job.spec.output, predictor, job.spec.threshold is not None)
    device = predictor.system.device
    return Opened(
        *(origin, predictor.digest(), known_by(predictor), predictor.branch, outputs, environment(device)),
        said.getvalue(),
    )


def known_by(predictor: Predictor) -> tuple[str, ...]:
    """What is the same on all machines: weights, adapters, code. (Banks differ in last bits between processors.)"""
    return predictor.system.weights_sha256, predictor.system.adapters_digest(), code_sha256()


@dataclass(frozen=True)
class ListedMask:
    """The mask of a file as the listing has it, for `Reader`."""

    mask: Path | None
    fault: str | None

    def of(self, file: Path) -> Path:
        """The mask. Raises InputError if there is none."""
        if self.mask is None:
            raise InputError(self.fault or f"{file} has no mask")
        return self.mask


@dataclass(frozen=True)
class ReadAhead(Reader):
    """A reader to whom files' bytes were brought."""

    content: bytes | None = field(default=None, repr=False)

    def open(self, path: Path) -> Stack:
        """The pictures of a file; what is wrong with its bytes is said as of the file itself."""
        if self.content is not None:
            try:
                with readable(path), Image.open(BytesIO(self.content), formats=FORMATS) as image:
                    image.load()
                return of_image(as_picture(image, path))
            except InputError:
                pass  # the same again, in words that name the file
        return super().open(path)


class RowOutputs(Outputs):
    """Outputs of which rows are kept in parts by others: of the pictures, only maps are written, where asked for."""

    maps: MapStore | None = None

    def write(
        self,
        name: str,
        file: Path,
        number: int | None,
        picture: Image.Image,
        full: np.ndarray,
        score: float,
        seconds: float,
        findings: str = "",
    ) -> ScoredPicture:
        """Like `Outputs.write`, of a map only; map in the row: where it is."""
        if self.maps is None:
            return self.row(file, number, score, seconds, findings=findings)
        png = BytesIO()
        save_png(png, *self.deep(full))
        map_at = self.maps.put(f"{name}.png", png.getvalue())
        return self.row(file, number, score, seconds, findings=findings, map=map_at)


class Scorer:
    """An actor: opens the predictor once, then turns rows of the listing into rows of scores.csv.

    Raises InputError for a machine with other weights, adapters or code than the first one.
    """

    def __init__(self, job: Job) -> None:
        job.settle_in()
        self.reader = job.reader
        self.predictor, _ = open_predictor(job.spec, job.asked, self.reader, ())
        if known_by(self.predictor) != job.known_by:
            raise InputError(f"{platform.node()} has other weights, adapters or code: give all machines the same")
        self.outputs = RowOutputs(job.spec.output, self.predictor)
        self.outputs.maps = None if job.maps is None else MapStore(job.maps)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Files with their bytes -> rows, of every file all; a fault of a file is its row's error."""
        listed = batch.to_pylist()
        return as_table(*([row[name] for row in listed] for name in (ID, "place")), [self._rows(row) for row in listed])

    def _rows(self, row: Mapping[str, Any]) -> list[ScoredPicture]:
        file, masks = Path(os.fsdecode(row["file"])), None
        if row["mask"] or row["fault"]:
            masks = ListedMask(Path(os.fsdecode(row["mask"])) if row["mask"] else None, row["fault"])
        reader = ReadAhead(self.reader.axis, self.reader.window, masks, row["bytes"])
        return list(rows_of(self.predictor, reader, self.outputs, file, row["name"]))
