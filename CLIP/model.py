"""CLIP's two towers: a vision transformer and a causal text transformer. Tokens are (B, L, C) everywhere.

State-dict names are those that OpenAI and OpenCLIP publish, so their weights load as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CLIP.attention import attend
from runtime.linear import Linear, linear

MEAN = (0.48145466, 0.4578275, 0.40821073)  # mean and deviation of CLIP's own training images
STD = (0.26862954, 0.26130258, 0.27577711)


def quick_gelu(x: Tensor) -> Tensor:
    """The cheap approximation of GELU that OpenAI's weights were trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quickgelu": quick_gelu}


@dataclass(frozen=True)
class VisionConfig:
    image_size: int
    layers: int
    width: int
    patch_size: int
    head_width: int = 64


@dataclass(frozen=True)
class TextConfig:
    width: int
    heads: int
    layers: int
    context_length: int = 77
    vocab_size: int = 49408


class Attention(nn.Module):
    """Multi-head self-attention, (B, L, C) -> (B, L, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        b, length, width = x.shape
        qkv = self.project(x)  # (B, L, 3C)
        q, k, v = qkv.view(b, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # (B, nh, L, hs)
        y = attend(q, k, v, causal)  # (B, nh, L, hs)
        return self.out_proj(y.transpose(1, 2).reshape(b, length, width))  # (B, L, C)

    def project(self, x: Tensor) -> Tensor:
        """(B, L, C) -> queries, keys and values (B, L, 3C)."""
        return linear(x, self.in_proj_weight, self.in_proj_bias)


class MLP(nn.Module):
    """Two linear layers, four times wider between them, (B, L, C) -> (B, L, C)."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.c_fc = Linear(width, 4 * width)
        self.c_proj = Linear(4 * width, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.activation(self.c_fc(x)))


class Block(nn.Module):
    """Pre-norm residual block, (B, L, C) -> (B, L, C)."""

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, activation)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks, (B, L, C) -> (B, L, C)."""

    def __init__(self, width: int, heads: int, layers: int, activation: str) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, activation) for _ in range(layers))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        for block in self.resblocks:
            x = block(x, causal)
        return x


class VisionTower(nn.Module):
    """Images (B, 3, H, W) -> joint space (B, D). `embed`, `transformer` and `pool` are its three stages."""

    def __init__(self, config: VisionConfig, embed_dim: int, activation: str) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.grid = config.image_size // config.patch_size
        width = config.width
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + self.grid**2, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, width // config.head_width, config.layers, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, embed_dim))
        self._resized: tuple[tuple, Tensor] | None = None  # what `positions` made last, and of what

    def tokens(self, size: int) -> int:
        """How many an image of `size` pixels a side has, the class token among them."""
        return 1 + (size // self.patch_size) ** 2

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position embedding (1 + rows·columns, C), resized from the checkpoint's grid; the class's is kept.

        Of frozen weights the last size is kept at hand, made on the CPU since not every device can.
        """
        own = self.positional_embedding
        if rows == columns == self.grid:
            return own
        if own.requires_grad:
            return self._resize(own, rows, columns)
        key = (rows, columns, own.device, own.dtype, own.data_ptr(), own._version)
        if self._resized is None or self._resized[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # kept for training steps too
                self._resized = key, self._resize(own.cpu(), rows, columns).to(own.device)
        return self._resized[1]

    def _resize(self, positions: Tensor, rows: int, columns: int) -> Tensor:
        """(1 + g·g, C) -> (1 + rows·columns, C), bicubic."""
        first, grid = positions[:1], positions[1:]
        grid = grid.T.reshape(1, -1, self.grid, self.grid)  # (1, C, g, g)
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False, antialias=True)
        return torch.cat([first, grid.flatten(2)[0].T])

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the first block's input (B, 1 + G·G, C), class token first."""
        x = self.conv1(images)  # (B, C, G, G)
        positions = self.positions(*x.shape[2:])
        x = x.flatten(2).transpose(1, 2)  # (B, G·G, C)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)  # (B, L, C)
        return self.ln_pre(x + positions)

    def pool(self, x: Tensor) -> Tensor:
        """The last block's output (B, L, C) -> joint space (B, D), from the class token."""
        return self.project(x[:, 0])

    def project(self, x: Tensor) -> Tensor:
        """Trunk tokens (..., C) -> joint space (..., D)."""
        return self.ln_post(x) @ self.proj

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.transformer(self.embed(images)))


# Ends of the names of a block's linear layers.
PRODUCTS = tuple(
    f"{layer}{part}"
    for layer in ("attn.in_proj_", "attn.out_proj.", "mlp.c_fc.", "mlp.c_proj.")
    for part in ("weight", "bias")
)
# The top-level names of each tower's weights.
TOWERS = {
    "image": ("visual",),
    "text": ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection"),
}


class CLIP(nn.Module):
    """Both towers. Text parameters lie at the top level, as published."""

    def __init__(self, *, embed_dim: int, vision: VisionConfig, text: TextConfig, activation: str = "gelu") -> None:
        super().__init__()
        self.embed_dim, self.vision_config, self.text_config = embed_dim, vision, text
        self.activation = activation
        self.image_size = vision.image_size
        self.visual = VisionTower(vision, embed_dim, activation)
        self.transformer = Transformer(text.width, text.heads, text.layers, activation)
        # The usual random start of an embedding would import torch's compiler on the "meta" device: 0.15 GB, 1 s.
        self.token_embedding = nn.Embedding.from_pretrained(torch.zeros(text.vocab_size, text.width), freeze=False)
        self.positional_embedding = nn.Parameter(torch.zeros(text.context_length, text.width))
        self.ln_final = nn.LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.zeros(text.width, embed_dim))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), any size of at least one patch -> features (B, D), not normalised."""
        return self.visual(images)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids (N, T) -> features (N, D), not normalised, read at each text's end symbol."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]  # (N, T, W)
        x = self.ln_final(self.transformer(x, causal=True))
        ends = ids.argmax(dim=-1)  # the end symbol has the highest id
        return x[torch.arange(len(x), device=x.device), ends] @ self.text_projection
