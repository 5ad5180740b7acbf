"""Linear layers whose weights are held in 16 bits: half the memory, and on processors with units for such products
(AMX, AVX-512 BF16, tensor cores) several times the speed.

What goes into a product is rounded to 16 bits as it comes, sums are taken in more. Norms, the residual stream and what
comes out of a block stay in float32, so gradients pass through; the weights themselves have none.
"""

import torch

from CLIP.model import PRODUCTS, Transformer
from runtime.linear import Packed, packs

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def hold_in_half(transformer: Transformer, dtype: torch.dtype) -> None:
    """Round the linear layers' weights and biases of every block, in place."""
    for name, weight in transformer.named_parameters():
        if name.endswith(PRODUCTS):
            weight.data = weight.data.to(dtype)


def pack(transformer: Transformer, rows: int) -> None:
    """Lay out the blocks' weights in 16 bits anew, in place, for a CPU whose oneDNN has such products; `rows`: how many
    tokens go through at once. From then on the blocks can go to no other device, and have no weights to be read."""
    for module in transformer.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.ndim == 2 and packs(weight.dtype):
                delattr(module, name)
                setattr(module, name, Packed(weight, rows))
