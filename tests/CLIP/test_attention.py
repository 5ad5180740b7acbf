"""Attention: values and gradients beside PyTorch's own, and which kernels it takes: fused ones, which hold no matrix
(L, L)."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from CLIP import attention
from CLIP.attention import attend
from CLIP.model import Block

BATCH, TOKENS, WIDTH, HEADS = 2, 290, 1024, 16  # of ViT-L/14 at 240 px
FUSED_ON_CPU = "aten::_scaled_dot_product_flash_attention_for_cpu"


def parts(dtype: torch.dtype, grad: bool) -> list[torch.Tensor]:
    """Queries, keys and values (2, 3, 11, 16), as `Attention` cuts them out of one tensor."""
    whole = torch.randn(2, 11, 3, 3, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    return [part.detach().requires_grad_(grad) for part in whole.permute(2, 0, 3, 1, 4)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("units", [True, False])
def test_the_same_values_with_and_without_gradients(monkeypatch, dtype, causal, units):
    monkeypatch.setattr(attention, "has_units", lambda dtype: units)
    wide = dtype if units else torch.float32
    expected = F.scaled_dot_product_attention(*(part.to(wide) for part in parts(dtype, False)), is_causal=causal)
    for grad in (False, True):
        found = attend(*parts(dtype, grad), causal)
        assert found.dtype == dtype and found.requires_grad == grad and torch.equal(found, expected.to(dtype))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02), (torch.float16, 0.002)])
@pytest.mark.parametrize("units", [True, False])
def test_the_same_gradients(monkeypatch, dtype, off, causal, units):
    monkeypatch.setattr(attention, "has_units", lambda dtype: units)
    given, exact = parts(dtype, True), parts(torch.float32, True)
    weights = torch.randn(2, 3, 11, 16, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((attend(*given, causal).float() * weights).sum(), given)
    expected = torch.autograd.grad((F.scaled_dot_product_attention(*exact, is_causal=causal) * weights).sum(), exact)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype and (ours.float() - theirs).norm() < off * theirs.norm()


@pytest.mark.parametrize("units", [True, False])
def test_training_in_16_bits_keeps_nothing_wider(monkeypatch, units):
    monkeypatch.setattr(attention, "has_units", lambda dtype: units)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        attend(*parts(torch.bfloat16, True)).sum().backward()
    assert kept and {tensor.dtype for tensor in kept} == {torch.bfloat16}


@pytest.mark.parametrize("cast", [True, False])
def test_a_cpu_without_units_attends_in_float32(monkeypatch, cast):
    monkeypatch.setattr(attention, "has_units", lambda dtype: False)
    seen = []
    own = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *given, **how: seen.append(own(*given, **how)) or seen[-1]
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=cast):
        assert attend(*parts(torch.bfloat16, False)).dtype == torch.bfloat16
    assert [tensor.dtype for tensor in seen] == [torch.float32]


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
