"""Build the parts of a run from its options: CLIP, decoder, prompts, protocol."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import PIL
import torch

import CLIP
import prompt
from CLIP import weights
from dataset import ObjectInfo
from decoder import MDecoder, default_taps
from engine.system import System
from engine.text import Encoder
from runtime import distributed, linear
from runtime.cache import Cache, key_of
from utils import pick_device

GB = 1 << 30


def build(args: argparse.Namespace, adapter: str | None = None) -> System:
    """The system that the options ask for, adapters at their random start. `adapter` overrides --adapter.

    Raises InputError for weights that are missing or wrong, and for taps the trunk does not have.
    """
    device = pick_device(args.device)
    path = weights_file(args)
    clip = load(args, path, "image", int8=args.precision == "int8")
    taps = tuple(args.features_list or default_taps(clip.vision_config.layers))
    args.features_list = list(taps)
    torch.manual_seed(args.seed)
    decoder = MDecoder(
        clip,
        taps,
        adapter or args.adapter,
        branches=args.madff,
        axis=args.madff_axis,
        precision=args.precision,
        compiled=args.compile,
    )
    digest = weights.weights_hash(path)
    normalised = normalisation(args) if args.protocol == "sound" else None
    versions = (torch.__version__, PIL.__version__, device.type, torch.get_num_threads(), linear.WIDE)
    known_by = (digest, clip.activation, clip.vision_config, args.img_size, normalised, taps[0], args.precision)
    return System(
        decoder=decoder.to(device),
        device=device,
        size=args.img_size,
        normalisation=normalised,
        weights_sha256=digest,
        cache=Cache(args.cache_path, args.cache_gb * GB),
        key=key_of("stem", *known_by, args.compile, *versions),
    )


def encoder(args: argparse.Namespace) -> Encoder:
    """What makes directions of sentences; the text tower is only loaded when the cache lacks a sentence."""
    path = weights_file(args)
    device = pick_device(args.device)
    known_by = (weights.weights_hash(path), activation(args), str(args.model_name))
    key = key_of("text", *known_by, torch.__version__, device.type, torch.get_num_threads(), linear.WIDE)
    cache = Cache(args.cache_path, args.cache_gb * GB)
    return Encoder(lambda: load(args, path, "text").to(device), cache, key)


def weights_file(args: argparse.Namespace) -> Path:
    """The file of CLIP's weights."""
    with distributed.main_first():
        return weights.find(args.model_name, args.pretrain, args.clip_path, args.offline)


def load(args: argparse.Namespace, path: Path, tower: str, int8: bool = False) -> CLIP.CLIP:
    """One tower of the CLIP that the options ask for."""
    return CLIP.load_clip(
        args.model_name, path, args.img_size, activation(args), trust=args.trust_weights, towers=(tower,), int8=int8
    )


def activation(args: argparse.Namespace) -> str | None:
    """The trunk's activation; None takes the one that the weights' file speaks for.

    The published code ("paper") runs OpenAI's weights with GELU unless the image size is the model's own. A bare
    state dict by --clip_path says nothing of itself: --pretrain, given beside it, says whose it is.
    """
    if args.protocol == "paper" and args.img_size != CLIP.config(args.model_name)[1].image_size:
        return "gelu"
    if args.pretrain is None:
        return None
    return "quickgelu" if published(args).quick_gelu else None


def normalisation(args: argparse.Namespace) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation that the weights were trained with; CLIP's own for a file of unknown origin."""
    if args.pretrain is None:
        return CLIP.MEAN, CLIP.STD
    return published(args).mean, published(args).std


def published(args: argparse.Namespace) -> weights.Source:
    """Which published weights --pretrain names; beside --clip_path it only says whose the file is."""
    return weights.source(args.model_name, args.pretrain) if args.clip_path is None else weights.kind(args.pretrain)


def sentences(args: argparse.Namespace, info: ObjectInfo) -> tuple[list[str], list[str]]:
    """The object's prompts under --prompts and --classname."""
    return prompt.sentences(info.name, args.prompts, classname=info.classname)
