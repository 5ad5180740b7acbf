"""Train the embedded demo CLIP (ViT-T-16-demo) on generated picture and caption pairs.

    python -m apps.demo_clip

Pictures come from the generators of the demo benchmark, drawn with seeds that the benchmark never uses; the pairs are
made in `pairs.py`. The loss is the usual symmetric contrastive one, with several positives where several captions
are true of a picture. Towers this small, trained this briefly, would collapse on that alone: both are also drawn to
learned anchors, one for every (object, state) and one for every finding, which are thrown away in the end.
Training begins on small crops, which are cheap and in which a lesion is large, and ends on whole pictures.
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import copy
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import CLIP
import prompt
from apps.demo_clip.pairs import SIZE, UNSTATED, Batch, Drawings, PairBatches, Phase, draw_pictures
from dataset.demo import OBJECTS
from engine.options import parse
from engine.settings import Spec, setting
from runtime.bars import Bar
from runtime.files import atomic_write
from runtime.flags import WORKERS, number, path, positive
from scoring.metrics import image_metrics

MODEL = "ViT-T-16-demo"
OUT = Path(CLIP.__file__).with_name("ckpt")
DRAW_SEED, CHECK_SEED = 20_001, 20_002  # the benchmark's own is 0; seeds enter through np.random.SeedSequence
HELD_OUT = 48  # pictures of each object that are only checked on
FLOOR = 0.03  # of the first component's deviation, below which whitening does not amplify
ALONE = 200  # steps with the anchors alone
PHASES = (Phase(1500, 128, 112, (88, 144), 0.0), Phase(600, 48, SIZE, (176, SIZE), 0.7))


def contrastive(images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy with several positives; features (B, D), truth (image, text) in {0, 1}."""
    logits = scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T  # (image, text)
    loss = 0.0
    for scores, positives in ((logits, truth), (logits.T, truth.T)):
        share = positives / positives.sum(dim=1, keepdim=True)
        loss = loss - (share * scores.log_softmax(dim=1)).sum(dim=1).mean()
    return loss / 2


class Anchors(torch.nn.Module):
    """A direction for every (object, state) and every finding, which features of both towers are drawn to."""

    def __init__(self, states: int, findings: int, width: int) -> None:
        super().__init__()
        self.tables = torch.nn.ModuleList(torch.nn.Linear(width, count) for count in (states, findings))

    def forward(self, features: Tensor, numbers: Tensor) -> Tensor:
        """Cross-entropy of features (B, D) against their anchors (B, 2); a finding that is not stated is left out."""
        features = F.normalize(features, dim=1) * features.shape[1] ** 0.5
        loss = 0.0
        for table, wanted in zip(self.tables, numbers.T, strict=True):
            known = wanted != UNSTATED
            if known.any():
                loss = loss + F.cross_entropy(table(features[known]), wanted[known])
        return loss


def step_loss(model: CLIP.CLIP, anchors: Anchors, batch: Batch, contrast: float) -> Tensor:
    """The loss of the class token, and at half weight that of the patches' mean, which keeps patches meaningful.

    contrast: weight of the contrastive part against the anchors'.
    """
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.visual.transformer(model.visual.embed(batch.images))  # (B, L, C)
        pooled = model.visual.pool(tokens)
        patches = model.visual.pool(tokens[:, 1:].mean(dim=1, keepdim=True))
        texts = model.encode_text(batch.ids)
    scale = model.logit_scale.exp().clamp(max=100)
    loss = anchors(texts.float(), batch.stated)
    for weight, images in ((1.0, pooled.float()), (0.5, patches.float())):
        aligned = contrastive(images, texts.float(), batch.truth, scale)
        loss = loss + weight * (contrast * aligned + anchors(images, batch.shown))
    return loss


@torch.no_grad()
def check(model: CLIP.CLIP, drawings: dict[str, Drawings]) -> dict[str, float]:
    """Zero-shot image AUROC by object, from the class token and all prompts, on held-out drawings."""
    model.eval()
    result = {}
    for name, drawn in drawings.items():
        texts = []
        for sentences in prompt.sentences(name):
            features = F.normalize(model.encode_text(CLIP.tokenize(sentences)), dim=1).mean(dim=0)
            texts.append(F.normalize(features, dim=0))
        images = torch.from_numpy(drawn.pictures).permute(0, 3, 1, 2) / 255
        features = F.normalize(torch.cat([model.encode_image(part) for part in images.split(32)]), dim=1)
        scores = (features @ (texts[1] - texts[0])).numpy()
        labels = np.array([words["state"] == "abnormal" for words in drawn.words])
        result[name] = round(image_metrics(scores, labels)["auroc"], 4)
    model.train()
    return result


@torch.no_grad()
def start_patches(model: CLIP.CLIP, drawings: dict[str, Drawings], seed: int) -> None:
    """Set the patch filters to the pictures' whitened principal components.

    Random filters mostly answer to a patch's brightness, which the layer norm behind them takes out again, so that all
    patches look alike to the first blocks for a long time.
    """
    rng, side = np.random.default_rng(seed), model.vision_config.patch_size
    patches = []
    for drawn in drawings.values():
        for index, y, x in rng.integers(0, (len(drawn.pictures), SIZE - side, SIZE - side), (2000, 3)):
            patches.append(drawn.pictures[index, y : y + side, x : x + side].transpose(2, 0, 1).ravel() / 255)
    patches = torch.tensor(np.array(patches), dtype=torch.float32)
    _, spread, components = torch.linalg.svd(patches - patches.mean(dim=0), full_matrices=False)
    spread = spread / len(patches) ** 0.5
    width = model.vision_config.width
    filters = components[:width] / spread[:width, None].clamp(min=FLOOR * spread[0])
    model.visual.conv1.weight.copy_(filters.view_as(model.visual.conv1.weight))


def optimiser(model: CLIP.CLIP, rate: float) -> torch.optim.Optimizer:
    """AdamW that decays matrices and spares gains, biases and embeddings."""
    spared = [p for name, p in model.named_parameters() if p.ndim < 2 or "embedding" in name]
    decayed = [p for name, p in model.named_parameters() if not (p.ndim < 2 or "embedding" in name)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


@torch.no_grad()
def fold_scale(model: CLIP.CLIP) -> None:
    """Make the learned logit scale s the fixed 100 of the method, and change no probability between texts.

    All text features get one common component, large enough that differences between their unit vectors shrink to
    s / 100; what an image gains by it is the same for every text. Trained CLIPs have such a component of themselves.
    """
    texts = [text for name in OBJECTS for part in prompt.sentences(name) for text in part[::7]]
    inner = []
    hook = model.ln_final.register_forward_hook(lambda module, inputs, output: inner.append(output))
    ids = CLIP.tokenize(texts)
    features = model.encode_text(ids)  # (N, D)
    hook.remove()
    read = inner[0][torch.arange(len(ids)), ids.argmax(dim=1)]  # (N, W), what is projected to the features
    quietest = torch.linalg.eigh(torch.cov(read.T)).eigenvectors[:, 0]  # the direction in which texts differ least
    ratio = model.logit_scale.exp() / 100
    length = features.norm(dim=1).mean() * (1 / ratio**2 - 1).sqrt()
    model.ln_final.bias += quietest * length / (quietest @ model.text_projection).norm()
    model.logit_scale.fill_(math.log(100))


def save(model: CLIP.CLIP, folder: Path) -> None:
    """Fold the scale into a copy and write its weights in half precision, whole or not at all."""
    model = copy.deepcopy(model)
    fold_scale(model)
    with atomic_write(folder / f"{MODEL}.safetensors") as draft:
        save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, draft)


@dataclass(frozen=True, kw_only=True)
class DemoClipSpec(Spec):
    """Train the embedded demo CLIP (ViT-T-16-demo) on generated picture and caption pairs."""

    GROUP: ClassVar = "training"
    share: float = setting(1.0, "of the planned steps, e.g. 0.01 to try it out", type=number(float, 0, 1000))
    pool: int = setting(1200, "pictures drawn of each object", type=positive)
    learning_rate: float = setting(8e-4, "the highest, of AdamW", type=number(float, 0, 1000))
    check_every: int = setting(100, "steps", type=positive)
    workers: int = setting(2, "processes that draw", type=number(int, 1, WORKERS))
    out: Path = setting(OUT, "folder for the weights and their log", type=path)


def train(spec: DemoClipSpec) -> None:
    """Draw the pictures, train for the given steps, log and save as it goes."""
    torch.manual_seed(DRAW_SEED)
    started = time.time()
    with ProcessPoolExecutor(spec.workers) as executor:
        drawings = _drawn(executor, spec.pool, DRAW_SEED)
        held_out = _drawn(executor, HELD_OUT, CHECK_SEED)
    model = CLIP.load_clip(MODEL, image_size=SIZE).requires_grad_(True).train()
    start_patches(model, drawings, DRAW_SEED)
    batches = PairBatches(drawings, DRAW_SEED)
    anchors = Anchors(len(batches.states), len(batches.number), model.embed_dim)
    optimizer = optimiser(model, spec.learning_rate)
    optimizer.add_param_group({"params": list(anchors.parameters()), "weight_decay": 0.0})
    mean_loss = 0.0
    log = [{"pictures": spec.pool * len(drawings), "seconds": round(time.time() - started)}]
    plan = [phase for phase in PHASES for _ in range(int(phase.steps * spec.share))]
    for step, phase in enumerate(Bar(plan, desc="pre-training"), start=1):
        rate = spec.learning_rate * min(step / 200, 0.5 * (1 + np.cos(np.pi * step / len(plan))) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = step_loss(model, anchors, batches.draw(phase), contrast=float(step > ALONE))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean_loss += (loss.item() - mean_loss) / min(step, 50)
        if step % spec.check_every == 0 or step == len(plan):
            spent, auroc = round(time.time() - started), check(model, held_out)
            log.append({"step": step, "loss": round(mean_loss, 4), "seconds": spent, "zero-shot AUROC": auroc})
            print(json.dumps(log[-1]), flush=True)
            save(model, spec.out)
            write_log(spec, log)


def _drawn(executor: ProcessPoolExecutor, count: int, seed: int) -> dict[str, Drawings]:
    """`count` pictures of every object of the demo."""
    names = list(OBJECTS)
    return dict(zip(names, executor.map(draw_pictures, names, repeat(count), repeat(seed)), strict=True))


def write_log(spec: DemoClipSpec, log: list[dict]) -> None:
    """Write the settings and what was noted on the way beside the weights."""
    chosen = {name: str(value) for name, value in asdict(spec).items()} | {"phases": list(map(asdict, PHASES))}
    with atomic_write(spec.out / f"{MODEL}.log.json") as draft:
        draft.write_text(json.dumps({"options": chosen, "log": log}, indent=1))


def main() -> None:
    """Train as the command line says."""
    train(DemoClipSpec.of(parse(DemoClipSpec, prog="python -m apps.demo_clip")))


if __name__ == "__main__":
    sys.exit(exit_code(main))
