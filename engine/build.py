"""The parts of a run from its spec: where the weights lie and what they want, the system, the sentences' encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL
import torch
from torch import Tensor

import CLIP
import dataset
import prompt
from CLIP import sources, weights
from dataset import ObjectInfo, demo
from decoder import MDecoder, default_taps
from engine.findings import FindingTexts
from engine.series import Series
from engine.spec import DataSpec, ModelSpec, PredictorSpec, SystemSpec
from engine.system import System
from engine.text import HALF, TYPICAL, Encoder
from runtime import distributed, linear
from runtime.cache import Cache, key_of
from runtime.errors import InputError
from utils import pick_device

GB = 1 << 30
DATA = Path("data")  # where benchmarks lie unless told


@dataclass(frozen=True)
class Trunk:
    """What a model's spec comes to: the weights' file and its sha256, and how their images and activations are meant.

    activation: None takes the one that the file speaks for. normalisation: mean and deviation of RGB, None for none.
    """

    file: Path
    sha256: str
    activation: str | None
    normalisation: tuple[Sequence[float], Sequence[float]] | None


@dataclass(frozen=True)
class EncodedPrompts:
    """An object's sentences {"normal": [...], "abnormal": [...]}, their sha256, and the text directions (D, 2) that
    tokens are compared with. findings: what regions may resemble, only where images are scored for a user."""

    text_directions: Tensor
    sha256: str
    sentences: dict[str, list[str]]
    findings: FindingTexts | None = None


def resolve(spec: ModelSpec) -> Trunk:
    """Find, or fetch, the weights that a spec names. InputError for weights that are missing or wrong."""
    with distributed.main_first():
        file = weights.find(spec.model_name, spec.pretrain, spec.clip_path, spec.offline)
    normalisation = _normalisation(spec) if spec.protocol == "sound" else None
    return Trunk(file, weights.weights_hash(file), _activation(spec), normalisation)


def taps_of(spec: ModelSpec) -> tuple[int, ...]:
    """The blocks with adapters: those of the spec, else quarters of its model's depth."""
    return tuple(spec.features_list or default_taps(CLIP.config(spec.model_name)[1].layers))


def build_system(spec: SystemSpec, *, bare: bool = False, series: Series | None = None) -> System:
    """The system that a spec asks for, adapters at their random start; `bare`: without adapters.

    series: of runs that share the image tower.

    Raises InputError for weights that are missing or wrong, and for taps the trunk does not have.
    """
    device, trunk = pick_device(spec.device, spec.deterministic), resolve(spec)
    print(*spec.notes, sep="\n", end="\n" * bool(spec.notes))
    file = (trunk.sha256, trunk.activation, spec.model_name, spec.trust_weights)
    loaded = (*file, spec.img_size, spec.precision, spec.compile, device)
    clip = (series or Series()).once("tower", loaded, lambda: _load(spec, trunk, "image", device))
    taps = taps_of(spec)
    torch.manual_seed(spec.seed)
    decoder = MDecoder(
        clip,
        taps,
        "none" if bare else spec.adapter,
        attentions=spec.madff,
        axis=spec.madff_axis,
        half=CLIP.HALVES.get(spec.precision),
        compiled=spec.compile,
        ensemble=spec.ensemble,
    )
    versions = (torch.__version__, PIL.__version__, device.type, torch.get_num_threads(), *_products(spec))
    known_by = (trunk.sha256, clip.activation, clip.vision_config, spec.img_size, trunk.normalisation, taps[0])
    return System(
        decoder=decoder.to(device),
        device=device,
        size=spec.img_size,
        normalisation=trunk.normalisation,
        weights_sha256=trunk.sha256,
        cache=Cache(spec.cache_path, spec.cache_gb * GB),
        key=key_of("prefix", *known_by, spec.precision, spec.compile, *versions),
        search=CLIP.HALVES.get(spec.precision, torch.bfloat16 if spec.precision == "int8" else None),
    )


def open_encoder(spec: SystemSpec) -> Encoder:
    """What makes features of sentences; the text tower is only loaded when the cache lacks a sentence."""
    device, trunk = pick_device(spec.device, spec.deterministic), resolve(spec)
    known_by = (
        trunk.sha256,
        trunk.activation,
        spec.model_name,
        spec.precision if spec.precision in CLIP.HALVES else "",
    )
    key = key_of("text", *known_by, torch.__version__, device.type, torch.get_num_threads(), *_products(spec))
    cache = Cache(spec.cache_path, spec.cache_gb * GB)
    return Encoder(lambda: _load(spec, trunk, "text", device).to(device), cache, key, CLIP.config(spec.model_name)[0])


def encode_prompts(spec: SystemSpec, objects: Sequence[ObjectInfo]) -> list[EncodedPrompts]:
    """The prompts of every object under --prompts, encoded; the text tower is gone before the image tower comes."""
    encoded, device = [], pick_device(spec.device, spec.deterministic)
    with open_encoder(spec) as encoder:
        for info in objects:
            normal, abnormal = words = sentences(spec, info)
            told, text = {"normal": list(normal), "abnormal": list(abnormal)}, encoder.directions(*words).to(device)
            found = finding_texts(encoder, info, text) if isinstance(spec, PredictorSpec) else None
            encoded.append(EncodedPrompts(text, prompt.digest(*words), told, found))
    return encoded


def finding_texts(encoder: Encoder, info: ObjectInfo, text: Tensor) -> FindingTexts:
    """The findings that prompt.py has for an object, encoded, beside the normal one of its text directions (D, 2)."""
    words = prompt.findings(info.name, info.classname)
    return FindingTexts.of(text[:, 0], {finding: encoder.features(told) for finding, told in words.items()})


def sentences(spec: ModelSpec, info: ObjectInfo) -> tuple[list[str], list[str]]:
    """An object's (normal, abnormal) sentences under --prompts, with its own words in them."""
    return prompt.sentences(info.name, spec.prompts, classname=info.classname)


def objects_of(spec: DataSpec, *, all_medical: bool = False) -> list[str]:
    """The objects that --obj names, all the classes of "mvtec" and the like; --demo makes their images first.

    all_medical: the demo's other medical objects are wanted too (zero-shot training).
    Raises InputError for an object that the demo does not have.
    """
    names = dataset.expand(spec.obj)
    if not spec.demo:
        return names
    if spec.data_path == DATA:
        raise InputError(f"--demo draws its images into --data_path: name a folder for them alone, not {DATA}")
    made = [name for name in names if name in demo.OBJECTS]
    if not made:
        raise InputError(f"--obj {spec.obj} is not in the demo, which has: {', '.join(demo.OBJECTS)}")
    others = [name for name, made_of in demo.OBJECTS.items() if made_of.layout == "medical"] if all_medical else []
    with distributed.main_first():
        demo.ensure(spec.data_path, names=dict.fromkeys([*made, *others]))
    return made


def _products(spec: SystemSpec) -> tuple[bool, ...]:
    """Whose products they are on a CPU, which decides last digits."""
    half = CLIP.HALVES.get(spec.precision)
    return (linear.wide(),) if half is None else (linear.wide(), linear.packs(half), linear.has_units(half))


def _load(spec: SystemSpec, trunk: Trunk, tower: str, device: torch.device) -> CLIP.CLIP:
    """One tower of the CLIP, on the CPU, in the spec's precision. If it stays there, its weights in 16 bits are packed,
    unless torch.compile is to do as much."""
    chosen = {"trust": spec.trust_weights, "towers": (tower,), "precision": spec.precision}
    clip = CLIP.load_clip(spec.model_name, trunk.file, spec.img_size, trunk.activation, **chosen)
    if device.type == "cpu" and spec.precision in CLIP.HALVES:
        if tower == "text":
            CLIP.pack(clip.transformer, HALF * TYPICAL)
        elif not spec.compile:
            CLIP.pack(clip.visual.transformer, clip.visual.tokens(spec.img_size))
    return clip


def _activation(spec: ModelSpec) -> str | None:
    """The trunk's activation; None takes the one that the weights' file speaks for.

    The published code ("paper") runs OpenAI's weights with GELU unless the image size is the model's own. A bare
    state dict by --clip_path says nothing of itself: --pretrain, given beside it, says whose it is.
    """
    if spec.protocol == "paper" and spec.img_size != CLIP.config(spec.model_name)[1].image_size:
        return "gelu"
    if spec.pretrain is None:
        return None
    return "quickgelu" if _published(spec).quick_gelu else None


def _normalisation(spec: ModelSpec) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation that the weights were trained with; CLIP's own for a file of unknown origin."""
    if spec.pretrain is None:
        return CLIP.MEAN, CLIP.STD
    return _published(spec).mean, _published(spec).std


def _published(spec: ModelSpec) -> sources.WeightsSource:
    """Which published weights --pretrain names; beside --clip_path it only says whose the file is."""
    return sources.source(spec.model_name, spec.pretrain) if spec.clip_path is None else sources.kind(spec.pretrain)
