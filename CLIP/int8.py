"""8-bit linear layers: weights scaled by output channel, activations by token as they come; sums are exact integers.

For testing only: nothing here has a gradient. Norms, attention's softmax, adapters and scores stay in float32.
"""

import torch
from torch import Tensor, nn

from CLIP.model import Attention, Transformer

STEPS = 127  # of a scale, on either side of zero
ROWS = 128  # of a weight, taken at a time


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


def linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """x (..., K) by an int8 weight (N, K) with scale (N, 1) and bias (N,) -> (..., N)."""
    rows, row_scale = quantise(x.reshape(-1, x.shape[-1]))
    sums = torch._int_mm(rows, weight.T)  # int32
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
    for block in transformer.resblocks:
        block.attn = Int8Attention(block.attn)
        block.mlp.c_fc, block.mlp.c_proj = Int8Linear(block.mlp.c_fc), Int8Linear(block.mlp.c_proj)
