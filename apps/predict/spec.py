"""The settings of predict.py."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from engine.recipe import PARTS
from engine.settings import Spec, setting
from engine.spec import ADAPTED, DEMO_CLIP, PredictorSpec
from runtime.errors import InputError
from runtime.flags import WORKERS, finite, name, number, path, words

KNOWN = ("recipe", "folds", "threshold_rule", "shot")  # settings of images of known label, beside a recipe's parts
NARROW = 1e-9  # of a window's width, by which intensities are divided
CLUSTER = re.compile(r"ray(:(auto|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}))?")


def cluster(text: str) -> str:
    """A reader of ray, ray:auto or ray:HOST:PORT."""
    if not CLUSTER.fullmatch(words(text)):
        raise argparse.ArgumentTypeError(
            f"{text} is neither ray, ray:auto nor ray:HOST:PORT, the address that ray start printed"
        )
    return text


@dataclass(frozen=True, kw_only=True)
class InputSpec(Spec):
    """What is scored, and where results go."""

    GROUP: ClassVar = "what is scored"
    input: tuple[str, ...] | None = setting(
        None,
        "png jpg bmp tif, DICOM, NIfTI (.nii, .nii.gz), NRRD; folders with all below them",
        type=name,
        nargs="+",
        required=True,
        metavar="FILE|DIR|GLOB",
    )
    output: Path | None = setting(None, "folder for scores, maps and pictures", type=path, required=True, metavar="DIR")
    restart: bool = setting(False, "begin anew where --output holds a run, instead of going on with it")
    roi: Path | None = setting(
        None, "masks of the inputs' own names: what is outside is ignored", type=path, metavar="MASK_DIR"
    )
    axis: int = setting(2, "axis of a volume that slices are cut along", type=int, choices=(0, 1, 2))
    window: tuple[float, ...] | None = setting(
        None,
        "intensities shown of DICOM and volumes; default: the DICOM header's, else their whole range",
        type=finite,
        nargs=2,
        metavar=("CENTER", "WIDTH"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and (len(self.window) != 2 or self.window[1] < NARROW):
            raise InputError(
                f"--window needs a center and a width of {NARROW} or more, not {' '.join(map(str, self.window))}"
            )


@dataclass(frozen=True, kw_only=True)
class PredictSpec(InputSpec, PredictorSpec):
    """Score images and volumes: with trained adapters, or with no training at all."""

    GROUP: ClassVar = "how it is judged"
    ckpt: Path | None = setting(None, "adapter file; without it nothing trained is used", type=path)
    demo_clip: bool = setting(
        False, "without --ckpt: the embedded toy CLIP, to try things out offline; says nothing about real images"
    )
    normal: Path | None = setting(None, "without --ckpt: normal images, for the memory bank", type=path, metavar="DIR")
    abnormal: Path | None = setting(None, "without --ckpt: abnormal images, for thresholds", type=path, metavar="DIR")
    score: str = setting(
        "max",
        "without --ckpt: an image's score is its map's highest value, or the mean over its patches",
        choices=("max", "mean"),
    )

    @classmethod
    def implied_by(cls, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What --demo and --demo_clip bring along."""
        return super().implied_by(asked) | (DEMO_CLIP if asked.get("demo_clip") is True else {})


@dataclass(frozen=True, kw_only=True)
class ScaleSpec(PredictSpec):
    """Score images and volumes: with trained adapters, or with no training at all."""

    GROUP: ClassVar = "many machines"
    on: str | None = setting(
        None,
        "score with Ray: on a cluster of this machine alone, or on a running one",
        type=cluster,
        metavar="ray[:ADDRESS]",
    )
    ray_actors: int = setting(
        0, "with --on: processes that score; 0: one a GPU, else CPUs / threads", type=number(int, 0, WORKERS)
    )
    save_maps: str | None = setting(
        None, "with --on: where maps go, a folder or an URL (s3://..., gs://...)", type=words, metavar="DIR|URL"
    )


def check_scale(asked: Mapping[str, Any]) -> None:
    """Raise InputError for settings of `ScaleSpec` that need --on, where it is not given."""
    for one in ("ray_actors", "save_maps"):
        if one in asked and asked.get("on") is None:
            raise InputError(f"--{one} needs --on ray beside it; leave it out")


def check_asked(asked: Mapping[str, Any]) -> None:
    """Raise InputError for settings of `PredictSpec` that contradict each other."""
    with_checkpoint = asked.get("ckpt") is not None
    adapters = (*ADAPTED, "iterate", "method", "epoch_by", "average_epochs", "synthetic")
    for one in ("normal", "abnormal", "score", "demo_clip") if with_checkpoint else adapters:
        if one in asked:
            why = "is for scoring without --ckpt" if with_checkpoint else "needs --ckpt"
            raise InputError(f"--{one} {why}; leave one out")
    for one in ("model_name", "pretrain", "clip_path") if asked.get("demo_clip") else ():
        if one in asked:
            raise InputError(f"--demo_clip is a CLIP of its own, and --{one} names another; leave one out")
    if asked.get("abnormal") and not asked.get("normal"):
        raise InputError("--abnormal needs --normal beside it: a threshold lies between the two")
    if not with_checkpoint:
        _check_known(asked)


def _check_known(asked: Mapping[str, Any]) -> None:
    """Raise InputError for settings of known images, where --normal or --abnormal gives none of them."""
    wanted = {} if asked.get("normal") else dict.fromkeys((*KNOWN, *PARTS), "normal")
    by_abnormal = not str(asked.get("threshold_rule", "specificity")).startswith("specificity")
    wanted |= {} if asked.get("abnormal") else {"abnormal_shot": "abnormal"}
    wanted |= {"threshold_rule": "abnormal"} if by_abnormal and not asked.get("abnormal") else {}
    for one, label in wanted.items():
        if one in asked:
            raise InputError(f"--{one} needs {label} images: give their folder with --{label}, or leave it out")
