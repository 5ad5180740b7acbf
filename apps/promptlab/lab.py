"""The prompt lab without its page: tokens of chosen images stay in memory, so an edited prompt costs its text alone.

A `Lab` is one object with one checkpoint or none. `predict` gives maps, scores and figures of chosen images under a set
of prompts, `pulls` the sentences that move each image's score most, `judge` one image's verdict. `open_lab` makes labs.
"""

import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
from cachetools import LRUCache
from torch import Tensor

from apps.promptlab.held import HeldImage, HeldSupport, PromptResult, Pull, Words
from apps.promptlab.prompt_set import PromptSet
from apps.promptlab.regions import described
from dataset import Batches, ImageSet, Item, ObjectInfo, Sample
from decoder import Decoded
from engine.build import finding_texts
from engine.findings import Finding
from engine.score_images import ground_truth
from engine.system import System, on_cpu
from engine.text import Encoder, directions, without_each
from runtime.bars import Bar
from runtime.cache import Cache
from runtime.errors import InputError
from scoring.calibration import Calibration, CalibrationRule, Known, calibrate
from scoring.evaluation import branch_figures
from scoring.maps import Scale
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import PatchScores, patch_scores
from scoring.raw_scores import RawScores, ScoreRule

REMEMBERED = 8  # results that are kept, for the set that was not edited
BAR_FROM = 50  # images


class Lab:
    """One object under one checkpoint, or under the bare trunk, and what was looked at.

    banks: by head; empty switches the few branch off. own: the digest of the sentences that a checkpoint's calibration
    holds for, and that calibration. limit: bytes that tokens of images may take. `support` is what calibrates, None:
    nothing does.
    """

    def __init__(
        self,
        info: ObjectInfo,
        test: Sequence[Sample],
        system: System,
        rule: ScoreRule,
        encoder: Encoder,
        start: PromptSet,
        limit: float,
        *,
        banks: dict[str, MemoryBank] | None = None,
        own: tuple[str, Calibration] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.info, self.test, self.system, self.encoder = info, tuple(test), system, encoder
        self.start, self.rule, self.banks, self.own, self.notes = start, rule, banks or {}, own, list(notes)
        self.masks = bool(info.masks)
        self.store: LRUCache[Path, HeldImage] = LRUCache(limit, getsizeof=attrgetter("size"))
        self.support: HeldSupport | None = None
        self.lock = threading.RLock()  # events run side by side; the model and what is held are one
        self.results: LRUCache[tuple, PromptResult] = LRUCache(REMEMBERED)
        self.found: LRUCache[tuple, list] = LRUCache(REMEMBERED)
        self.encode(start)
        self.encoder.cache = Cache("", 0)  # what is half typed need not be kept for ever
        self.encoder.ready()

    def some(self, each: int) -> tuple[Sample, ...]:
        """`each` normal and as many abnormal test images, spread over their sorted names."""
        chosen = []
        for label in (0, 1):
            part = [sample for sample in self.test if sample.label == label]
            rows = np.linspace(0, len(part) - 1, min(each, len(part))).round().astype(int)
            chosen += [part[row] for row in rows]
        return tuple(chosen)

    def encode(self, prompts: PromptSet) -> Words:
        """The set's sentences and what they are to CLIP; sentences known from before cost nothing."""
        normal, abnormal = prompts.sentences(self.info.classname)
        with self.lock, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            features = self.encoder.both(normal, abnormal)
        notes = tuple(str(one.message) for one in said)
        return Words(normal, abnormal, features, directions(*features), notes)

    def predict(self, samples: Sequence[Sample], prompts: PromptSet) -> PromptResult:
        """What the set of prompts makes of test images. Raises InputError for a faulty set or unreadable images."""
        with self.lock:
            samples, words = tuple(samples), self.encode(prompts)
            key = (samples, words.digest)
            if key not in self.results:
                self.results[key] = self._predict(samples, self._hold(samples), words, self._calibration(words, False))
            return replace(self.results[key], words=words)

    def judge(self, path: Path, prompts: PromptSet) -> PromptResult:
        """The same of any image file, with thresholds for pixels too, and nothing kept of it."""
        with self.lock:
            words, sample = self.encode(prompts), Sample(path, 0)
            (item,) = ImageSet([sample], self.system.size)
            (decoded,) = self.system.tokens(self.system.prefixes([item], False), self.rule.heads, trunk=True)
            held = self._keep({head: decoded.tokens(head) for head in self.rule.heads})
            result = self._predict((sample,), [held], words, self._calibration(words, True))
            return replace(result, figures={}, findings=self._findings(result, decoded))

    def _findings(self, result: PromptResult, decoded: Decoded) -> tuple[Finding, ...]:
        """The regions of one image, in its own pixels, and what they resemble; none of a normal one."""
        if not float(result.scores[result.branch][0]) >= result.threshold:
            return ()
        (anomaly_map,), mean = tuple(result.maps()), self.rule.by_mean
        texts = finding_texts(self.encoder, self.info, result.words.text.to(self.system.device))
        margins = texts.margins(decoded, self.system.decoder)
        return described(result.samples[0].image, anomaly_map, result.pixel_threshold, mean, texts, margins)

    def pulls(self, result: PromptResult) -> list[tuple[Pull | None, Pull | None]]:
        """For each image the normal and the abnormal sentence that change its prompt score most when left out.

        None for a label that would be left without a sentence.
        """
        with self.lock:
            key = (result.samples, result.words.digest)
            if key not in self.found:
                self.found[key] = self._pulls(result)
            return self.found[key]

    def _pulls(self, result: PromptResult) -> list[tuple[Pull | None, Pull | None]]:
        left, count = without_each(*result.words.features), len(result.words.normal)
        sentences, found = [*result.words.normal, *result.words.abnormal], []
        for held in self._hold(result.samples):
            effects = self._prompt_scores(held, result.words.text[None]) - self._prompt_scores(held, left)
            sizes = effects.abs().nan_to_num(-1)
            rows = (int(sizes[:count].argmax()), count + int(sizes[count:].argmax()))
            pair = (Pull(sentences[row], float(effects[row])) if sizes[row] >= 0 else None for row in rows)
            found.append(tuple(pair))
        return found

    def calibrate_on(
        self, support: Iterable[tuple[list[Tensor], tuple[int, ...]]], known: Known, rule: CalibrationRule
    ) -> None:
        """Hold the support (`FewShotRun.support_tokens`) for calibration, unless it takes more than images may."""
        head = self.rule.map_head
        held, count = [], len(known.labels)
        for tokens, without in Bar(support, "support", count, leave=False, disable=count < BAR_FROM):
            held.append(self._keep({head: tokens}, without))
            if held[0].size * count > self.store.maxsize:
                self.notes.append("the support takes more memory than --tokens_gb: thresholds are the checkpoint's own")
                return
        self.support = HeldSupport(held, known, rule)

    def _prompt_scores(self, held: HeldImage, texts: Tensor) -> Tensor:
        """An image's prompt scores (N,) under texts (N, D, 2), see `Pull`."""
        found = {head: patch_scores(held.tokens[head], texts, None) for head in self.rule.heads}
        grid = found[self.rule.map_head].zero.shape[-1]
        return self.rule.raw_scores(found).image_scores(grid, self._absolute())["zero"]

    def _predict(
        self, samples: tuple[Sample, ...], held: Sequence[HeldImage], words: Words, calibration: Calibration
    ) -> PromptResult:
        seen, size = self._see(held, words.text), self.system.size
        scores = seen.image_scores(size, calibration)
        labels, masks = ground_truth(samples, size, self.masks)
        figures = branch_figures(seen, labels, masks, size, calibration if calibration.image else None)
        return PromptResult(samples, words, seen, scores, figures, calibration, size)

    def _see(self, held: Sequence[HeldImage], text: Tensor) -> RawScores:
        found = {head: PatchScores.join([one.scores(head, text) for one in held]) for head in self.rule.heads}
        return self.rule.raw_scores(found)

    def _calibration(self, words: Words, pixels: bool) -> Calibration:
        """Scales and thresholds under these words: the checkpoint's own, else from the support, else probability."""
        if self.own is not None and self.own[0] == words.digest:
            return self.own[1]
        if self.support is not None:
            seen = self._see(self.support.held, words.text)
            return calibrate(seen, self.support.known, self.system.size, self.support.rule, pixels)
        if self.banks:
            return replace(self.own[1], image={}, pixel={})
        return self._absolute()

    def _absolute(self) -> Calibration:
        """Scores as the mean over taps of the probability of "abnormal", 0 to 1; no thresholds."""
        scale = Scale(zero=(0.0, float(self.system.decoder.levels)), few=None)
        return Calibration(scale, scale, {}, {})

    def _hold(self, samples: Sequence[Sample]) -> list[HeldImage]:
        """What is held of the images, of new ones from now on. Raises InputError when they are too many to hold."""
        held = {sample.image: self.store.get(sample.image) for sample in samples}
        new = [replace(sample, mask=None) for sample in samples if held[sample.image] is None]
        images = Batches(ImageSet(new, self.system.size, self.system.known_prefixes), 1) if new else ()
        for (item,) in Bar(images, "images", leave=False, disable=len(new) < BAR_FROM):
            held[item.path] = self._held(item, keep=True)
            if held[item.path].size * len(samples) > self.store.maxsize:
                most = max(1, int(self.store.maxsize / held[item.path].size))
                raise InputError(f"{len(samples)} images are more than --tokens_gb holds; choose {most} at most")
            self.store[item.path] = held[item.path]
        return [held[sample.image] for sample in samples]

    def _held(self, item: Item, keep: bool = False) -> HeldImage:
        """An image through the model; `keep`: its prefix goes to the cache."""
        (decoded,) = self.system.tokens(self.system.prefixes([item], keep), self.rule.heads)
        return self._keep({head: decoded.tokens(head) for head in self.rule.heads})

    def _keep(self, tokens: dict[str, list[Tensor]], without: int | None = None) -> HeldImage:
        scores = {head: patch_scores(levels, None, self.banks.get(head), without) for head, levels in tokens.items()}
        few = {head: one.few for head, one in on_cpu(scores).items()}
        if self.system.decoder.kind == "none":
            tokens = {head: self.system.decoder.joint(levels) for head, levels in tokens.items()}
        return HeldImage({head: [level.cpu() for level in levels] for head, levels in tokens.items()}, few)
