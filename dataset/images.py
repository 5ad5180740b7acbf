"""Images and masks: what a sample is, how files become tensors, and the check that they can be read.

Images are read as the published code reads them (PIL, `convert("RGB")`): an alpha channel is dropped, a
palette or 1-bit or CMYK image becomes RGB, an EXIF orientation is left alone (masks are drawn on the stored
pixels), and of a file with several frames the first counts. Pixels deeper than 8 bits, which that
conversion would clip, are scaled instead.
"""

import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from runtime import distributed
from runtime.bars import Bar
from runtime.errors import InputError
from runtime.flags import AUTO
from runtime.threads import processors

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # Pillow has more, some of which start other programs
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
COLOUR_FLOOR = 16  # a channel below this counts as black in a coloured mask: compression leaves such specks
BAR_FROM = 2000  # a progress bar when more files than this are checked
READERS, READERS_FROM = 8, 64  # processes at most; images, of which fewer are read before processes have started
SHARED, SHARED_BYTES = Path("/dev/shm"), 1 << 30  # where processes hand over what they read, and room for it
TENSORS = ("image", "known", "mask")  # of an item


@dataclass(frozen=True)
class Sample:
    """One image, its label (0 normal, 1 abnormal), and its mask's file (None: nothing marked)."""

    image: Path
    label: int
    mask: Path | None = None


def load_image(path: str | Path, size: int) -> torch.Tensor:
    """An image file -> float32 (3, size, size), RGB, in [0, 1]; bicubic, aspect ratio not kept.

    16-bit and float images are grey and scaled by the range that holds them: 255 if no value exceeds it,
    else 65535 (float: 1 if no value exceeds 1). Raises InputError naming a file that can't be read.
    """
    return to_unit(to_pixels(open_picture(path), size))


def load_pixels(path: str | Path, size: int) -> torch.Tensor:
    """What `to_unit` makes the image of that `load_image` gives: uint8 (3, size, size), of deep pixels float32."""
    return to_pixels(open_picture(path), size)


def open_picture(path: str | Path) -> Image.Image:
    """An image file at its own size, of mode RGB or, if deeper than 8 bits, F (grey in [0, 1]); see `load_image`."""
    return as_picture(_decoded(Path(path)), path)


def as_picture(image: Image.Image, name: object) -> Image.Image:
    """Any Pillow image as `open_picture` gives it; a fault is said of `name`."""
    return Image.fromarray(_unit_range(image, name)) if image.mode in DEEP_MODES else _rgb(image)


def to_pixels(picture: Image.Image, size: int) -> torch.Tensor:
    """A picture as `open_picture` gives it, or a part of one -> uint8 (3, size, size), of mode F float32 in [0, 1]."""
    small = torch.from_numpy(np.array(picture.resize((size, size), Image.Resampling.BICUBIC)))
    if picture.mode == "F":
        return small.clamp(0, 1).repeat(3, 1, 1)
    return small.permute(2, 0, 1).contiguous()


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as float32 in [0, 1], on whatever device with the same bits; float32 as they are."""
    return pixels.float() / _white(pixels.device) if pixels.dtype == torch.uint8 else pixels


@cache
def _white(device: torch.device) -> torch.Tensor:
    """A tensor, since CUDA multiplies by a number's inverse, which rounds otherwise."""
    return torch.full((), 255.0, device=device)


def to_rgb(picture: Image.Image) -> np.ndarray:
    """A picture as `open_picture` gives it -> uint8 (H, W, 3)."""
    if picture.mode == "F":
        return np.repeat((np.asarray(picture) * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    return np.array(picture)


def load_mask(path: str | Path, size: int) -> torch.Tensor:
    """A mask file -> float32 (1, size, size) of 0 and 1 (1: abnormal), nearest neighbour; see `read_mask`."""
    mask = Image.fromarray(read_mask(path).astype(np.uint8))
    small = np.array(mask.resize((size, size), Image.Resampling.NEAREST))
    return torch.from_numpy(small).to(torch.float32)[None]


def read_rgb(path: str | Path) -> np.ndarray:
    """An image file at its own size -> uint8 (H, W, 3), RGB; deep pixels scaled as in `load_image`."""
    return to_rgb(open_picture(path))


def read_mask(path: str | Path) -> np.ndarray:
    """A mask file at its own size -> bool (H, W), True where abnormal.

    Grey masks: more than half of the range (8 or 16 bits); where no value passes half, the values are class
    numbers (0/1, or VisA's kinds of defect) and any but 0 counts. Coloured masks, palette or RGB: any
    colour but black. Transparent pixels are background. Raises InputError naming a file that can't be read.
    """
    image = _decoded(Path(path))
    if image.mode == "1" or image.mode == "L" or image.mode in DEEP_MODES:
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise InputError(f"{path} has values that are not finite, so it is no mask; write it again")
        return _foreground(values)
    pixels = np.asarray(image.convert("RGBA"))
    colours = np.where(pixels[..., 3:] >= 128, pixels[..., :3], 0)  # (H, W, 3)
    if (colours == colours[..., :1]).all():
        return _foreground(colours[..., 0])
    return colours.max(axis=2) >= COLOUR_FLOOR


def _foreground(values: np.ndarray) -> np.ndarray:
    largest = values.max()
    half = (255 if largest <= 255 else 65535) / 2
    return values > (half if largest > half else 0)


@dataclass(frozen=True)
class Item:
    """One sample as tensors: its image (3, size, size) as `load_pixels` gives it, or what is known of it already; the
    mask (1, size, size), None if none are asked for."""

    path: Path
    image: torch.Tensor | None
    known: torch.Tensor | None
    mask: torch.Tensor | None
    label: int


class ImageSet(Dataset):
    """Samples as `Item`s, with `masks` or without. `known` may have of an image's path what spares decoding it."""

    def __init__(
        self,
        samples: Sequence[Sample],
        size: int,
        known: Callable[[Path], torch.Tensor | None] | None = None,
        masks: bool = True,
    ):
        self.samples = tuple(samples)
        self.size = size
        self.known = known
        self.masks = masks

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        known = None if self.known is None else self.known(sample.image)
        image = load_pixels(sample.image, self.size) if known is None else None
        return Item(sample.image, image, known, self._mask(sample) if self.masks else None, sample.label)

    def _mask(self, sample: Sample) -> torch.Tensor:
        return load_mask(sample.mask, self.size) if sample.mask else torch.zeros(1, self.size, self.size)


class Batches(DataLoader):
    """Lists of items, read ahead by workers, whose InputErrors arrive as the one line they were."""

    def __init__(self, images: Dataset, *args: object, num_workers: int = 0, **options: object):
        super().__init__(images, *args, num_workers=num_workers, collate_fn=_packed if num_workers else list, **options)

    def __iter__(self) -> Iterator[list[Item]]:
        try:
            yield from map(_unpacked, super().__iter__()) if self.num_workers else super().__iter__()
        except InputError as fault:
            last = str(fault).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")
            raise InputError(last) from fault.with_traceback(None)  # whose frames would keep the workers alive


Pack = list[tuple[list[int], torch.Tensor]]  # tensors of one kind as one, and the places of their items


def _packed(items: list[Item]) -> tuple[list[Item], dict[str, Pack]]:
    """Items without their tensors, and these in few: each goes from process to process by a file of its own."""
    packs: dict[str, Pack] = {}
    for name in TENSORS:
        alike: dict[tuple, list[int]] = {}
        for place, one in enumerate(getattr(item, name) for item in items):
            if one is not None:
                alike.setdefault((one.dtype, one.shape), []).append(place)
        packs[name] = [(places, torch.stack([getattr(items[at], name) for at in places])) for places in alike.values()]
    return [replace(item, image=None, known=None, mask=None) for item in items], packs


def _unpacked(given: tuple[list[Item], dict[str, Pack]]) -> list[Item]:
    """The items that were packed."""
    items, packs = given
    for name, pack in packs.items():
        for places, tensors in pack:
            for at, one in zip(places, tensors, strict=True):
                items[at] = replace(items[at], **{name: one})
    return items


def readers(asked: int | str, images: int, device: torch.device) -> int:
    """How many processes read so many images for a device: as many as asked for, or with `AUTO` as many as pay.

    For a CPU none, since the model keeps all of it busy; nor for few images, nor where processes are not forked (others
    import the user's script anew) or have no room to hand over batches. Else one a processor but one, of this process's
    share where several work on one job.
    """
    if asked != AUTO:
        return asked
    if device.type == "cpu" or images < READERS_FROM or not _may_fork():
        return 0
    return max(0, min(READERS, processors() // distributed.local_size() - 1))


def _may_fork() -> bool:
    """Whether this process may have forked ones, and there is room for what they hand over."""
    with suppress(OSError):
        room = shutil.disk_usage(SHARED).free
        forks = multiprocessing.get_start_method() == "fork" and not multiprocessing.current_process().daemon
        return forks and room >= SHARED_BYTES
    return False


def check_headers(samples: Sequence[Sample], name: str) -> None:
    """Read every header: InputError naming a file that is no image, or a mask of another size."""
    for sample in Bar(samples, f"checking {name}", unit="image", leave=False, disable=len(samples) <= BAR_FROM):
        size = image_size(sample.image)
        if sample.mask is not None:
            check_mask_size(sample.mask, image_size(sample.mask), sample.image, size)


def check_mask_size(mask: Path, mask_size: tuple[int, int], image: Path, size: tuple[int, int]) -> None:
    """InputError unless a mask is of its image's (width, height) `size`."""
    if mask_size != size:
        raise InputError(
            f"mask {mask} is {mask_size[0]}x{mask_size[1]} but its image {image} is {size[0]}x{size[1]}: "
            "export the mask at the image's size"
        )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels by the file's header; InputError naming a file that is no image."""
    with readable(path), Image.open(path, formats=FORMATS) as image:
        return image.size


def _decoded(path: Path) -> Image.Image:
    """The first frame of an image file, all its pixels in memory."""
    with readable(path), Image.open(path, formats=FORMATS) as image:
        image.load()
        return image


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a decoder throws at a damaged file into one line that names it."""
    try:
        with warnings.catch_warnings():
            # Decoders warn of what breaks a standard; whole slides are large on purpose, and Pillow still refuses twice
            # its limit.
            warnings.simplefilter("ignore")
            if path.exists() and not path.is_file():  # a pipe, on which reading would wait for ever
                raise InputError(f"{path} is a folder, pipe or device, not a file: take it away")
            yield
    except InputError:
        raise  # says already what is wrong
    except FileNotFoundError as fault:
        raise InputError(f"{path} is not there (a link to a missing file?): restore it or remove the link") from fault
    except Exception as fault:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        reason = str(fault).split(chr(10))[0].replace(str(path), "it") or type(fault).__name__
        raise InputError(f"{path} can't be read as an image ({reason}): replace it or take it away") from fault


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours as a direct conversion, which warns
    return image.convert("RGB")


def _unit_range(image: Image.Image, path: Path) -> np.ndarray:
    """Pixels of a 16-bit, 32-bit or float image -> float32 (H, W) in [0, 1]."""
    values = np.asarray(image).astype(np.float32)
    ranges = (1, 255, 65535) if image.mode == "F" else (255, 65535)
    fitting = [top for top in ranges if values.max() <= top]
    if not np.isfinite(values).all() or values.min() < 0 or not fitting:
        raise InputError(f"{path} holds values outside 0 to 65535: window it and save it with 8 or 16 bits")
    return values / fitting[0]
