"""Attention: values and gradients beside PyTorch's own, in float32 and in 16 bits."""

import pytest
import torch
import torch.nn.functional as F

from CLIP.attention import attend


def parts(dtype: torch.dtype, grad: bool) -> list[torch.Tensor]:
    """Queries, keys and values (2, 3, 11, 16), as `Attention` cuts them out of one tensor."""
    whole = torch.randn(2, 11, 3, 3, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    return [part.detach().requires_grad_(grad) for part in whole.permute(2, 0, 3, 1, 4)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_same_values_with_and_without_gradients(dtype, causal):
    expected = F.scaled_dot_product_attention(*parts(dtype, False), is_causal=causal)
    for grad in (False, True):
        found = attend(*parts(dtype, grad), causal)
        assert found.dtype == dtype and found.requires_grad == grad and torch.equal(found, expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_the_same_gradients(dtype, off, causal):
    given, exact = parts(dtype, True), parts(torch.float32, True)
    weights = torch.randn(2, 3, 11, 16, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((attend(*given, causal).float() * weights).sum(), given)
    expected = torch.autograd.grad((F.scaled_dot_product_attention(*exact, is_causal=causal) * weights).sum(), exact)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype and (ours.float() - theirs).norm() < off * theirs.norm()
