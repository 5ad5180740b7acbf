"""Scoring: the golden mini benchmark through the program's own parts, and each formula by hand."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import GOLDEN, arrays, relative
from helpers.parts import bank_of, directions_of
from PIL import Image
from torch import Tensor

import CLIP
import prompt
from dataset import FewShotSet, Sample
from dataset.registry import find
from decoder import patch_logits, to_grid, upsample
from engine.score_images import ground_truth, score_images
from engine.support import Support, load_support
from engine.system import System
from engine.training import Trainer
from scoring import maps as scoring_maps
from scoring import memory_bank
from scoring.evaluation import branch_figures
from scoring.maps import (
    Scale,
    branch_maps,
    branch_means,
    map_scale,
    max_scores,
    mean_scale,
    mean_scores,
    means_within,
    scaled_maps,
)
from scoring.patch_scores import BRANCHES, PatchScores, patch_scores
from scoring.raw_scores import DET_MEAN, MAP_MAXIMUM, full_maps

KINDS = ("mvfa", "madff")
SIZE = 240
UNTRAINED = 1e-4  # relative agreement of maps and scores of the golden adapters
LOSSES_FIRST, LOSSES_ALL = 1e-4, 2e-2  # of the first ten steps, and of all 44
AUC = 1e-3


@dataclass
class Benchmark:
    """The golden images as files of an object with masks, and what came of them elsewhere."""

    data: FewShotSet
    support: Support
    text: Tensor
    expected: dict
    arrays: dict[str, np.ndarray]

    @cached_property
    def labels_and_masks(self) -> tuple[np.ndarray, np.ndarray]:
        return ground_truth(self.data.test, SIZE, True)


@pytest.fixture(scope="module")
def benchmark(clip, tmp_path_factory) -> Benchmark:
    folder, golden = tmp_path_factory.mktemp("mini"), arrays("mini")

    def samples(part: str, labels: np.ndarray, masks: np.ndarray | None) -> tuple[Sample, ...]:
        made = []
        for row, label in enumerate(labels):
            mask = None if masks is None or not label else png(folder / f"{part}{row}_mask.png", masks[row, 0] * 255)
            image = png(folder / f"{part}{row}.png", golden[part][row].transpose(1, 2, 0))
            made.append(Sample(image, int(label), mask))
        return tuple(made)

    data = FewShotSet(
        find("Brain", folder),
        samples("support_normal", np.zeros(2), None),
        samples("support_abnormal", np.ones(2), golden["support_mask"]),
        samples("test", golden["test_label"], golden["test_mask"]),
        {},
    )
    words = prompt.sentences("Brain", "base", classname="Brain")
    expected = json.loads((GOLDEN / "mini_expected.json").read_text())
    directions = directions_of(clip, *words)
    return Benchmark(data, load_support(data, SIZE), directions, expected, arrays("mini_expected"))


def png(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@dataclass
class Found:
    """What one kind of adapter makes of the benchmark's test images."""

    seg: PatchScores
    det: PatchScores


def see(benchmark: Benchmark, system: System) -> Found:
    """Both heads' patch scores of the test images, each against its own bank."""
    normal = benchmark.support.images[benchmark.support.normal]
    with torch.inference_mode():
        banks = {head: bank_of(system.levels(map(system.prefix, normal.split(1)), head)) for head in ("seg", "det")}
        seen = score_images(system, benchmark.data.test, ("seg", "det"), benchmark.text, banks, batch_size=5)
    return Found(seen["seg"], seen["det"])


def system_of(clip: CLIP.CLIP, decoder: object) -> System:
    return System(decoder, torch.device("cpu"), SIZE)


@pytest.mark.parametrize("kind", KINDS)
def test_mini_benchmark_before_training(clip, golden_decoder, benchmark, kind):
    found = see(benchmark, system_of(clip, golden_decoder(kind)))
    expected, maps = benchmark.expected[f"{kind}.steps0"], benchmark.arrays
    for branch in ("few", "zero"):
        first = branch_maps(found.seg[:1], branch, SIZE)[0]
        assert relative(first, maps[f"{kind}.steps0.{branch}_map_test0"]) < UNTRAINED
    fused = full_maps(found.seg, map_scale(found.seg, SIZE), SIZE, "fused")
    assert relative(fused[:, ::8, ::8], maps[f"{kind}.steps0.fused"]) < UNTRAINED
    by_map, by_mean = MAP_MAXIMUM.raw_scores({"seg": found.seg}), DET_MEAN.raw_scores({"det": found.det})
    assert relative(by_map.image_scores(SIZE)["fused"], expected["fused_map_max"]) < UNTRAINED
    assert relative(by_mean.image_scores(SIZE)["fused"], expected["image_scores"]) < UNTRAINED
    labels, masks = benchmark.labels_and_masks
    figures = branch_figures(by_map, labels, masks, SIZE, None)["fused"]
    assert figures["pixel_auroc"] == pytest.approx(expected["pixel_auc"], abs=AUC)
    assert figures["image_auroc"] == pytest.approx(expected["image_auc_from_map"], abs=AUC)
    figures = branch_figures(by_mean, labels, None, SIZE, None)["fused"]
    assert figures["image_auroc"] == pytest.approx(expected["image_auc_from_det"], abs=AUC)


@pytest.mark.parametrize("kind", KINDS)
def test_mini_benchmark_after_44_steps(clip, golden_decoder, benchmark, kind):
    system = system_of(clip, golden_decoder(kind))
    trainer, support = Trainer(system, 1e-3), benchmark.support
    losses = [
        trainer.step(system.prefix(support.images[[row]]), support.labels[[row]], support.masks[[row]], benchmark.text)
        for row in benchmark.expected["order"]
    ]
    expected, maps = benchmark.expected[f"{kind}.steps44"], benchmark.arrays
    assert losses[:10] == pytest.approx(expected["losses"][:10], rel=LOSSES_FIRST)
    assert losses == pytest.approx(expected["losses"], rel=LOSSES_ALL)
    if kind == "mvfa":  # MADFF's saturated gates make of 1e-7 in a weight so much that its maps can't be compared
        seg = see(benchmark, system).seg
        fused = full_maps(seg, map_scale(seg, SIZE), SIZE, "fused")[:, ::8, ::8]
        goal, start = maps[f"{kind}.steps44.fused"], maps[f"{kind}.steps0.fused"]
        assert np.abs(fused - goal).mean() < 0.2 * np.abs(start - goal).mean()


def test_support_is_in_the_golden_order(benchmark):
    support, golden = benchmark.support, arrays("mini")
    assert support.labels.tolist() == [1.0] * 22 + [0.0] * 22
    assert support.source.tolist() == [0, 1] * 11 + [2, 3] * 11
    assert support.variant.tolist() == [variant for variant in range(11) for _ in range(2)] * 2
    assert support.normal.tolist() == list(range(22, 44))
    first = torch.from_numpy(golden["support_abnormal"]).float() / 255
    assert relative(support.images[:2], first) < 1e-6
    assert support.images[18:20].equal(support.images[:2].flip(3))  # the variant before the last is flipped
    assert support.masks[:2].equal(torch.from_numpy(golden["support_mask"]).float())
    assert not support.masks[support.normal].any()


def test_patch_logits_by_hand():
    text = torch.eye(2)  # normal is the first axis, abnormal the second
    tokens = torch.tensor([[[9.0, 9.0], [5.0, 0.0], [0.0, 0.1], [2.0, 2.0], [-1.0, 0.0]]])
    assert torch.allclose(patch_logits(tokens, text), torch.tensor([[-100.0, 100.0, 0.0, 100.0]]), atol=1e-4)


def test_the_sigmoid_of_a_logit_is_the_softmax():
    generator = torch.Generator().manual_seed(0)
    tokens, text = (
        torch.randn(3, 10, 8, generator=generator),
        F.normalize(torch.randn(8, 2, generator=generator), dim=0),
    )
    expected = (100 * F.cosine_similarity(tokens[:, 1:, None], text.T, dim=-1)).softmax(dim=-1)[..., 1]
    assert relative(patch_logits(tokens, text).sigmoid(), expected) < 1e-4


def test_grids_are_row_by_row():
    assert to_grid(torch.arange(8.0).view(2, 4)).tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


def test_upsampling_aligns_corners():
    grid = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    assert upsample(grid, 3)[0, 0].tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]


@pytest.mark.parametrize(("side", "size"), [(17, 240), (2, 3), (5, 5), (1, 4)])
def test_upsampling_and_its_gradient_are_those_of_pytorch(side, size):
    grids, weights = torch.randn(2, 3, side, side, requires_grad=True), torch.randn(2, 3, size, size)
    found = upsample(grids, size)
    expected = torch.nn.functional.interpolate(grids, (size, size), mode="bilinear", align_corners=True)
    assert relative(found, expected) < 1e-6
    gradients = [torch.autograd.grad((maps * weights).sum(), grids)[0] for maps in (found, expected)]
    assert relative(*gradients) < 1e-5


def test_bank_distance_by_hand():
    bank = bank_of([torch.tensor([[[3.0, 0.0], [0.0, 0.5]]]), torch.tensor([[[0.0, -2.0]]])])
    tokens = torch.tensor([[[1.0, 0.0], [7.0, 0.0], [-1.0, 0.0], [2.0, 2.0], [0.0, -1.0]]])  # class token first
    root = 0.5**0.5
    assert torch.allclose(bank.distance(0, tokens), torch.tensor([[0.0, 1.0, 1 - root, 1.0]]), atol=1e-6)
    assert torch.allclose(bank.distance(1, tokens), torch.tensor([[1.0, 1.0, 1 + root, 0.0]]), atol=1e-6)


def test_the_bank_holds_class_tokens_of_every_image():
    tokens = torch.eye(4).view(2, 2, 4)  # two images of a class token and a patch
    queries = torch.cat([torch.zeros(1, 1, 4), torch.eye(4)[None]], dim=1)
    assert torch.allclose(bank_of([tokens]).distance(0, queries), torch.zeros(1, 4))


def random_scores(images: int, taps: int = 3, side: int = 4, seed: int = 0) -> PatchScores:
    """Random grid values: logits of a few units, distances in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (images, taps, side, side)
    return PatchScores(3 * torch.randn(shape, generator=generator), torch.rand(shape, generator=generator))


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_bank_chunks_change_nothing(monkeypatch, chunk):
    generator = torch.Generator().manual_seed(0)
    bank = bank_of([torch.randn(4, 5, 6, generator=generator)])
    tokens = torch.randn(2, 10, 6, generator=generator)
    cosines = F.cosine_similarity(tokens[:, 1:, None], bank.levels[0], dim=-1)  # (B, P, N)
    monkeypatch.setattr(memory_bank, "CHUNK", chunk)
    assert torch.allclose(bank.distance(0, tokens), 1 - cosines.amax(dim=-1), atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_map_chunks_change_nothing(monkeypatch, chunk):
    seen = random_scores(5)
    scale, means = map_scale(seen, 9), mean_scale(seen, 9)
    maps = {name: full_maps(seen, scale, 9, name) for name in BRANCHES}
    by_max, by_mean = max_scores(seen, scale, 9), mean_scores(seen, means, 9)
    monkeypatch.setattr(scoring_maps, "MAP_CHUNK", chunk)
    assert next(scaled_maps(seen, scale, 9, "few")).shape == (chunk, 9, 9)
    assert map_scale(seen, 9).zero == pytest.approx(scale.zero) and mean_scale(seen, 9).few == pytest.approx(means.few)
    for name in BRANCHES:
        assert relative(full_maps(seen, scale, 9, name), maps[name]) < 1e-6
        assert relative(max_scores(seen, scale, 9)[name], by_max[name]) < 1e-6
        assert relative(mean_scores(seen, means, 9)[name], by_mean[name]) < 1e-6


def test_scoring_does_not_depend_on_the_batch():
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randn(7, 10, 6, generator=generator) for _ in range(2)]
    text = F.normalize(torch.randn(6, 2, generator=generator), dim=0)
    bank = bank_of([torch.randn(3, 10, 6, generator=generator) for _ in range(2)])
    whole = patch_scores(tokens, text, bank)
    assert whole.zero.shape == whole.few.shape == (7, 2, 3, 3) and len(whole) == 7
    parts = PatchScores.join([patch_scores([level[[row]] for level in tokens], text, bank) for row in range(7)])
    assert relative(parts.zero, whole.zero) < 1e-5 and relative(parts.few, whole.few) < 1e-5


def test_a_branch_without_text_or_bank_is_off():
    tokens = [torch.randn(2, 5, 6)]
    text, bank = torch.eye(6)[:, :2], bank_of(tokens)
    assert patch_scores(tokens, None, bank).zero is None and patch_scores(tokens, text, None).few is None
    for seen, branch in ((patch_scores(tokens, None, bank), "few"), (patch_scores(tokens, text, None), "zero")):
        assert len(seen) == 2 and len(PatchScores.join([seen, seen[:1]])) == 3
        scale = map_scale(seen, 4)
        assert max_scores(seen, scale, 4).keys() == {branch} and full_maps(seen, scale, 4, branch).shape == (2, 4, 4)
        assert mean_scores(seen, mean_scale(seen, 4), 4).keys() == {branch}


def test_rows_of_random_scores():
    seen = random_scores(4)
    picked = PatchScores.join([seen[:1], seen[[3, 1]]])
    assert picked.zero.equal(seen.zero[[0, 3, 1]]) and picked.few.equal(seen.few[[0, 3, 1]])


def test_maps_are_the_formulas():
    seen = random_scores(2)
    few = sum(upsample(seen.few[:, [tap]], 9)[:, 0] for tap in range(3))  # upsample, then sum
    assert relative(branch_maps(seen, "few", 9), few) < 1e-5
    two = torch.stack([-seen.zero / 2, seen.zero / 2], dim=2)  # logits of both classes, (N, T, 2, G, G)
    zero = sum(upsample(two[:, tap], 9).softmax(dim=1)[:, 1] for tap in range(3))  # upsample, softmax, sum
    assert relative(branch_maps(seen, "zero", 9), zero) < 1e-5


def test_means_are_the_formulas():
    seen = random_scores(2)
    assert relative(branch_means(seen, "few", 9), branch_maps(seen, "few", 9).mean(dim=(1, 2))) < 1e-6
    assert relative(branch_means(seen, "zero", 9), seen.zero.sigmoid().mean(dim=(2, 3)).sum(dim=1)) < 1e-6


def test_fusion_by_hand():
    zero, few = torch.tensor([0.0, 1.0, 4.0]), torch.tensor([3.0, 1.0, 2.0])
    fused = Scale((0.0, 4.0), (1.0, 3.0)).fuse(zero, few)
    assert fused["zero"].tolist() == [0, 0.25, 1] and fused["few"].tolist() == [1, 0, 0.5]
    assert fused["fused"].tolist() == [0.5, 0.125, 0.75]
    assert Scale((0.0, 4.0), None).fuse(zero, None).keys() == {"zero"}


def test_values_beyond_the_scale_are_not_cut():
    scaled = Scale((1.0, 2.0), None).fuse(torch.tensor([0.0, 1.5, 4.0]), None)["zero"]
    assert scaled.tolist() == [-1, 0.5, 3]


def test_constant_values_scale_to_nought():
    scaled = Scale((2.0, 2.0), (0.0, 0.0)).fuse(torch.full((3,), 2.0), torch.zeros(3))
    assert all(values.tolist() == [0, 0, 0] for values in scaled.values())


def test_scales_span_all_images():
    few = torch.tensor([[0.5, 0.7, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4], [0.9, 0.6, 0.5, 0.4]]).view(3, 1, 2, 2)
    seen = PatchScores(None, few)
    assert map_scale(seen, 2).few == pytest.approx((0.1, 0.9)) and map_scale(seen, 2).zero is None
    assert mean_scale(seen, 2).few == pytest.approx((0.25, 0.6))
    maps = full_maps(seen, map_scale(seen, 2), 2, "few")
    assert maps.min() == 0 and maps.max() == 1
    assert max_scores(seen, map_scale(seen, 2), 2)["few"].tolist() == pytest.approx([0.75, 0.375, 1])
    assert mean_scores(seen, mean_scale(seen, 2), 2)["few"].tolist() == pytest.approx([0.325 / 0.35, 0, 1])


def test_a_region_counts_by_its_share_of_patches():
    """By hand: two columns of patches, the region is the left half and an eighth of the whole on the right."""
    logits, few = torch.tensor([[0.0, 2.0], [0.0, 2.0]]), torch.tensor([[0.2, 0.6], [0.2, 0.6]])
    seen = PatchScores(logits.view(1, 1, 2, 2).repeat(1, 3, 1, 1), few.view(1, 1, 2, 2))
    within = torch.zeros(8, 8, dtype=torch.bool)
    within[:, :4] = True
    within[4:, 4:6] = True
    found = means_within(seen, within, 2)
    share = torch.tensor([2, 0.5]) / 2.5  # left and right
    assert found["zero"] == pytest.approx(3 * float((share * torch.tensor([0.0, 2.0]).sigmoid()).sum()))
    assert found["few"] == pytest.approx(float((share * torch.tensor([0.2, 0.6])).sum()))


def test_a_region_that_is_everything_changes_no_mean():
    generator = torch.Generator().manual_seed(0)
    seen = PatchScores(*(torch.rand(1, 2, 3, 3, generator=generator) for _ in range(2)))
    found = means_within(seen, torch.ones(30, 20, dtype=torch.bool), 9)
    for branch in ("zero", "few"):
        assert found[branch] == pytest.approx(float(branch_means(seen, branch, 9)[0]), rel=1e-5)
