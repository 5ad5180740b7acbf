"""Build the parts of a run from its options, and take images through them: CLIP, decoder, prompts, protocol."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import CLIP
import dataset
import prompt
from CLIP import weights
from dataset import Batches, ImageSet, ObjectInfo, Sample, demo, load_mask
from decoder import Decoded, MDecoder, default_taps
from errors import InputError
from scoring import MemoryBank, Readings, read
from text import text_features
from utils import pick_device

BAR_FROM = 200  # images; scoring fewer is over before a progress bar helps


@dataclass
class System:
    """The model at work: tokens of images, and text directions of objects."""

    clip: CLIP.CLIP
    decoder: MDecoder
    device: torch.device
    size: int
    normalisation: tuple[Sequence[float], Sequence[float]] | None  # mean and deviation of RGB, or none
    weights_sha256: str

    def decode(self, images: Tensor) -> Decoded:
        """Images (B, 3, S, S) in [0, 1], on any device -> tokens; the protocol's normalisation is in here."""
        images = images.to(self.device, non_blocking=True)
        if self.normalisation is not None:
            mean, std = (torch.tensor(part, device=self.device).view(3, 1, 1) for part in self.normalisation)
            images = (images - mean) / std
        return self.decoder(images)

    def text(self, sentences: tuple[Sequence[str], Sequence[str]]) -> Tensor:
        """Directions (D, 2) of {normal, abnormal} sentences."""
        return text_features(self.clip, *sentences)

    @torch.inference_mode()
    def tokens(self, images: Tensor) -> Iterator[Decoded]:
        """Tokens of a batch for scoring. On a CPU images go one by one: batching gains nothing there, and so
        a score never depends on the company an image is in. Elsewhere the whole batch goes at once."""
        for part in images.split(1 if self.device.type == "cpu" else len(images)):
            yield self.decode(part)

    def levels(self, images: Tensor, head: str) -> list[Tensor]:
        """All tokens of images (V, 3, S, S) of the "seg" or the "det" head, (V, L, h) a tap."""
        parts = [head_tokens(decoded, head) for decoded in self.tokens(images)]
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def read(
        self, images: Tensor, heads: Sequence[str], text: Tensor | None, banks: dict[str, MemoryBank]
    ) -> dict[str, Readings]:
        """Grid values of a batch (B, 3, S, S) by head; no text, or no bank of a head, switches that branch off."""
        parts = [
            {head: read(head_tokens(decoded, head), text, banks.get(head)) for head in heads}
            for decoded in self.tokens(images)
        ]
        return {head: Readings.join([part[head] for part in parts]) for head in heads}


def head_tokens(decoded: Decoded, head: str) -> list[Tensor]:
    """The token lists of the "seg" or the "det" head."""
    return decoded.seg_tokens if head == "seg" else decoded.det_tokens


def objects(args: argparse.Namespace, *, all_medical: bool = False) -> list[str]:
    """The objects that --obj names, all the classes of "mvtec" and the like; --demo makes their images first.

    all_medical: the demo's other medical objects are wanted too (zero-shot training).
    Raises InputError for an object that the demo does not have.
    """
    names = dataset.expand(args.obj)
    if not args.demo:
        return names
    made = [name for name in names if name in demo.OBJECTS]
    if not made:
        raise InputError(f"--obj {args.obj} is not in the demo, which has: {', '.join(demo.OBJECTS)}")
    others = [name for name, made_of in demo.OBJECTS.items() if made_of.layout == "medical"] if all_medical else []
    demo.ensure(args.data_path, names=dict.fromkeys([*made, *others]))
    return made


def build(args: argparse.Namespace, adapter: str | None = None) -> System:
    """The system that the options ask for, adapters at their random start. `adapter` overrides --adapter.

    Raises InputError for weights that are missing or wrong, and for taps the trunk does not have.
    """
    device = pick_device(args.device)
    path = weights.find(args.model_name, args.pretrain, args.clip_path, args.offline)
    clip = CLIP.load_clip(args.model_name, path, args.img_size, activation(args), trust=args.trust_weights)
    taps = tuple(args.features_list or default_taps(clip.vision_config.layers))
    args.features_list = list(taps)
    torch.manual_seed(args.seed)
    decoder = MDecoder(clip, taps, adapter or args.adapter, branches=args.madff, axis=args.madff_axis)
    return System(
        clip=clip.to(device),
        decoder=decoder.to(device),
        device=device,
        size=args.img_size,
        normalisation=normalisation(args) if args.protocol == "sound" else None,
        weights_sha256=weights.weights_hash(path),
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


def survey(
    system: System,
    samples: Sequence[Sample],
    heads: Sequence[str],
    text: Tensor | None,
    banks: dict[str, MemoryBank],
    *,
    batch_size: int = 16,
    workers: int = 0,
) -> dict[str, Readings]:
    """Grid values of all samples by head, in their order; images are decoded ahead by `workers` processes."""
    images = ImageSet([replace(sample, mask=None) for sample in samples], system.size)
    pinned = system.device.type == "cuda"
    batches = Batches(images, batch_size, num_workers=workers, pin_memory=pinned)
    bar = tqdm(batches, desc="scoring", unit="batch", leave=False, disable=len(samples) < BAR_FROM)
    parts = [system.read(batch["image"], heads, text, banks) for batch in bar]
    return {head: Readings.join([part[head] for part in parts]) for head in heads}


def truth(samples: Sequence[Sample], size: int, masks: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels (N,) in {0, 1}, and with masks what is abnormal, bool (N, S, S)."""
    labels = np.array([sample.label for sample in samples])
    if not masks:
        return labels, None
    abnormal = np.zeros((len(samples), size, size), bool)
    for row, sample in enumerate(samples):
        if sample.mask is not None:
            abnormal[row] = load_mask(sample.mask, size)[0].numpy() > 0.5
    return labels, abnormal
