"""WinCLIP-style scoring: windows of patches against words, and against the windows of normal images.

Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023 (sections 4.2 and 4.3), with
one step of ours: the paper encodes every window by a pass of its own through the image tower; here a window is the mean
of its patches' tokens after the last block, projected to the joint space. Windows' scores go back to patches by the
paper's harmonic mean in both branches; the prompts are this repository's. Fused is half and half of scores scaled over
the images, as for every method here, where the paper adds them as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from decoder import LOGIT_SCALE, to_grid
from runtime.linear import linear
from scoring.baselines import IMAGE, MAP
from scoring.memory_bank import CHUNK
from scoring.patch_scores import PatchScores

SIDES = (2, 3)  # patches a side of the small and the middle windows
Project = Callable[[Tensor], Tensor]  # trunk tokens (..., C) -> joint space (..., D)


@dataclass(frozen=True)
class Windows:
    """What is compared of B images, all of unit length.

    whole: (B, D), the class token in the joint space. patches: (B, P, C), the trunk's own. scales: (B, n * n, D) for
    each size of window that fits, n places a side.
    """

    whole: Tensor
    patches: Tensor
    scales: tuple[Tensor, ...]

    @property
    def local(self) -> tuple[Tensor, ...]:
        """Patches and windows, which few-shot association compares."""
        return (self.patches, *self.scales)


def windows(tokens: Tensor, project: Project) -> Windows:
    """From the last block's tokens (B, L, C), class token first."""
    grid = to_grid(tokens[:, 1:].transpose(1, 2))  # (B, C, G, G)
    means = (F.avg_pool2d(grid, side, stride=1) for side in SIDES if side <= grid.shape[-1])
    scales = tuple(F.normalize(project(mean.flatten(2).transpose(1, 2)), dim=-1) for mean in means)
    whole = F.normalize(project(tokens[:, 0]), dim=-1)
    return Windows(whole, F.normalize(tokens[:, 1:], dim=-1), scales)


def spread(values: Tensor, grid: int) -> Tensor:
    """Values of windows (B, n * n), or of patches (B, P) -> of patches (B, G, G): the mean over the windows that hold
    a patch. grid: G; a window's side is G - n + 1 patches."""
    places = to_grid(values)  # (B, n, n)
    count = places.shape[-1]
    side = grid - count + 1
    total = values.new_zeros(len(values), grid, grid)
    held = values.new_zeros(grid, grid)
    for down in range(side):
        for across in range(side):
            part = (..., slice(down, down + count), slice(across, across + count))
            total[part] += places
            held[part] += 1
    return total / held


def abnormal_logits(found: Windows, text: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of "abnormal" by the text directions (D, 2), of the map (B, G, G) and of the image (B,).

    A probability p has 1/p = 1 + e^-logit, so the harmonic mean of probabilities has the logit -log(mean e^-logit): of
    the windows that hold a patch, then of the scales and the image as a whole.
    """
    axis = text[:, 1] - text[:, 0]
    whole = LOGIT_SCALE * (found.whole @ axis).cpu().double()  # (B,), within +-200: its exponential fits a double
    side = round(found.patches.shape[1] ** 0.5)
    odds = [spread((-LOGIT_SCALE * (scale @ axis).cpu().double()).exp(), side) for scale in found.scales]
    odds.append((-whole).exp()[:, None, None].expand(-1, side, side))
    return -torch.stack(odds).mean(dim=0).log(), whole


def association(found: Windows, references: Sequence[Tensor]) -> Tensor:
    """(B, G, G), in [0, 1]: how unlike the references (N, .) a scale patches and windows are, the mean over scales.

    Of each (1 - the highest cosine) / 2; windows give it to their patches by the harmonic mean.
    """
    side = round(found.patches.shape[1] ** 0.5)
    scores = []
    for queries, known in zip(found.local, references, strict=True):
        best = torch.stack([linear(queries, part).amax(dim=-1) for part in known.split(CHUNK)]).amax(dim=0)
        unlike = (1 - best.cpu().double()) / 2
        inverse = 1 / unlike.clamp_min(torch.finfo(torch.float32).eps)  # what is known is at no distance
        scores.append(1 / spread(inverse, side))
    return torch.stack(scores).mean(dim=0)


@dataclass(frozen=True)
class WinCLIP:
    """Words, text directions (D, 2), and the normal support's patches and windows, (N, .) a scale; either may be None,
    and so may its branch, but not both."""

    project: Project
    text: Tensor | None
    references: tuple[Tensor, ...] | None

    @staticmethod
    def fit(project: Project, text: Tensor | None, images: Sequence[Windows] | None) -> "WinCLIP":
        """From the windows of normal images, one each."""
        if images is None:
            return WinCLIP(project, text, None)
        columns = zip(*(image.local for image in images), strict=True)
        return WinCLIP(project, text, tuple(torch.cat(column, dim=1)[0] for column in columns))

    @property
    def branch(self) -> str:
        """As the run's."""
        if self.references is None:
            return "zero"
        return "few" if self.text is None else "fused"

    def score(self, levels: Sequence[Tensor]) -> dict[str, PatchScores]:
        """Of B images the map's zero and few (B, 1, G, G), and the image's (B, 1, 1, 1): the class token's logit, and
        the maximum of the association map."""
        found = windows(levels[-1], self.project)
        map_zero = image_zero = map_few = image_few = None
        if self.text is not None:
            map_zero, image_zero = map(_one_tap, abnormal_logits(found, self.text))
        if self.references is not None:
            few = association(found, self.references)
            map_few, image_few = _one_tap(few), _one_tap(few.amax(dim=(1, 2)))
        return {MAP: PatchScores(map_zero, map_few), IMAGE: PatchScores(image_zero, image_few)}

    def tensors(self) -> dict[str, Tensor]:
        """Text directions and references, those that there are."""
        found = {} if self.text is None else {"text": self.text}
        return found | {f"scale{number}": part for number, part in enumerate(self.references or ())}


def _one_tap(values: Tensor) -> Tensor:
    """(B, G, G), or (B,) as a grid of one patch -> (B, 1, G, G), float32 on the CPU."""
    return (values[:, None] if values.ndim == 3 else values[:, None, None, None]).float()
