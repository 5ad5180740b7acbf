"""Picture and caption pairs for the demo CLIP: pictures drawn by the demo's generators, seen through random crops.

A caption states a few facts of its picture (object, state, finding, place, size); it is a positive of every picture in
the batch of which all its facts are true. The wording comes from this file's templates, the base ensemble and the
P-Prompts of `prompt.py`.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import CLIP
import prompt
from dataset.demo import draw_object

SIZE = 240
SLIVER, ENOUGH = 0.6, 0.3  # a crop shows a lesion with this share of it, or if it fills this share of the crop
SLOTS = ("object", "state", "finding", "place", "size", "contrast")
UNSTATED = -1
WORDS = {
    "Brain": "brain MRI slice",
    "Liver": "liver CT slice",
    "Chest": "chest X-ray film",
    "Retina_RESC": "retinal OCT scan",
    "Retina_OCT2017": "retinal OCT image",
    "Histopathology": "histopathological image",
    "mvtec/carpet": "carpet",
    "mvtec/metal_nut": "metal nut",
    "visa/pcb1": "printed circuit board",
}
NORMAL = (
    "a normal {}.",
    "a healthy {} without any finding.",
    "an intact {}, nothing unusual.",
    "a {} without abnormality.",
)
ABNORMAL = ("an abnormal {}.", "a {} with a lesion.", "a {} with an anomaly.", "a {} that shows a defect.")
FINDING = ("a {} with {}.", "a {} showing {}.", "{1} in a {0}.", "{1} is seen on this {0}.")
DETAIL = (
    "a {0} with {2} {3} {1} at the {4}.",
    "{3} {1}, {2}, {4}, on a {0}.",
    "{0}: {2} {3} {1} in the {4}.",
)


@dataclass(frozen=True)
class Drawings:
    """Pictures of one object: uint8 (N, 240, 240, 3), masks bool (N, 240, 240) and what was drawn, by slot."""

    pictures: np.ndarray
    masks: np.ndarray
    words: list[dict[str, str]]


def draw_pictures(name: str, count: int, seed: int) -> Drawings:
    """Half normal, half abnormal pictures of one object, every one from a seed of its own."""
    pictures = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((count, SIZE, SIZE), bool)
    words = []
    for index in range(count):
        rng = np.random.default_rng(np.random.SeedSequence((seed, *name.encode(), index)))
        drawing = draw_object(name, rng, abnormal=index % 2 == 1)
        picture = Image.fromarray(drawing.image).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pictures[index] = np.asarray(picture)
        masks[index] = np.asarray(Image.fromarray(drawing.mask).resize((SIZE, SIZE), Image.Resampling.NEAREST))
        words.append({"object": name, "state": "abnormal" if index % 2 else "normal", **drawing.words})
    return Drawings(pictures, masks, words)


@dataclass(frozen=True)
class Phase:
    """A stretch of training: steps, batch, image side, sides of the crops in pixels, share of whole pictures."""

    steps: int
    batch: int
    side: int
    crops: tuple[int, int]
    whole: float


def crop(rng: np.random.Generator, drawings: Drawings, index: int, phase: Phase) -> tuple[np.ndarray, dict[str, str]]:
    """A random square of a picture, and the facts that hold of it: a crop past the lesion is a normal picture."""
    words, mask = drawings.words[index], drawings.masks[index]
    if rng.random() < phase.whole:
        return drawings.pictures[index], words
    facts = {slot: words[slot] for slot in ("object", "state", "finding", "contrast") if slot in words}
    near = words["state"] == "abnormal" and rng.random() < 0.6
    while True:
        side = int(rng.integers(*phase.crops))
        corner = rng.integers(0, SIZE - side + 1, 2)
        if near:  # around a pixel of the lesion
            pixels = np.argwhere(mask)
            offset = pixels[rng.integers(len(pixels))] - rng.integers(0, side, 2)
            corner = offset.clip(0, SIZE - side)
        window = tuple(slice(first, first + side) for first in corner)
        seen = mask[window].sum()
        if seen == 0:
            return drawings.pictures[index][window], {"object": words["object"], "state": "normal"}
        if seen > SLIVER * mask.sum() or seen > ENOUGH * side**2:
            return drawings.pictures[index][window], facts
        near = rng.random() < 0.5  # neither a sliver of a lesion nor a cut through it: try elsewhere


def caption(rng: np.random.Generator, facts: dict[str, str], wordings: dict) -> tuple[str, dict[str, str]]:
    """A sentence that is true of the picture, and the facts it states."""
    name, state = facts["object"], facts["state"]
    stated = {"object": name, "state": state}
    kind = rng.random()
    if kind < 0.5 or (state == "normal" and kind < 0.8):
        sentences = wordings[name][state]
        return str(sentences[rng.integers(len(sentences))]), stated
    if state == "normal" or kind < 0.6:
        templates = NORMAL if state == "normal" else ABNORMAL
        return str(rng.choice(templates)).format(WORDS[name]), stated
    if kind < 0.85 or "place" not in facts:
        return str(rng.choice(FINDING)).format(WORDS[name], facts["finding"]), stated | {"finding": facts["finding"]}
    text = str(rng.choice(DETAIL)).format(
        WORDS[name], *(facts[slot] for slot in ("finding", "contrast", "size", "place"))
    )
    return text, facts


@dataclass(frozen=True)
class Batch:
    """Pictures, captions, and what is true of which."""

    images: Tensor  # (B, 3, S, S)
    ids: Tensor  # (B, T)
    truth: Tensor  # (B, B) in {0, 1}, image by text
    shown: Tensor  # (B, 2) anchors of the pictures
    stated: Tensor  # (B, 2) anchors of the captions


class PairBatches:
    """Endless batches of pictures of three objects at a time."""

    def __init__(self, drawings: dict[str, Drawings], seed: int) -> None:
        self.drawings = drawings
        self.rng = np.random.default_rng(seed)
        self.wordings = {}
        for name in drawings:
            base, llm = prompt.sentences(name, "base"), prompt.sentences(name, "llm")
            self.wordings[name] = {"normal": base[0] + llm[0], "abnormal": base[1] + llm[1]}
        values = {value for drawn in drawings.values() for words in drawn.words for value in words.values()}
        self.states = [(name, state) for name in drawings for state in ("normal", "abnormal")]
        self.number = {value: place for place, value in enumerate(sorted(values))}

    def _row(self, facts: dict[str, str]) -> list[int]:
        return [self.number[facts[slot]] if slot in facts else UNSTATED for slot in SLOTS]

    def _anchors(self, facts: list[dict[str, str]]) -> Tensor:
        """Facts of B pictures or captions -> anchor numbers (B, 2): of (object, state), of the finding or UNSTATED."""
        rows = [
            (self.states.index((said["object"], said["state"])), self.number.get(said.get("finding"), UNSTATED))
            for said in facts
        ]
        return torch.tensor(rows)

    def draw(self, phase: Phase) -> Batch:
        """One batch over three objects, so that most negatives are of the same kind as the picture."""
        names = self.rng.choice(list(self.drawings), 3, replace=False)
        images, texts, shown, stated = [], [], [], []
        for place in range(phase.batch):
            drawn = self.drawings[names[place % 3]]
            picture, facts = crop(self.rng, drawn, int(self.rng.integers(len(drawn.words))), phase)
            text, said = caption(self.rng, facts, self.wordings)
            image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).unsqueeze(0) / 255
            if image.shape[-1] != phase.side:
                image = F.interpolate(image, (phase.side, phase.side), mode="bilinear", align_corners=False)
            images.append(image)
            texts.append(text)
            shown.append(facts)
            stated.append(said)
        seen, claimed = (torch.tensor([self._row(facts) for facts in part]) for part in (shown, stated))
        truth = ((claimed[None] == UNSTATED) | (claimed[None] == seen[:, None])).all(dim=2)  # (image, text)
        ids = CLIP.tokenize(texts)
        ids = ids[:, : int(ids.argmax(dim=1).max()) + 1]
        return Batch(self._jitter(torch.cat(images)), ids, truth.float(), self._anchors(shown), self._anchors(stated))

    def _jitter(self, images: Tensor) -> Tensor:
        """Gain and offset of each picture, so that brightness means nothing."""
        gain = torch.from_numpy(self.rng.uniform(0.8, 1.2, (len(images), 1, 1, 1)).astype(np.float32))
        offset = torch.from_numpy(self.rng.uniform(-0.1, 0.1, (len(images), 1, 1, 1)).astype(np.float32))
        return ((images - 0.5) * gain + 0.5 + offset).clamp(0, 1)
