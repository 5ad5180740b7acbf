"""Images of a set that is scored again and again, held in memory from the first time on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dataset import Batches, ImageSet, Sample, load_pixels, readers
from engine.system import FLOAT, System
from runtime import distributed, memory
from runtime.devices import to_device

SHARE = 0.5  # of a device's free memory, for held images
HOST_BYTES = 8 << 30  # of the host's memory, for all processes of a job
TOKENS, PIXELS, HOST, NOWHERE = "tokens", "pixels", "pixels in the host's memory", "nowhere"


def place_for(count: int, tokens: int, pixels: int, free: int) -> str:
    """How `count` images are held, each of so many bytes, for a device with so many free: as prefix tokens on it, as
    pixels on it, as pixels in the host's memory. What takes least time is chosen of what has room."""
    if count * tokens <= SHARE * free:
        return TOKENS
    if count * pixels <= SHARE * free:
        return PIXELS
    return HOST if count * pixels <= HOST_BYTES // distributed.local_size() else NOWHERE


@dataclass
class HeldImages:
    """The images of one set, from its first pass on; of later ones no file is read, and but from the host's memory
    nothing is copied. `batches` of prefix tokens (B, L, C) or images (B, 3, S, S); whole: all of them are there."""

    place: str = NOWHERE
    batches: list[Tensor] = field(default_factory=list)
    whole: bool = False

    def prefixes(
        self, system: System, samples: Sequence[Sample], batch_size: int, workers: int | str, keep: bool
    ) -> Iterator[Tensor]:
        """Prefix tokens (B, L, C) of the set, on the device; the same samples every time. The rest is as in `read`."""
        if self.whole:
            yield from self.batches if self.place == TOKENS else map(system.prefix, self.batches)
            return
        self.batches.clear()  # of a pass that was broken off
        tokens, width = system.token_shape
        pixels = load_pixels(samples[0].image, system.size).nbytes
        self.place = place_for(len(samples), FLOAT * tokens * width, pixels, memory.free_bytes(system.device))
        if self.place in (TOKENS, NOWHERE):
            for prefixes in read(system, samples, batch_size, workers, keep):
                if self.place == TOKENS:
                    self.batches.append(prefixes)
                yield prefixes
        else:
            for items in batches_of(system, samples, batch_size, workers, known=False):
                images = system.stacked(items)
                self.batches.append(images if self.place == HOST else to_device(images, system.device))
                yield system.prefix(self.batches[-1])
        self.whole = self.place != NOWHERE


def read(
    system: System, samples: Sequence[Sample], batch_size: int, workers: int | str, keep: bool
) -> Iterator[Tensor]:
    """Prefix tokens (B, L, C) of samples in their order, on the device: those that the cache has are read, others
    computed of their files, which `workers` processes decode ahead; keep: these go to the cache where that pays."""
    for items in batches_of(system, samples, batch_size, workers, known=True):
        yield system.prefixes(items, keep)


def batches_of(system: System, samples: Sequence[Sample], batch_size: int, workers: int | str, known: bool) -> Batches:
    """Items of samples, without masks, with what the cache knows of them or without."""
    images = ImageSet(samples, system.size, system.known_prefixes if known else None, masks=False)
    return Batches(images, batch_size, num_workers=readers(workers, len(samples), system.device))
