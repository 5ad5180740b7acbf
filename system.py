"""Build the parts of a run from its options, and take images through them: CLIP, decoder, prompts, protocol."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor
from tqdm import tqdm

import CLIP
import dataset
import distributed
import linear
import prompt
from bank import MemoryBank
from cache import Cache, key_of
from CLIP import weights
from dataset import Batches, ImageSet, Item, ObjectInfo, Sample, demo, load_mask
from decoder import HEADS, Decoded, MDecoder, default_taps
from errors import InputError
from evaluation import Masks
from scoring import Readings, read
from text import Encoder
from utils import pick_device

GB = 1 << 30
MASKS_IN_MEMORY = 1 << 29  # pixels, a byte each
BAR_FROM = 200  # images; scoring fewer is over before a progress bar helps


@dataclass
class System:
    """The model at work on images: trunk stems, then tokens, then readings."""

    decoder: MDecoder
    device: torch.device
    size: int
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None  # mean and deviation of RGB, or none
    weights_sha256: str = ""
    cache: Cache = field(default_factory=lambda: Cache("", 0))
    key: str = ""  # names all that a stem depends on beside its image

    @torch.no_grad()
    def stem(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1], on any device -> the first tap's tokens (B, L, C), which know no adapter.

        The protocol's normalisation is in here. On a CPU images go one by one: batching gains nothing there, and so a
        score never depends on the company an image is in. Elsewhere the whole batch goes at once.
        """
        images = self.normalise(images.to(self.device, non_blocking=True))
        return torch.cat([self.decoder.stem(part) for part in self._apart(images)])

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] as the trunk wants them; the same shape."""
        if self.normalisation is None:
            return images
        mean, std = (torch.tensor(part, device=images.device).view(3, 1, 1) for part in self.normalisation)
        return (images - mean) / std

    def stems(self, items: Sequence[Item], keep: bool) -> Tensor:
        """Stems (B, L, C) of items; those not known are computed, and with `keep` go to the cache."""
        new = [item for item in items if item.known is None]
        computed = iter(self.stem(torch.stack([item.image for item in new]))) if new else iter(())
        stems = []
        for item in items:
            stem = next(computed) if item.known is None else item.known.to(self.device, non_blocking=True)
            if item.known is None and keep:
                self.known_stems.keep(item.path, stem)
            stems.append(stem)
        return torch.stack(stems) if stems else torch.empty(0)

    def adapters_digest(self) -> str:
        """A hash of the adapters as they are now."""
        decoder = self.decoder
        tensors = (tensor for heads in HEADS for tensor in getattr(decoder, heads).state_dict().values())
        weights = (key_of(tensor.cpu().numpy().tobytes()) for tensor in tensors)  # one copied at a time
        return key_of(decoder.kind, decoder.taps, decoder.wiring, *weights)

    @property
    def known_stems(self) -> "StemFiles":
        """The stems that earlier epochs and runs kept."""
        return StemFiles(self.cache, self.key)

    @torch.inference_mode()
    def tokens(self, stems: Tensor, heads: Sequence[str]) -> Iterator[Decoded]:
        """Tokens for scoring, of `heads` alone; on a CPU image by image."""
        for part in self._apart(stems):
            yield self.decoder.decode(part, heads, pooled=False)

    def levels(self, stems: Iterable[Tensor], head: str) -> list[Tensor]:
        """All tokens of stems (1, L, C) of the "seg" or the "det" head, (V, L, h) a tap."""
        parts = [decoded.tokens(head) for part in stems for decoded in self.tokens(part, (head,))]
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def read(
        self, stems: Tensor, heads: Sequence[str], text: Tensor | None, banks: dict[str, MemoryBank]
    ) -> dict[str, Readings]:
        """Grid values of stems (B, L, C) by head; no text, or no bank of a head, switches that branch off."""
        parts = [
            {head: self.reading(decoded.tokens(head), text, banks.get(head)) for head in heads}
            for decoded in self.tokens(stems, heads)
        ]
        return {head: Readings.join([part[head] for part in parts]) for head in heads}

    @torch.inference_mode()
    def reading(
        self, tokens: list[Tensor], text: Tensor | None, bank: MemoryBank | None, without: int | None = None
    ) -> Readings:
        """Grid values of one head's tokens; arguments as in `scoring.read`."""
        return read(tokens, text, bank, without, None if text is None else self.decoder.joint(tokens))

    def _apart(self, batch: Tensor) -> tuple[Tensor, ...]:
        return batch.split(1 if self.device.type == "cpu" else max(1, len(batch)))


@dataclass(frozen=True)
class StemFiles:
    """The stems that the cache has of image files, found by the files' bytes."""

    cache: Cache
    key: str

    def __call__(self, path: Path) -> Tensor | None:
        """The stem (L, C) of an image file, None if it is not known."""
        if not self.cache.limit:
            return None  # without reading the file for nothing
        try:
            found = self.cache.get(key_of(self.key, path.read_bytes()))
        except OSError:
            return None  # whoever decodes the file will say what is wrong with it
        return None if found is None else found["stem"]

    def keep(self, path: Path, stem: Tensor) -> None:
        """Note a stem that was computed."""
        if self.cache.limit:
            self.cache.put(key_of(self.key, path.read_bytes()), {"stem": stem})


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
    with distributed.main_first():
        demo.ensure(args.data_path, names=dict.fromkeys([*made, *others]))
    return made


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


def survey(
    system: System,
    samples: Sequence[Sample],
    heads: Sequence[str],
    text: Tensor | None,
    banks: dict[str, MemoryBank],
    *,
    batch_size: int = 16,
    workers: int = 0,
    keep: bool = False,
) -> dict[str, Readings]:
    """Grid values of all samples by head, in their order; images are decoded ahead by `workers` processes.

    Stems that the cache has come from there; keep: the others go there, since these images will be seen again.
    """
    mine = distributed.share(samples) if len(samples) >= distributed.world() else samples
    images = ImageSet([replace(sample, mask=None) for sample in mine], system.size, system.known_stems)
    hidden = len(samples) < BAR_FROM or not distributed.main_process()
    batches = Batches(images, batch_size, num_workers=workers, pin_memory=system.device.type == "cuda")
    bar = tqdm(batches, desc="scoring", unit="batch", leave=False, disable=hidden)
    found, done = {}, 0
    for items in bar:
        part = system.read(system.stems(items, keep), heads, text, banks)
        found = found or {head: part[head].room(len(mine)) for head in heads}  # no tensor a batch: see `scoring.chunks`
        for head in heads:
            found[head].put(done, part[head])
        done += len(items)
    if len(mine) == len(samples):
        return found
    return {head: readings.together(len(samples)) for head, readings in found.items()}


def truth(samples: Sequence[Sample], size: int, masks: bool) -> tuple[np.ndarray, Masks | None]:
    """Labels (N,) in {0, 1}, and with masks what is abnormal, bool (N, S, S): read now, or when asked for if many."""
    labels = np.array([sample.label for sample in samples])
    if not masks:
        return labels, None
    files = MaskFiles(samples, size)
    return labels, files[:] if len(samples) * size**2 <= MASKS_IN_MEMORY else files


@dataclass(frozen=True)
class MaskFiles:
    """The masks of samples, bool (N, S, S), read when rows are asked for."""

    samples: Sequence[Sample]
    size: int

    def __getitem__(self, rows: slice) -> np.ndarray:
        samples = self.samples[rows]
        abnormal = np.zeros((len(samples), self.size, self.size), bool)
        for row, sample in enumerate(samples):
            if sample.mask is not None:
                abnormal[row] = load_mask(sample.mask, self.size)[0].numpy() > 0.5
        return abnormal
