"""M-Decoder: the frozen trunk with two adapters at every tap; an image goes in, tokens of every level come out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from CLIP import CLIP
from madff import ATTENTIONS, build_adapter
from runtime.errors import InputError
from runtime.linear import linear

KEEP, GIVE = 0.8, 0.1  # what the trunk keeps of itself at a tap, and takes of each adapter's residual
HEADS = ("seg_adapters", "det_adapters")
LOGIT_SCALE = 100.0  # of cosines between tokens and text


@dataclass(frozen=True)
class Decoded:
    """What the decoder knows of B images; token lists have an entry a tap, or a member of the ensemble and tap; class
    token first."""

    pooled: Tensor | None  # (B, D), the joint space; None: not asked for
    seg_tokens: list[Tensor]  # (B, L, h) each, for localisation
    det_tokens: list[Tensor]  # (B, L, h) each, for detection
    trunk_tokens: list[Tensor] = field(default_factory=list)  # (B, L, C) each, what adapters read; empty: not asked for

    def tokens(self, head: str) -> list[Tensor]:
        """Those of the "seg" or the "det" head."""
        return self.seg_tokens if head == "seg" else self.det_tokens


class MDecoder(nn.Module):
    """Images (B, 3, H, W) -> `Decoded`. Only the adapters have gradients; the trunk is `clip.visual`, frozen.

    taps: blocks after which adapters sit, counted from 1, rising.
    adapter: "madff", "mvfa", "projector", or "none" (bare trunk tokens (B, L, C), nothing to train).
    attentions, axis: MADFF's, see `madff.MADFF`.
    half: torch.bfloat16 or torch.float16 to run the adapters so by autocast (the trunk's precision is `load_clip`'s).
    compiled: run the trunk's blocks through torch.compile where no gradient is wanted.
    ensemble: adapters a tap and head, each with a start of its own. They read the same x, the trunk takes the mean of
    their residuals, and each gives tokens of its own: lists of tokens then have `ensemble` entries a tap.
    Raises InputError for a tap that the trunk does not have.
    """

    def __init__(
        self,
        clip: CLIP,
        taps: Sequence[int] = (6, 12, 18, 24),
        adapter: str = "madff",
        *,
        attentions: Sequence[str] = ATTENTIONS,
        axis: str = "sequence",
        half: torch.dtype | None = None,
        compiled: bool = False,
        ensemble: int = 1,
    ) -> None:
        super().__init__()
        depth, width = clip.vision_config.layers, clip.vision_config.width
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 1 or taps[-1] > depth:
            raise InputError(
                f"--features_list {' '.join(map(str, taps))} must rise within 1 to {depth}, the trunk's depth"
            )
        self.taps, self.kind, self.depth = tuple(taps), adapter, depth
        self.half, self.compiled, self.ensemble = half, compiled, ensemble
        self._compiled: dict[tuple[int, int], Callable[[Tensor], Tensor]] = {}
        self.wiring = (tuple(attentions), axis) if adapter == "madff" else ()
        self.visual = clip.visual.requires_grad_(False)
        for name in HEADS:
            adapters = nn.ModuleList()
            for _ in range(0 if adapter == "none" else len(self.taps) * ensemble):
                adapters.append(build_adapter(adapter, width, clip.embed_dim, attentions=attentions, axis=axis))
            setattr(self, name, adapters)

    def forward(self, images: Tensor) -> Decoded:
        return self.decode(self.prefix(images))

    @torch.no_grad()
    def prefix(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> the first tap's tokens (B, L, C), which no adapter has touched yet."""
        x = self.visual.embed(images)  # (B, L, C)
        return self.blocks(0, self.taps[0], x)

    def bare(self, prefix: Tensor) -> list[Tensor]:
        """The trunk's own tokens (B, L, C) a tap, without any adapter, that follow prefix tokens (B, L, C)."""
        levels = [prefix]
        for first, last in pairwise(self.taps):
            levels.append(self.blocks(first, last, levels[-1]))
        return levels

    def decode(
        self, prefix: Tensor, heads: Sequence[str] = ("seg", "det"), pooled: bool = True, trunk: bool = False
    ) -> Decoded:
        """What follows prefix tokens (B, L, C); what none of the others asks for is left out, and empty."""
        x, tokens, read_there = prefix, {"seg": [], "det": []}, []
        ends = [*self.taps[1:], self.depth] if pooled else self.taps[1:]
        for tap, depth in enumerate(self.taps):
            read = tap < len(ends)  # whether a block reads on
            read_there += [x] if trunk else []
            found, x = self.adapt(tap, x, ("seg", "det") if read else heads, read)
            for head in heads:
                tokens[head] += found[head]
            if read:
                x = self.blocks(depth, ends[tap], x)
        return Decoded(self.visual.pool(x) if pooled else None, tokens["seg"], tokens["det"], read_there)

    def blocks(self, first: int, last: int, x: Tensor) -> Tensor:
        """The trunk's blocks first + 1 to last, (B, L, C) -> (B, L, C), in float32 outside."""
        run = nn.Sequential(*self.visual.transformer.resblocks[first:last])
        if self.compiled and not torch.is_grad_enabled():
            if (first, last) not in self._compiled:  # weights may be laid out anew, since they are frozen
                self._compiled[first, last] = torch.compile(run, options={"freezing": True})
            run = self._compiled[first, last]
        return run(x)

    def adapt(
        self, tap: int, x: Tensor, heads: Sequence[str], residual: bool
    ) -> tuple[dict[str, list[Tensor]], Tensor]:
        """One tap: trunk tokens (B, L, C) -> tokens (B, L, h) by head, one of each member of the ensemble; `residual`:
        also what the next block reads."""
        if self.kind == "none":
            return {head: [x] for head in heads}, x
        tokens, given = {}, KEEP * x if residual and self.kind != "projector" else x
        for head in heads:
            tokens[head] = []
            for adapter in getattr(self, f"{head}_adapters")[tap * self.ensemble : (tap + 1) * self.ensemble]:
                with nullcontext() if self.half is None else torch.autocast(x.device.type, self.half):
                    own, y = adapter(x, residual=residual)
                tokens[head].append(own.float())
                given = given if y is None else given + GIVE / self.ensemble * y
        return tokens, given

    @property
    def levels(self) -> int:
        """How many entries lists of tokens have."""
        return len(self.taps) * (1 if self.kind == "none" else self.ensemble)

    @property
    def token_width(self) -> int:
        """Of the tokens of a tap, h: the joint space's where adapters are, else the trunk's."""
        width, joint = self.visual.proj.shape
        return width if self.kind == "none" else joint

    def joint(self, tokens: list[Tensor]) -> list[Tensor]:
        """Tokens of every tap as text can be compared with them, (B, L, h) -> (B, L, D).

        Adapters end in the joint space already. The bare trunk's tokens go through the projection that CLIP has for
        its class token: an addition of this repository, for scoring with prompts and no training at all.
        """
        return [self.visual.project(level) for level in tokens] if self.kind == "none" else tokens

    def adapter_state(self) -> dict[str, dict[str, Tensor]]:
        """The adapters' weights as published: {"seg_adapters": {"0.fc1.0.weight": ...}, "det_adapters": ...}."""
        return {
            name: {key: tensor.detach().cpu().clone() for key, tensor in getattr(self, name).state_dict().items()}
            for name in HEADS
        }

    def load_adapters(self, state: Mapping[str, Tensor | Mapping[str, Tensor]]) -> None:
        """Read adapters published by MVFA-AD or written by us: nested as `adapter_state`, or flat with dotted names.
        Anything else beside them, such as a checkpoint's record, is passed over.

        Raises InputError when a weight is missing, unknown or of another shape.
        """
        flat = {}
        for name, value in state.items():
            if name.startswith(HEADS):
                nested = isinstance(value, Mapping)
                flat |= {f"{name}.{key}": tensor for key, tensor in value.items()} if nested else {name: value}
        own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(HEADS)}
        faults = [f"no {name}" for name in own.keys() - flat.keys()]
        faults += [f"unknown {name}" for name in flat.keys() - own.keys()]
        faults += [
            f"{name} is {tuple(flat[name].shape)}, not {tuple(own[name].shape)}"
            for name in own.keys() & flat.keys()
            if own[name].shape != flat[name].shape
        ]
        if faults:
            raise InputError(
                f"these adapters do not fit --adapter {self.kind} at {len(self.taps)} taps: "
                f"{sorted(faults)[0]} ({len(faults)} faults in all)"
            )
        self.load_state_dict(flat, strict=False)


def default_taps(layers: int) -> tuple[int, ...]:
    """A quarter, half, three quarters and all of the trunk's depth: 6, 12, 18, 24 for ViT-L."""
    return tuple(dict.fromkeys(max(1, round(layers * quarter / 4)) for quarter in (1, 2, 3, 4)))


def patch_logits(tokens: Tensor, text: Tensor) -> Tensor:
    """How much more abnormal than normal, (B, L, h), (D, 2) -> (B, P): 100·(cos abnormal - cos normal).

    Its sigmoid is the softmax over {normal, abnormal}. The class token is dropped: P = L - 1. Of one image, (1, L, h),
    under N texts, (N, D, 2), they are (N, P).
    """
    patches = F.normalize(tokens[:, 1:], dim=-1)
    if text.ndim == 3:
        return LOGIT_SCALE * linear(text[..., 1] - text[..., 0], patches[0])  # (N, P)
    cosines = patches @ text  # (B, P, 2)
    return LOGIT_SCALE * (cosines[..., 1] - cosines[..., 0])


def to_grid(values: Tensor) -> Tensor:
    """Values of the patches (..., P) -> (..., G, G), P = G·G."""
    side = round(values.shape[-1] ** 0.5)
    return values.reshape(*values.shape[:-1], side, side)


def upsample(grids: Tensor, size: int) -> Tensor:
    """(B, T, G, G) -> (B, T, size, size), bilinear, corners aligned, for training.

    One product for the rows, one for the columns: the gradient of `F.interpolate` took 12 ms a tap on a CPU, and on
    CUDA is not the same twice.
    """
    if grids.shape[-2:] == (size, size):
        return grids
    weights = _weights(grids.shape[-1], size, grids.device)
    return weights @ grids @ weights.T


@cache
@torch.inference_mode(False)
def _weights(side: int, size: int, device: torch.device) -> Tensor:
    """The share of each of `side` values in each of `size`, (size, side); made on the CPU, as not every device can."""
    each = F.interpolate(torch.eye(side)[:, None], size, mode="linear", align_corners=True)  # (side, 1, size)
    return each[:, 0].T.contiguous().to(device)
