"""Sentences to the two vectors that tokens are compared with (the paper's "Text side")."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from CLIP import CLIP, tokenize

BATCH = 128  # sentences a pass


@torch.no_grad()
def encode(clip: CLIP, sentences: Sequence[str]) -> Tensor:
    """Unit features (N, D) of N sentences, on the model's device.

    Batches are cut to their longest sentence, which changes nothing under the causal mask.
    """
    ids = tokenize(list(sentences)).to(clip.text_projection.device)
    lengths = ids.argmax(dim=1) + 1
    order = lengths.argsort(stable=True)
    features = ids.new_empty(len(ids), clip.embed_dim, dtype=clip.text_projection.dtype)
    for rows in order.split(BATCH):
        features[rows] = clip.encode_text(ids[rows, : int(lengths[rows].max())])
    return F.normalize(features, dim=1)


def text_features(clip: CLIP, normal: Sequence[str], abnormal: Sequence[str]) -> Tensor:
    """The directions (D, 2) of {normal, abnormal}: unit sentence features, averaged, made unit again."""
    features = encode(clip, [*normal, *abnormal])
    means = [part.mean(dim=0) for part in features.split([len(normal), len(abnormal)])]
    return F.normalize(torch.stack(means, dim=1), dim=0)
