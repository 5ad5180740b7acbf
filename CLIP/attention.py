"""Attention through PyTorch's fused kernel; in 16 bits on a CPU its gradient is made of plain products, which use the
processor's units for 16 bits: PyTorch's own kernel for it does not, and takes three times as long. A CPU without such
units computes either in float32.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.linear import has_units


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Queries, keys and values (B, nh, L, hs) -> (B, nh, L, hs), softmax(q·kᵀ / √hs)·v; causal: of those before."""
    wanted = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if wanted and not causal and q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16):
        return _Attention.apply(q, k, v)
    return _fused(q, k, v, causal)


def _fused(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    wide = _computed_in(q)
    with nullcontext() if wide == q.dtype else torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.to(wide), k.to(wide), v.to(wide), is_causal=causal).to(q.dtype)


def _computed_in(q: Tensor) -> torch.dtype:
    return q.dtype if q.device.type != "cpu" or has_units(q.dtype) else torch.float32


class _Attention(torch.autograd.Function):
    """The fused kernel forward; backward the weights (B, nh, L, L) are computed once more, not kept."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return _fused(q, k, v)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        narrow, wide = grad.dtype, _computed_in(grad)
        q, k, v, grad = (part.to(wide).contiguous() for part in (*ctx.saved_tensors, grad))
        scaled = q * q.shape[-1] ** -0.5
        weights = torch.softmax(scaled @ k.mT, dim=-1)  # (B, nh, L, L)
        of_weights = grad @ v.mT
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, q.dtype)
        of_q, of_k, of_v = of_scores @ k * q.shape[-1] ** -0.5, of_scores.mT @ scaled, weights.mT @ grad
        return of_q.to(narrow), of_k.to(narrow), of_v.to(narrow)
