"""Every setting and its default, once: frozen specs, which code is handed, flags are made from and checkpoints store.

A spec is flat: each class below is one concern, a run's spec is several of them, and what needs the model's settings
alone says so (`spec: ModelSpec`) and takes any run's. `replace(spec, seed=7)` makes another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import CLIP
from CLIP import sources
from CLIP.precision import CHOOSES, choose
from engine.recipe import PAPER, PARTS, RECIPES, RecipeSpec
from engine.settings import Spec, bank_limit, setting
from madff import ADAPTERS, ATTENTIONS, AXES
from runtime.errors import InputError
from runtime.flags import (
    AUTO,
    GIGABYTES,
    MANY,
    SIDE,
    WORKERS,
    auto_or,
    finite,
    interval,
    natural,
    number,
    path,
    positive,
)
from runtime.tensors import LARGEST
from utils import pick_device

PROTOCOLS = ("paper", "sound")
SCORED = ("few", "zero", "both")
METHODS = ("clipmpcad", "patchcore", "winclip", "linear")  # the paper's, and baselines on the bare trunk
NO_ADAPTER = "none"  # the bare trunk, nothing to train
ADAPTED = ("adapter", "madff", "madff_axis", "ensemble")  # settings of adapters
UNFIT = {  # method -> settings that mean nothing for it
    "patchcore": (*ADAPTED, "recipe", *PARTS),
    "winclip": (*ADAPTED, "bank_cap", "recipe", *PARTS),
    "linear": (*ADAPTED, "bank_cap", "recipe", *PARTS),
}
MOST_MEMBERS = 64
FEW_EVERY, ZERO_EVERY = 1, 0.2  # epochs between evaluations of the published scripts
TRAINED, TESTED = ("fp32", "bf16"), ("fp32", "bf16", "fp16", "int8")  # precisions; only some have gradients
DEMO_CLIP = {"model_name": sources.TOY, "pretrain": "demo"}
DEMO = {**DEMO_CLIP, "data_path": Path("data/demo"), "iterate": -1}


@dataclass(frozen=True, kw_only=True)
class DataSpec(Spec):
    """Which images."""

    GROUP: ClassVar = "data"
    obj: str = setting("Brain", "Brain, Liver, ..., mvtec/bottle, mvtec (all its classes), or a name of your own")
    data_path: Path = setting(Path("data"), "folder that holds Brain_AD, mvtec, ..., or your own images", type=path)
    classname: str | None = setting(None, "words for the prompts, e.g. 'solar cell'; default: the object's own")
    demo: bool = setting(False, "the embedded demo CLIP on generated images (made in data/demo when missing)")

    @classmethod
    def demo_settings(cls) -> dict[str, Any]:
        return DEMO


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """Which CLIP, which adapters, which words."""

    GROUP: ClassVar = "model"
    model_name: str = setting("ViT-L-14-336", f"{', '.join(CLIP.model_names())}, or a config JSON")
    pretrain: str | None = setting(
        None,
        "which published weights: openai (default, or the only ones that a model has), laion400m, laion2b, datacomp, "
        "...; beside --clip_path: whose",
    )
    clip_path: Path | None = setting(None, "a weights file of your own, instead of --pretrain's", type=path)
    trust_weights: bool = setting(False, "open a TorchScript archive whose sha256 is not an official one")
    offline: bool = setting(False, "never fetch weights")
    img_size: int = setting(240, "pixels a side", type=number(int, 1, SIDE))
    features_list: tuple[int, ...] | None = setting(
        None,
        "blocks with adapters; default: quarters of the depth (6 12 18 24)",
        type=number(int, 1, CLIP.MOST_LAYERS),
        nargs="+",
    )
    adapter: str = setting("madff", "the adapters' kind; none: the bare trunk", choices=(*ADAPTERS, NO_ADAPTER))
    madff: tuple[str, ...] = setting(ATTENTIONS, "attention branches that are on", choices=ATTENTIONS, nargs="*")
    madff_axis: str = setting("sequence", "token: what the released code computes", choices=AXES)
    ensemble: int = setting(1, "starts that are trained side by side on one trunk", type=number(int, 1, MOST_MEMBERS))
    protocol: str = setting("paper", "sound: CLIP's normalisation, QuickGELU for OpenAI's weights", choices=PROTOCOLS)
    prompts: str = setting("all", "base, llm, all, or a JSON file")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrain is None and self.clip_path is None:  # beside a file of unknown origin it stays unknown
            object.__setattr__(self, "pretrain", sources.usual(self.model_name))
        object.__setattr__(self, "madff", tuple(one for one in ATTENTIONS if one in self.madff))  # in whatever order

    @property
    def notes(self) -> list[str]:
        """What is to be said wherever this model's scores are shown."""
        return sources.notes(self.model_name)


@dataclass(frozen=True, kw_only=True)
class MachineSpec(Spec):
    """Where and how it runs."""

    GROUP: ClassVar = "run"
    seed: int = setting(
        111, "of the draw of the support, the adapters' start and the order", type=number(int, 0, 2**32 - 1)
    )
    device: str = setting("auto", "auto, cuda, cuda:N, mps or cpu")
    deterministic: bool = setting(
        False, "the same bits every time on CUDA too, more slowly; a CPU with as many threads gives them anyway"
    )
    cache_path: Path = setting(Path(".cache"), "folder for what need not be computed twice", type=path)
    cache_gb: float = setting(
        10.0, "what the cache may take; 0: no cache", type=number(float, 0, GIGABYTES), metavar="GB"
    )
    precision: str = setting(
        "fp32",
        "of the towers' linear layers, which are held so; in bf16 and fp16 adapters run by autocast; scores stay fp32; "
        "auto: bf16 where there are fast units for it; fast: the fastest of all",
        choices=(*TESTED, *CHOOSES),
    )
    compile: bool = setting(False, "torch.compile the trunk for scoring: starts later")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision in CHOOSES:
            device = pick_device(self.device, self.deterministic)
            object.__setattr__(self, "precision", choose(self.precision, device))


@dataclass(frozen=True, kw_only=True)
class SystemSpec(MachineSpec, ModelSpec, DataSpec):
    """What every run has."""


@dataclass(frozen=True, kw_only=True)
class SupportSpec(Spec):
    """Which images are support."""

    GROUP: ClassVar = "few-shot"
    shot: int = setting(4, "normal support images, and as many abnormal ones", type=positive)
    abnormal_shot: int | None = setting(
        None, "abnormal support images; default: as many as --shot; 0: memory bank on the bare trunk", type=natural
    )
    iterate: int = setting(0, "line of the published selection; -1 draws with --seed", type=number(int, -1, MANY))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.abnormal_shot is None:
            object.__setattr__(self, "abnormal_shot", self.shot)


@dataclass(frozen=True, kw_only=True)
class ScoreSpec(RecipeSpec, ModelSpec):
    """What is scored, by which method, against how much. A baseline has no adapters: `adapter` is then "none"."""

    GROUP: ClassVar = "scoring"
    method: str = setting(METHODS[0], "clipmpcad, or a baseline on the same trunk, nothing trained", choices=METHODS)
    bank_cap: str | None = setting(
        None,
        "tokens a tap that a large memory bank keeps: drawn evenly, or a greedy coreset (a tenth of all, or N)",
        type=bank_limit,
        metavar="N|coreset[:N]",
    )
    branches: str = setting("both", "what is scored: memory bank, prompts, both", choices=SCORED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == METHODS[0]:
            return
        usual = {one.name: one.default for one in fields(self)}
        check_method(self.method, {name: value for name, value in vars(self).items() if value != usual[name]})
        if self.branches == "zero" and self.method != "winclip":
            raise InputError(f"--branches zero are prompts, which --method {self.method} has none of; leave it out")
        for name, value in {"adapter": NO_ADAPTER, "recipe": PAPER, **RECIPES[PAPER]}.items():
            object.__setattr__(self, name, value)


def check_method(method: str, asked: Mapping[str, Any]) -> None:
    """Raise InputError for settings that are asked for and mean nothing for a method."""
    for name in UNFIT.get(method, ()):
        usual = {"adapter": NO_ADAPTER, "ensemble": 1, "recipe": PAPER, **RECIPES[PAPER]}.get(name)
        if name in asked and asked[name] not in (None, usual):
            raise InputError(f"--{name} means nothing for --method {method}; leave it out")


@dataclass(frozen=True, kw_only=True)
class TestSetSpec(Spec):
    """How a test set is scored, and where results go."""

    GROUP: ClassVar = "test set"
    batch_size: int | str = setting(
        AUTO, "images that are scored together on a device; auto: as its memory allows", type=auto_or(positive)
    )
    num_workers: int | str = setting(
        AUTO, "processes that read images; auto: none on a CPU, else up to 8", type=auto_or(number(int, 0, WORKERS))
    )
    results_path: Path = setting(Path("results"), "folder that gets a folder for every run", type=path)
    save_images: Path | None = setting(
        None, "write a picture of every test image's map into DIR", type=path, metavar="DIR"
    )

    @property
    def scored_together(self) -> int | str:
        """How many test images go through the model together, or `AUTO`."""
        return self.batch_size


@dataclass(frozen=True, kw_only=True)
class TrainSpec(TestSetSpec):
    """How long and in what steps."""

    GROUP: ClassVar = "training"
    epoch: int = setting(50, "0 trains nothing and evaluates", type=natural)
    batch_size: int = setting(1, "images a step; the published code's is 1", type=positive)
    precision: str = setting(
        "fp32",
        "of the towers' linear layers, which are held so; in bf16 adapters run by autocast; scores stay fp32",
        choices=TRAINED,
    )
    save_model: int = setting(1, "0: no checkpoint", type=int, choices=(0, 1))
    log_dir: Path | None = setting(None, "folder for TensorBoard's curves; default: the run's own", type=path)
    save_every: float = setting(
        5.0,
        "minutes between saves of what an unfinished run goes on from; 0: only when it is stopped",
        type=number(float, 0, MANY),
    )
    resume: bool = setting(False, "go on with the unfinished run of these settings, which must be there")
    restart: bool = setting(False, "begin anew, although an unfinished run of these settings is there")

    @property
    def scored_together(self) -> str:
        """The batch is that of a step."""
        return AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.restart:
            raise InputError("--resume goes on and --restart begins anew; leave one of the two out")


@dataclass(frozen=True, kw_only=True)
class CheckpointSpec(Spec):
    """Which checkpoint is looked at."""

    GROUP: ClassVar = "checkpoint"
    ckpt: Path | None = setting(
        None, "adapter file, ours or a published one; default: the one in --save_path", type=path
    )


@dataclass(frozen=True, kw_only=True)
class PredictorSpec(ScoreSpec, SupportSpec, SystemSpec):
    """Scoring images of one's own with a checkpoint: `Predictor.from_checkpoint`."""

    GROUP: ClassVar = "how it is judged"
    threshold: float | None = setting(None, "score from which an image is abnormal; default: calibrated", type=finite)
    pixel_threshold: float | None = setting(
        None, "map value from which a pixel is abnormal; default: calibrated", type=finite
    )
    tile: int | None = setting(
        None, "score pieces of N x N pixels, for small defects in large images", type=positive, metavar="N"
    )
    overlap: int | None = setting(
        None, "pixels that tiles share; default: a quarter of --tile", type=natural, metavar="M"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile is None:
            if self.overlap is not None:
                raise InputError("--overlap says how much tiles share; give their size with --tile")
            return
        if self.overlap is None:
            object.__setattr__(self, "overlap", self.tile // 4)
        if self.overlap >= self.tile:
            raise InputError(f"--overlap {self.overlap} must be less than --tile {self.tile}")


FEW_PATH, ZERO_PATH = Path("ckpt/few-shot"), Path("ckpt/zero-shot")


@dataclass(frozen=True, kw_only=True)
class FewShotSpec(TrainSpec, ScoreSpec, SupportSpec, SystemSpec):
    """Few-shot training: `train_few_shot`, train_few.py."""

    learning_rate: float = setting(1e-3, "of Adam", type=number(float, 0, LARGEST))
    eval_every: int | None = setting(
        None,
        "epochs between evaluations; 0: only at the end, no best epoch; default: 1 for benchmarks, 0 for your images",
        type=natural,
    )
    save_path: Path = setting(FEW_PATH, "folder for the checkpoint", type=path)

    @classmethod
    def demo_settings(cls) -> dict[str, Any]:
        return DEMO | {"epoch": 3}  # a toy learns fast, and minutes should do


@dataclass(frozen=True, kw_only=True)
class FewShotTestSpec(CheckpointSpec, TestSetSpec, ScoreSpec, SupportSpec, SystemSpec):
    """Few-shot evaluation: `evaluate`, test_few.py."""

    save_path: Path = setting(FEW_PATH, "folder where training put the checkpoint", type=path)


@dataclass(frozen=True, kw_only=True)
class TransferSpec(TrainSpec, SystemSpec):
    """Zero-shot transfer: `train_transfer`, train_zero.py."""

    learning_rate: float = setting(1e-4, "of Adam", type=number(float, 0, LARGEST))
    eval_every: float | None = setting(
        None,
        "epochs, or a fraction of one, between evaluations, the first before any step; 0: only at the end; "
        "default: 0.2 for benchmarks, 0 for your images",
        type=interval,
    )
    save_path: Path = setting(ZERO_PATH, "folder for the checkpoint", type=path)

    @classmethod
    def demo_settings(cls) -> dict[str, Any]:
        return DEMO | {"epoch": 5, "learning_rate": 1e-3}


@dataclass(frozen=True, kw_only=True)
class TransferTestSpec(CheckpointSpec, TestSetSpec, SystemSpec):
    """Evaluation of transfer: `evaluate`, test_zero.py."""

    save_path: Path = setting(ZERO_PATH, "folder where training put the checkpoint", type=path)
