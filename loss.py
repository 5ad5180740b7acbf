"""The three losses of few-shot training (the paper's "Training objective"); all return a scalar."""

import torch
import torch.nn.functional as F
from torch import Tensor

FOCUS = 2.0  # γ of the focal loss
FOCAL_SMOOTHING = 1e-5  # how far one-hot targets are pulled from 0 and 1
DICE_SMOOTHING = 1.0


def focal(probability: Tensor, mask: Tensor) -> Tensor:
    """Focal loss of class probabilities (B, 2, H, W) in [0, 1] against a mask (B, 1, H, W) in {0, 1}.

    Class 1 is abnormal. The mean over all pixels.
    """
    target = torch.cat([1 - mask, mask], dim=1).clamp(FOCAL_SMOOTHING, 1 - FOCAL_SMOOTHING)  # (B, 2, H, W)
    right = (target * probability).sum(dim=1) + FOCAL_SMOOTHING  # (B, H, W)
    return (-((1 - right) ** FOCUS) * right.log()).mean()


def dice(probability: Tensor, mask: Tensor) -> Tensor:
    """Dice loss of one class's probability (B, H, W) against its mask (B, H, W): 1 - the mean Dice over images."""
    probability, mask = probability.flatten(1), mask.flatten(1)
    shared = (probability * mask).sum(dim=1)
    ratio = (2 * shared + DICE_SMOOTHING) / (probability.sum(dim=1) + mask.sum(dim=1) + DICE_SMOOTHING)
    return 1 - ratio.mean()


def detection(probability: Tensor, label: Tensor) -> Tensor:
    """BCE-with-logits of the mean abnormal probability over patches, (B, P) in [0, 1], against labels (B,).

    The mean probability is taken as the logit, as the method has it.
    """
    return F.binary_cross_entropy_with_logits(probability.mean(dim=-1), label.to(probability.dtype))
