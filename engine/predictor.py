"""The public way to score images of one's own: a checkpoint, and whatever picture comes."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from dataset import Sample, as_picture, load_mask, open_picture
from engine.baselines import BaselineRun
from engine.few_shot_run import FewShotRun
from engine.findings import Finding
from engine.open_checkpoint import OpenedCheckpoint, open_checkpoint
from engine.picture_scorer import BAR_AFTER, PictureScorer, by_prompts
from engine.spec import PredictorSpec
from engine.tiled_calibration import KnownPicture, in_tiles
from engine.tiles import Tiling
from runtime.bars import Bar
from runtime.environment import code_sha256
from runtime.errors import InputError
from runtime.tensors import digest
from scoring.reliability import Verdict

NORMAL_TOP = 2.0  # colours end at this many times the range of normal images, where no abnormal ones were at hand
PictureLike = str | Path | Image.Image | np.ndarray | Tensor
P = TypeVar("P", bound="Predictor")


@dataclass(frozen=True, kw_only=True)
class Prediction(Verdict):
    """What is predicted of one picture, beside the verdict. On the calibrated scale the support lies between 0 and 1.

    anomaly_map: (H, W) float32, at the picture's own size. findings: regions of the map that reach the pixel threshold,
    the highest first; what they resemble only where the picture is abnormal.
    """

    anomaly_map: np.ndarray
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Predictor(PictureScorer):
    """A trained system that scores pictures one by one. It changes nothing of itself: threads may share it."""

    @classmethod
    def from_checkpoint(cls, path: str | Path, **settings: Any) -> Self:
        """The predictor of a checkpoint of train_few.py or train_zero.py, with the threshold of its calibration.

        settings: those of `PredictorSpec` that are to be other than the checkpoint's: device, data_path, prompts, tile,
        ... Raises InputError for a file that can't be read or does not fit.
        """
        PredictorSpec.refuse_unknown(settings)
        opened = open_checkpoint(Path(path), PredictorSpec, settings, purpose="prediction")
        return of_opened(opened, cls)

    def digest(self) -> str:
        """A hash of all that score and findings depend on beside the picture: weights, texts, banks, scale, code."""
        known_by = (self.system.weights_sha256, self.system.adapters_digest(), self.system.size, code_sha256())
        banks = {head: bank.tensors() for head, bank in self.banks.items()}
        text = [] if self.text_directions is None else self.text_directions
        words = [] if self.finding_texts is None else [self.finding_texts.findings, self.finding_texts.directions]
        kept = {"text": text, "findings": words, "banks": banks, "calibration": asdict(self.calibration)}
        for name, part in (("baseline", self.baseline), ("reader", self.reader)):
            kept |= {} if part is None else {name: part.tensors()}
        return digest({**kept, "tiling": str(self.tiling), "known_by": (*known_by, str(self.rule))})

    def predict(self, pictures: PictureLike | Sequence[PictureLike]) -> Prediction | list[Prediction]:
        """Score a picture, or each of a list or batch of them by itself.

        A picture is a path, a PIL image, an array (H, W) or (H, W, 3) of uint8 or of floats in [0, 1], or a tensor
        (H, W), (1, H, W) or (3, H, W) of the same; a batch is a list, an array (N, H, W, 3) or a tensor (N, 3, H, W).
        Raises InputError for a file that can't be read, and for numbers that are not finite or out of range.
        """
        if isinstance(pictures, (list, tuple)) or getattr(pictures, "ndim", 0) == 4:
            return [self._predict(to_picture(picture)) for picture in pictures]
        return self._predict(to_picture(pictures))

    def _predict(self, picture: Image.Image) -> Prediction:
        anomaly_map, score, findings = self.assess(picture)
        if not np.isfinite(score):
            raise InputError("a picture's score is not a number; use precision fp32, or another checkpoint")
        return Prediction(**asdict(self.verdict(score)), anomaly_map=anomaly_map, findings=findings)

    def verdict(self, score: float) -> Verdict:
        """What a score means, by the branch that scores are of."""
        threshold, evidence = (part.get(self.branch) for part in (self.calibration.image, self.calibration.evidence))
        return Verdict.of(score, math.nan if threshold is None else threshold, evidence)


def to_picture(picture: PictureLike) -> Image.Image:
    """Whatever `Predictor.predict` takes as one picture, as an RGB image."""
    if isinstance(picture, (str, Path)):
        return open_picture(Path(picture))
    if isinstance(picture, Image.Image):
        return as_picture(picture, "the picture")
    values = np.asarray(picture.detach().cpu().movedim(-3, -1) if _channels_first(picture) else picture)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or not values.size:
        raise InputError(f"an array of shape {values.shape} is no picture: give (H, W) or (H, W, 3), or a list of them")
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise InputError("an array of numbers that are not all from 0 to 1 is no picture: scale it, or give uint8")
        if values.ndim == 2:
            return Image.fromarray(values)
        values = np.round(255 * values).astype(np.uint8)
    return Image.fromarray(values).convert("RGB")


def _channels_first(picture: object) -> bool:
    return isinstance(picture, Tensor) and picture.ndim == 3


def settled(predictor: P, spec: PredictorSpec) -> P:
    """The predictor with the thresholds and the tiles that were asked for."""
    if spec.tile and predictor.tiling is None:
        print("scale and thresholds are of whole images" if predictor.calibrated else "nothing is calibrated on tiles")
        predictor = replace(predictor, tiling=Tiling(spec.tile, spec.overlap))
    said = {"image": spec.threshold, "pixel": spec.pixel_threshold}
    given = {kind: {predictor.branch: value} for kind, value in said.items() if value is not None}
    return replace(predictor, calibration=replace(predictor.calibration, **given))


def of_opened(opened: OpenedCheckpoint, kind: type[P] = Predictor) -> P:
    """The predictor of an opened checkpoint: few-shot ones have the memory bank of their support, transferred ones
    prompts alone. Where images are cut into tiles, so is the support."""
    run, snapshot = opened.run, opened.load()
    if not isinstance(run, FewShotRun):
        calibration = snapshot.calibration or by_prompts(run.system.decoder.levels)
        known = snapshot.calibration is not None
        told = {"source": "images of the objects trained on"} if known else {}
        told |= {"finding_texts": run.prompts.findings}
        return settled(kind(run.system, run.scored_text(), {}, run.rule, calibration, known, **told), opened.spec)
    told = {"top": 1.0 if run.data.support_abnormal else NORMAL_TOP, "source": "the checkpoint's support"}
    if isinstance(run, BaselineRun):
        if opened.spec.tile:
            raise InputError(f"{opened.path} holds a baseline (--method {run.spec.method}): leave --tile out")
        found = (run.system, None, {}, run.rule, snapshot.calibration, True)
        return settled(kind(*found, **told, baseline=run.model), opened.spec)
    found = (run.system, run.scored_text(), run.banks(keep=True), run.rule, snapshot.calibration, True)
    texts = None if run.scored_text() is None else run.prompts.findings
    predictor = kind(*found, **told, finding_texts=texts, reader=run.reader())
    known = [_known(number, sample, run.masks, run.system.size) for number, sample in enumerate(support_of(run))]
    if tiling := tiling_of(opened.spec, known):
        predictor, _ = in_tiles(predictor, known, tiling, run.spec)
    return settled(predictor, opened.spec)


def support_of(run: FewShotRun) -> tuple[Sample, ...]:
    """All support images, the abnormal ones first."""
    return (*run.data.support_abnormal, *run.data.support_normal)


def tiling_of(spec: PredictorSpec, support: Sequence[KnownPicture]) -> Tiling | None:
    """The tiles that the support is cut into: where one of its images is larger than a tile, so that what holds of
    whole images does not hold of tiles."""
    bar = Bar(support, "support", unit="image", leave=False, delay=BAR_AFTER)
    if spec.tile and any(max(known.picture().size) > spec.tile for known in bar):
        return Tiling(spec.tile, spec.overlap)
    return None


def _known(source: int, sample: Sample, masks: bool, size: int) -> KnownPicture:
    """A support image for calibration in tiles."""
    mask = partial(_mask, sample.mask, size) if masks and sample.mask else None
    return KnownPicture(source, sample.label, partial(open_picture, sample.image), mask)


def _mask(file: Path, size: int) -> np.ndarray:
    return load_mask(file, size)[0].numpy() > 0.5
