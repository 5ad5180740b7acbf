"""What a training step and a scored image are on paper: counted operations and bytes, and the seconds these would take.

    python -m benchmarks.flops              (flops.md; seconds, on any machine)

Nothing is computed: the method's own code runs on PyTorch's "meta" device, where tensors have shapes and no numbers. Of
every kernel its floating-point operations are counted, and the bytes of what it reads and writes, as if nothing stayed
in a cache. A kernel then takes as long as the slower of the two at the rates of DEVICES. What is not a training step,
which is recorded and started whole, takes at least LAUNCH seconds a kernel: Python starts them one after the other.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import CLIP
from decoder import MDecoder, default_taps, upsample
from loss import adapter_loss
from runtime import linear
from runtime.errors import exit_code
from runtime.files import atomic_write
from runtime.threads import MOST
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import patch_scores
from utils import VARIANTS

MODEL, SIZE, SHOT = "ViT-L-14-336", 240, 4
EPOCHS, TEST = 50, 3715  # of the budget: 4-shot Brain, as published
BATCH = 16  # images scored at once
LAUNCH = 10e-6  # seconds a kernel costs the host, assumed
REACHED = {"fp32": 0.7, "bf16": 0.5, "memory": 0.8}  # of the data sheets' rates, assumed
DECODE, FIGURES = 1.2e-3, 2.9e-3  # seconds an image: of one CPU core, measured (docs/gpu.md)
OUT = Path(__file__).with_name("flops.md")
META, ADAM = torch.device("meta"), "fused Adam"


@dataclass(frozen=True)
class Device:
    """A device by its data sheet: float32 and bfloat16 products in FLOP/s (None: no faster), memory in bytes/s."""

    name: str
    fp32: float
    bf16: float | None
    memory: float

    def seconds(self, kernels: "list[Kernel]", precision: str = "fp32") -> float:
        """Of all kernels, one after the other, those of a training step recorded; precision: of those that --precision
        is of."""
        busy = sum(self._seconds(one, precision if one.half else "fp32") for one in kernels)
        return max(busy, LAUNCH * (1 if kernels[-1].name == ADAM else len(kernels)))

    def _seconds(self, one: "Kernel", precision: str) -> float:
        rate, size = (self.bf16, 0.5) if precision == "bf16" else (self.fp32, 1.0)
        return max(one.flops / (REACHED[precision] * rate), size * one.bytes / (REACHED["memory"] * self.memory))


DEVICES = (
    Device("A40", 37.4e12, 149.7e12, 696e9),
    Device("H100 SXM", 66.9e12, 989.4e12, 3350e9),
    Device("M3 (10 GPU cores)", 3.5e12, None, 100e9),
)


@dataclass(frozen=True)
class Kernel:
    """One operation: its floating-point operations, bytes read and written, and whether --precision is of it."""

    name: str
    flops: float
    bytes: float
    half: bool = False


@dataclass
class Counter(TorchDispatchMode):
    """Notes the kernels of what runs meanwhile; views and empty tensors are none."""

    kernels: list[Kernel] = field(default_factory=list)
    half: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if not (func.is_view or name in ("detach", "_unsafe_view") or name.startswith(("empty", "new_empty"))):
            flops = operations(func._overloadpacket, args, kwargs or {}, found)
            touched = [*tensors(args), *tensors((found,))]
            self.kernels.append(Kernel(name, flops, sum(one.nbytes for one in touched), self.half))
        return found


def operations(packet: Any, args: tuple, kwargs: dict, found: Any) -> float:
    """Floating-point operations of a kernel: of products, attention and Fourier transforms; of others one a number."""
    if packet in flop_registry:
        return flop_registry[packet](*args, **kwargs, out_val=found)
    if packet is torch.ops.counted.attention:
        return attention_flops(args[0])
    if packet is torch.ops.counted.attention_backward:
        return 2.5 * attention_flops(args[0])  # five products for the forward's two
    many = max((one.numel() for one in tensors((found,))), default=0)
    return 2.5 * many * math.log2(many) if packet.__name__.startswith("_fft") else many


def attention_flops(q: Tensor) -> float:
    """Of one attention, q (B, nh, L, hs): two products."""
    return 4.0 * q.numel() * q.shape[2]


def tensors(tree: Any) -> Iterator[Tensor]:
    """Those in tuples and lists within each other."""
    for one in tree:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (tuple, list)):
            yield from tensors(one)


# The fused attention, which on "meta" would be taken apart: what it reads and writes, and no matrix (L, L) of it.
@torch.library.custom_op("counted::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, nh, L, hs), without numbers."""
    return torch.empty_like(q)


@torch.library.custom_op("counted::attention_backward", mutates_args=())
def attention_backward(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three times (B, nh, L, hs), without numbers."""
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


attention.register_fake(lambda q, k, v: torch.empty_like(q))
attention_backward.register_fake(lambda q, k, v, grad: tuple(torch.empty_like(one) for one in (q, k, v)))
attention.register_autograd(
    lambda ctx, grad: attention_backward(*ctx.saved_tensors, grad),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@contextmanager
def counted() -> Iterator[Counter]:
    """The kernels of what runs meanwhile, those of the trunk's blocks and of the adapters told from the rest."""
    counter = Counter()

    def marked(part: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            counter.half = True
            try:
                return part(*given)
            finally:
                counter.half = False

        return run

    def fused(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
        return attention(q, k, v)

    attends = patch("torch.nn.functional.scaled_dot_product_attention", fused)
    parts = {name: marked(getattr(MDecoder, name)) for name in ("blocks", "adapt")}
    with attends, patch.multiple(MDecoder, **parts), linear.plain(), counter:
        yield counter


def model(name: str | Path = MODEL, size: int = SIZE) -> MDecoder:
    """The decoder without numbers, its positions as many as an image of that size has."""
    with META:
        clip = CLIP.build(name, "gelu")
        side = size // clip.visual.patch_size
        clip.visual.positional_embedding = nn.Parameter(torch.empty(1 + side**2, clip.vision_config.width))
        clip.visual.grid = side
        return MDecoder(clip.requires_grad_(False), default_taps(clip.vision_config.layers))


def token_shape(decoder: MDecoder) -> tuple[int, int]:
    """Of an image's trunk tokens, (L, C)."""
    return decoder.visual.grid**2 + 1, len(decoder.visual.class_embedding)


def pixels(decoder: MDecoder) -> tuple[int, int]:
    """Of an image, those that its patches cover."""
    return (decoder.visual.grid * decoder.visual.patch_size,) * 2


@torch.no_grad()
def prefix(decoder: MDecoder, batch: int = 1) -> list[Kernel]:
    """Images as far as the first tap."""
    images = torch.empty(batch, 3, *pixels(decoder), device=META)
    with counted() as counter:
        decoder.prefix(images)
    return counter.kernels


@torch.no_grad()
def scored(decoder: MDecoder, batch: int = BATCH, bank: int = SHOT * VARIANTS, head: str = "seg") -> list[Kernel]:
    """What follows prefix tokens of a batch of test images: tokens, likeness to the words, distances to a bank of so
    many images."""
    tokens, width = token_shape(decoder)[0], decoder.token_width
    levels = [torch.empty(bank * tokens, width, device=META) for _ in decoder.taps]
    known, text = torch.empty(batch, *token_shape(decoder), device=META), torch.empty(width, 2, device=META)
    with counted() as counter:
        found = decoder.decode(known, (head,), pooled=False).tokens(head)
        counter.half = True  # the nearest tokens are sought in 16 bits; the rest of it is little
        patch_scores(found, text, MemoryBank(levels))
    return counter.kernels


def step(decoder: MDecoder, batch: int = 1) -> list[Kernel]:
    """A training step of an object with masks, prefix tokens known: forward, backward, Adam."""
    known = torch.empty(batch, *token_shape(decoder), device=META)
    decoder.zero_grad()
    text, labels = torch.empty(decoder.token_width, 2, device=META), torch.empty(batch, device=META)
    masks = torch.empty(batch, 1, *pixels(decoder), device=META)
    side = round((token_shape(decoder)[0] - 1) ** 0.5)
    upsample(torch.empty(1, 1, side, side, device=META), masks.shape[-1])  # whose weights are made once
    with counted() as counter:
        adapter_loss(decoder.decode(known, pooled=False), text, labels, masks).backward()
    trained = sum(one.nbytes for one in decoder.parameters() if one.requires_grad)
    return [*counter.kernels, Kernel(ADAM, 3 * trained, 7 * trained)]


def bank(decoder: MDecoder, head: str = "seg") -> list[Kernel]:
    """The tokens of one normal image, prefix tokens known, as an evaluation fills the bank with them."""
    with torch.no_grad(), counted() as counter:
        decoder.decode(torch.empty(1, *token_shape(decoder), device=META), (head,), pooled=False)
    return counter.kernels


def measures(decoder: MDecoder) -> dict[str, tuple[list[Kernel], int]]:
    """Rows of the table: kernels, and of how many images."""
    return {
        "first blocks of an image": (prefix(decoder, BATCH), BATCH),
        "scored image, first blocks known": (scored(decoder, BATCH), BATCH),
        "the same, one at a time": (scored(decoder, 1), 1),
        "training step, first blocks known": (step(decoder, 1), 1),
        "the same, 16 images a step": (step(decoder, BATCH), BATCH),
    }


def table(rows: dict[str, tuple[list[Kernel], int]]) -> list[str]:
    """Counts and milliseconds an image, of every device in float32, and in bf16 where it is faster and nothing is
    trained."""
    names = [f"{one.name}{end}" for one in DEVICES for end in ("", ", bf16")[: 1 + bool(one.bf16)]]
    lines = [f"| an image | GFLOP | MB | kernels | {' | '.join(names)} |", f"|---{'|---' * (3 + len(names))}|"]
    for name, (kernels, images) in rows.items():
        counts = [sum(getattr(one, what) for one in kernels) / images for what in ("flops", "bytes")]
        cells = [f"{counts[0] / 1e9:.1f}", f"{counts[1] / 1e6:,.0f}", f"{len(kernels) / images:,.0f}"]
        trained = kernels[-1].name == ADAM
        for one in DEVICES:
            cells.append(f"{1e3 * one.seconds(kernels) / images:.1f} ms")
            if one.bf16:
                cells.append("–" if trained else f"{1e3 * one.seconds(kernels, 'bf16') / images:.1f} ms")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def budget(decoder: MDecoder, device: Device, precision: str) -> dict[str, float]:
    """Seconds of 4-shot Brain: what a run of EPOCHS epochs with an evaluation after each is made of."""
    images, support = EPOCHS * TEST, 2 * SHOT * VARIANTS
    once = device.seconds(prefix(decoder, BATCH), precision) / BATCH
    banked, each = device.seconds(bank(decoder), precision), device.seconds(scored(decoder), precision) / BATCH
    return {
        "first blocks of the support and of the test images, once": (support + TEST) * once,
        f"test images read and decoded, once, {1e3 * DECODE:.1f} ms each": TEST * DECODE,
        f"{EPOCHS * support:,} training steps of one image": EPOCHS * support * device.seconds(step(decoder)),
        f"{EPOCHS} banks of {SHOT * VARIANTS} images": EPOCHS * SHOT * VARIANTS * banked,
        f"{images:,} images scored": images * each,
        f"{EPOCHS} times the figures, {1e3 * FIGURES:.1f} ms an image of {MOST} cores": images * FIGURES / MOST,
    }


def budget_table(decoder: MDecoder, device: Device) -> list[str]:
    """What runs in both precisions take, with their sums."""
    columns = {precision: budget(decoder, device, precision) for precision in ("fp32", "bf16")}
    head = f"| {device.name}: {EPOCHS} epochs, {EPOCHS} evaluations"
    lines = [f"{head} | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    rows = [(name, *(column[name] for column in columns.values())) for name in columns["fp32"]]
    for name, *seconds in [*rows, ("in all", *(sum(column.values()) for column in columns.values()))]:
        lines.append(f"| {name} | {' | '.join(f'{one:,.0f} s' for one in seconds)} |")
    return lines


def main() -> None:
    """Write and print both tables."""
    decoder = model()
    lines = [f"`python -m benchmarks.flops`: {MODEL}, {SIZE} px, nothing measured but what the text says.", ""]
    lines += [*table(measures(decoder)), "", *budget_table(decoder, DEVICES[0])]
    with atomic_write(OUT) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, sep="\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))
