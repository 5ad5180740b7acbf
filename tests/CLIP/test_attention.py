"""Which kernels attention takes: fused ones, which hold no matrix (L, L) of it."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from CLIP.model import Block

BATCH, TOKENS, WIDTH, HEADS = 2, 290, 1024, 16  # of ViT-L/14 at 240 px
FUSED_ON_CPU = "aten::_scaled_dot_product_flash_attention_for_cpu"


def block(device: str, dtype: torch.dtype) -> tuple[Block, torch.Tensor]:
    """A block of the trunk, frozen, and tokens for it."""
    with torch.device(device):
        made = Block(WIDTH, HEADS, "gelu").requires_grad_(False)
        torch.nn.init.normal_(made.attn.in_proj_weight, std=0.02)
        return made.to(dtype), torch.randn(BATCH, TOKENS, WIDTH).to(dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize(
    ("dtype", "kernel"),
    [
        (torch.float32, SDPBackend.EFFICIENT_ATTENTION),
        (torch.bfloat16, SDPBackend.FLASH_ATTENTION),
        (torch.float16, SDPBackend.FLASH_ATTENTION),
    ],
)
def test_cuda_has_a_fused_kernel_for_a_block(dtype, kernel):
    """With the others forbidden it runs, forward and, for what adapters gave to the trunk, backward."""
    made, x = block("cuda", dtype)
    with sdpa_kernel([kernel]):
        y = made(x.requires_grad_())
        y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_takes_its_fused_kernel(dtype):
    made, x = block("cpu", dtype)
    with profile(activities=[ProfilerActivity.CPU]) as seen, torch.inference_mode():
        made(x)
    names = {event.key for event in seen.key_averages()}
    assert FUSED_ON_CPU in names and "aten::_scaled_dot_product_attention_math" not in names
