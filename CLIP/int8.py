"""8-bit linear layers: weights scaled by output channel, activations by token as they come; sums are exact integers, or
on a CPU that is slow with integers, those integers' in float32 (exact up to 2^24).

For testing only: nothing here has a gradient. Norms, attention's softmax, adapters and scores stay in float32.
"""

import torch
from torch import Tensor, nn

from CLIP.model import Attention, Transformer
from runtime.linear import in_float32, library
from runtime.trial import remembered

STEPS = 127  # of a scale, on either side of zero
ROWS = 128  # of a weight, taken at a time
SLOW: bool | None = None  # whether products of integers are slower here than those of float32; None: nobody asked yet


def quantise(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (N, K) -> int8 (N, K) and the scale (N, 1) of each, float32: values ≈ integers · scale."""
    scale = values.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / STEPS
    return (values / scale).round_().to(torch.int8), scale


def quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`quantise` of a weight (N, K) of any float type, some rows at a time: between what stays, large passing copies
    would leave holes that take as much memory as float32 does. On the "meta" device, only the shapes."""
    integers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(len(weight), 1, device=weight.device)
    if not weight.is_meta:
        for first in range(0, len(weight), ROWS):
            rows = slice(first, first + ROWS)
            integers[rows], scales[rows] = quantise(weight[rows].float())
    return integers, scales


def slow() -> bool:
    """Whether this CPU is slower with products of integers than with those of float32, settled at the first call: on
    one with AVX2 alone PyTorch takes 12 times as long over small ones and 26 times over the trunk's."""
    global SLOW
    if SLOW is None:
        try:
            seconds = _trial()
            SLOW = seconds["integers"] > seconds["float32"]
        except (AttributeError, RuntimeError):  # a PyTorch without products of integers
            SLOW = True
    return SLOW


@torch.inference_mode()
def _trial() -> dict[str, float]:
    """Seconds of one core that a small product takes in either way, once a machine."""
    rows, weight = (torch.ones(*shape, dtype=torch.int8, device="cpu") for shape in ((32, 1024), (512, 1024)))
    calls = {"integers": lambda: torch._int_mm(rows, weight.T), "float32": lambda: in_float32(rows, weight)}
    return remembered(f"8-bit products, float32 by {library()}", calls)


def linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """x (..., K) by an int8 weight (N, K) with scale (N, 1) and bias (N,) -> (..., N)."""
    rows, row_scale = quantise(x.reshape(-1, x.shape[-1]))
    floats = x.device.type == "cpu" and slow()
    sums = in_float32(rows, weight) if floats else torch._int_mm(rows, weight.T)  # (M, N) whole numbers
    return torch.addcmul(bias, sums * scale.T, row_scale).view(*x.shape[:-1], -1)


def scale_name(name: str) -> str:
    """Where the scale of the weight `name` is kept."""
    return f"{name.removesuffix('weight')}scale"


class Int8Linear(nn.Module):
    """(..., K) -> (..., N)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantise_weight(layer.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.scale, self.bias)


class Int8Attention(Attention):
    """`Attention` whose two projections are 8-bit."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.heads = attention.heads
        weight, scale = quantise_weight(attention.in_proj_weight.detach())
        self.register_buffer("in_proj_weight", weight)
        self.register_buffer("in_proj_scale", scale)
        self.register_buffer("in_proj_bias", attention.in_proj_bias.detach())
        self.out_proj = Int8Linear(attention.out_proj)

    def project(self, x: Tensor) -> Tensor:
        return linear(x, self.in_proj_weight, self.in_proj_scale, self.in_proj_bias)


def to_int8(transformer: Transformer) -> None:
    """Replace the linear layers of every block, in place; those of a "meta" model become empty 8-bit ones."""
    slow()  # the trial comes before torch.compile, which would take it into its graph
    for block in transformer.resblocks:
        block.attn = Int8Attention(block.attn)
        block.mlp.c_fc, block.mlp.c_proj = Int8Linear(block.mlp.c_fc), Int8Linear(block.mlp.c_proj)
