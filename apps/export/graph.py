"""A trained system as one graph: image in, anomaly map and score out, with prompts and memory bank inside.

The graph is that of `scoring`, scaled by the checkpoint's calibration. Only what an exchange format
can't hold is swapped for a twin that gives the same numbers.
"""

import math

import torch
from torch import Tensor, nn

from decoder import MDecoder
from engine.system import System
from madff import FAB
from scoring.calibration import Calibration
from scoring.maps import Scale, branch_maps, by_branch, means_at_once, scaled_maps
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import PatchScores, patch_scores
from scoring.raw_scores import ScoreRule, main_branch


class MatrixFAB(nn.Module):
    """`madff.FAB` for sequences of one length L, its two-dimensional Fourier transform as products with constants."""

    def __init__(self, fab: FAB, token_waves: Tensor, channel_waves: Tensor) -> None:
        super().__init__()
        self.fc = fab.fc
        self.register_buffer("token_waves", token_waves)  # (2L, L)
        self.register_buffer("channel_waves", channel_waves)  # (C, 2F), F = C/2 + 1

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[2]
        length = self.token_waves.shape[1]
        over_channels = x @ self.channel_waves  # (B, L, 2F)
        over_both = self.token_waves @ over_channels  # (B, 2L, 2F)
        cosine, sine = over_both[:, :length], over_both[:, length:]
        half = width // 2 + 1  # F
        real = cosine[..., :half] - sine[..., half:]
        imaginary = cosine[..., half:] + sine[..., :half]
        spectrum = (real.square() + imaginary.square()).sqrt()  # (B, L, F)
        summary = (spectrum.mean(dim=1) + spectrum.amax(dim=1)) / 2  # (B, F)
        summary = torch.cat([summary, summary[:, 1 : (width + 1) // 2].flip(1)], dim=1)  # (B, C)
        return x * torch.sigmoid(self.fc(summary)).unsqueeze(1)


def waves(length: int, frequencies: int) -> Tensor:
    """The cosines, then the sines of 2π·n·k/N, float32 (N, 2K), for n below N = `length`, k below K = `frequencies`."""
    turns = torch.outer(torch.arange(length), torch.arange(frequencies)) % length  # exact, so no angle is large
    angles = turns.double() * (2 * math.pi / length)
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def without_fft(decoder: MDecoder, length: int) -> None:
    """Swap every FAB of a decoder for its twin, in place; `length`: tokens of an image, L."""
    gated = [module for module in decoder.modules() if isinstance(getattr(module, "frequency_attention", None), FAB)]
    for module in gated:
        width, tokens = module.frequency_attention.fc[0].in_features, 1 if module.axis == "token" else length
        across, along = waves(tokens, tokens).T.contiguous(), waves(width, width // 2 + 1)
        module.frequency_attention = MatrixFAB(module.frequency_attention, across, along)


class ScoringGraph(nn.Module):
    """Images (B, 3, S, S), RGB in [0, 1] -> anomaly maps (B, S, S) and image scores (B,), of the main branch.

    banks: by head; text: directions (D, 2) or None. Both outputs are scaled by the calibration, so that its thresholds
    hold for them; without one (transfer to an object it is not known for) they are the mean probability over the taps.
    """

    def __init__(
        self,
        system: System,
        text: Tensor | None,
        banks: dict[str, MemoryBank],
        *,
        rule: ScoreRule,
        calibration: Calibration | None,
    ) -> None:
        super().__init__()
        self.system, self.decoder, self.size = system, system.decoder, system.size
        self.rule = rule
        self.register_buffer("text", None if text is None else text.clone())
        self.taps = {head: len(bank.levels) for head, bank in banks.items()}
        for head, bank in banks.items():
            for tap, level in enumerate(bank.levels):
                self.register_buffer(f"{head}_bank{tap}", level.clone())  # (N, h); inference tensors can't be traced
        mean = Scale((0.0, float(self.decoder.levels)), None)
        self.calibration = calibration or Calibration(mean, mean, {}, {})
        self.branch = "fused" if text is not None and banks else "few" if banks else "zero"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        decoded = self.decoder.decode(self.decoder.prefix(self.system.normalise(images)), self.rule.heads, pooled=False)
        scores = {head: self._patch_scores(head, decoded.tokens(head)) for head in self.rule.heads}
        raw = self.rule.raw_scores(scores)
        maps = self.calibration.maps.fuse(*by_branch(raw.map_patches, branch_maps, self.size))[self.branch]  # (B, S, S)
        if raw.mean_patches is None:
            return maps, maps.amax(dim=(1, 2))
        means = by_branch(raw.mean_patches, means_at_once, self.size)
        return maps, self.calibration.means.fuse(*means)[self.branch]

    def _patch_scores(self, head: str, tokens: list[Tensor]) -> PatchScores:
        joint = None if self.text is None else self.decoder.joint(tokens)
        return patch_scores(tokens, self.text, self._bank(head), joint=joint)

    def _bank(self, head: str) -> MemoryBank | None:
        if head not in self.taps:
            return None
        return MemoryBank([getattr(self, f"{head}_bank{tap}") for tap in range(self.taps[head])])

    @torch.inference_mode()
    def reference(self, images: Tensor, banks: dict[str, MemoryBank] | None = None) -> tuple[Tensor, Tensor]:
        """What `forward` must give, by the path that the test scripts take; on the CPU. banks: its own in another
        form."""
        banks = {head: self._bank(head) for head in self.taps} if banks is None else banks
        found = self.system.score(self.system.prefix(images), self.rule.heads, self.text, banks)
        raw = self.rule.raw_scores(found)
        assert self.branch == main_branch(raw.map_patches)
        scores = raw.image_scores(self.size, self.calibration)[self.branch]
        parts = scaled_maps(raw.map_patches, self.calibration.maps, self.size, self.branch)
        return torch.cat(list(parts)), scores


def settle(system: System) -> int:
    """Fix the position embedding to the system's image size, in place, and give the tokens of an image, L."""
    visual = system.decoder.visual
    side = system.size // visual.patch_size
    visual.positional_embedding = nn.Parameter(visual.positions(side, side).clone(), requires_grad=False)
    visual.grid = side
    return 1 + side * side
