"""A linear probe: logistic regression on an image's mean tokens and their deviation, fitted on the support.

What Radford et al. fit on CLIP's features ("Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021, section 3.2), here on mean and standard deviation over the patches of every tap, and from few images. Its
map is exact: an image's decision value is a sum over patches, and the map shows the summands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decoder import to_grid
from scoring.baselines import IMAGE, MAP
from scoring.patch_scores import PatchScores

INVERSE_STRENGTH = 1.0  # C of the penalty on standardised features
MOST_STEPS = 10_000  # of the solver; with more features than images it takes tens


def moments(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Means m and standard deviations d over the patches, (B, T, C) each, in double precision; of tokens (B, L, C) a
    tap, class token left out."""
    patches = _patches(levels)
    return patches.mean(dim=2), patches.std(dim=2, correction=0)


def _patches(levels: Sequence[Tensor]) -> Tensor:
    """(B, T, P, C), on the CPU: not every device has doubles."""
    return torch.stack(list(levels), dim=1)[:, :, 1:].cpu().double()


def features(levels: Sequence[Tensor]) -> Tensor:
    """(B, 2 T C): all means, then all deviations."""
    return torch.cat([part.flatten(1) for part in moments(levels)], dim=1)


@dataclass(frozen=True)
class LinearProbe:
    """The decision value w . f + b on features f as they are: the standardisation is in w (2 T C,) and b."""

    weights: Tensor
    bias: float
    branch: str = "few"

    @staticmethod
    def fit(described: Tensor, labels: Tensor) -> "LinearProbe":
        """From `features` (V, 2 T C) of images of both labels (V,) in {0, 1}, which weigh the same in all."""
        from sklearn.linear_model import LogisticRegression  # a second that only this method needs
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        model = LogisticRegression(C=INVERSE_STRENGTH, class_weight="balanced", max_iter=MOST_STEPS)
        model.fit(scaler.fit_transform(described.numpy()), labels.numpy().astype(int))
        weights = model.coef_[0] / scaler.scale_
        bias = float(model.intercept_[0] - weights @ scaler.mean_)
        return LinearProbe(torch.from_numpy(weights), bias)

    def decide(self, described: Tensor) -> Tensor:
        """Decision values (B,) of `features`; above 0 the fit says abnormal."""
        return described @ self.weights + self.bias

    def evidence(self, levels: Sequence[Tensor]) -> Tensor:
        """What each patch adds to the decision value, (B, P), of tokens (B, L, C) a tap: they sum up to it.

        With weights w_m, w_d of means m and deviations d over P patches x_p: w_m . x_p / P, and since
        d_c = sum_p (x_pc - m_c)^2 / (P d_c), sum_c w_d,c (x_pc - m_c)^2 / (P d_c); the bias is shared by all.
        """
        mean, deviation = moments(levels)
        by_mean, by_deviation = (part.view(mean.shape[1:]) for part in self.weights.chunk(2))  # (T, C) each
        by_square = torch.where(deviation > 0, by_deviation / deviation, 0)  # (B, T, C); of no deviation nothing adds
        patches = _patches(levels)
        squares = (patches - mean[:, :, None]).square()
        added = torch.einsum("btpc,tc->bp", patches, by_mean) + torch.einsum("btpc,btc->bp", squares, by_square)
        return (added + self.bias) / patches.shape[2]

    def score(self, levels: Sequence[Tensor]) -> dict[str, PatchScores]:
        """Of B images few: the evidence (B, 1, G, G), and the decision value (B, 1, 1, 1)."""
        evidence, value = self.evidence(levels), self.decide(features(levels))
        return {
            MAP: PatchScores(None, to_grid(evidence[:, None]).float()),
            IMAGE: PatchScores(None, value[:, None, None, None].float()),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The fit's."""
        return {"weights": self.weights, "bias": torch.tensor(self.bias)}
