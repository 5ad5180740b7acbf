"""The three losses of training (the paper's "Training objective"); all return a scalar."""

import torch
import torch.nn.functional as F
from torch import Tensor

from decoder import Decoded, patch_logits, to_grid, upsample

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


def adapter_loss(decoded: Decoded, text: Tensor, label: Tensor, mask: Tensor | None) -> Tensor:
    """What a step minimises: detection, and with masks focal and dice too, summed over the taps.

    text (D, 2); label (B,) in {0, 1}; mask (B, 1, H, W) in {0, 1}, or None for an object without masks.
    """
    total = sum(detection(patch_logits(tokens, text).sigmoid(), label) for tokens in decoded.det_tokens)
    if mask is None:
        return total
    for tokens in decoded.seg_tokens:
        logits = upsample(to_grid(patch_logits(tokens, text)).unsqueeze(1), mask.shape[-1])  # (B, 1, H, W)
        abnormal = logits.sigmoid()
        total = total + focal(torch.cat([(-logits).sigmoid(), abnormal], dim=1), mask) + dice(abnormal, mask)
    return total
