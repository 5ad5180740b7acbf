"""The steps of training, the order of images, the support in all its variants, and which snapshot is kept."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dataset import FewShotSet, Sample, load_image, load_mask
from dataset.registry import find
from decoder import MDecoder
from engine.checkpoint import Snapshot
from engine.evaluations import Evaluations
from engine.support import load_support
from engine.system import System
from engine.training import BETAS, Log, Trainer, TrainingHistory, shuffled
from loss import adapter_loss
from runtime.errors import InputError
from runtime.graphs import WARM
from runtime.linear import packs
from utils import VARIANTS, augment

SIZE = 28  # four patches: quick


@pytest.fixture
def system(clip) -> System:
    torch.manual_seed(0)
    return System(MDecoder(clip, adapter="mvfa"), torch.device("cpu"), SIZE)


@pytest.fixture
def text() -> Tensor:
    first, step = torch.randn(2, 48, generator=torch.manual_seed(0))
    return F.normalize(torch.stack([first, first + 0.05 * step], dim=1), dim=0)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and masks of one normal and one abnormal image."""
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.manual_seed(1))
    return images, torch.tensor([0.0, 1.0]), torch.stack([torch.zeros(1, SIZE, SIZE), torch.ones(1, SIZE, SIZE)])


@pytest.mark.parametrize("masks", [True, False])
def test_a_step_is_adam_on_the_loss_before_it(clip, system, text, masks):
    twin = MDecoder(clip, adapter="mvfa")
    twin.load_adapters(system.decoder.adapter_state())
    images, labels, mask = batch()
    mask = mask if masks else None
    stepped = [*twin.det_adapters.parameters(), *(twin.seg_adapters.parameters() if masks else ())]
    optimizer, start = torch.optim.Adam(stepped, 1e-2, BETAS), twin.adapter_state()
    trainer = Trainer(system, 1e-2)
    for _ in range(3):
        loss = adapter_loss(twin.decode(system.prefix(images)), text, labels, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert trainer.step(system.prefix(images), labels, mask, text).item() == pytest.approx(loss.item(), rel=1e-5)
    for name, tensor in twin.state_dict().items():
        assert torch.allclose(system.decoder.state_dict()[name], tensor, atol=1e-5), name
    for head, moved in (("seg_adapters", masks), ("det_adapters", True)):
        now = system.decoder.adapter_state()[head]
        read = [name for name in now if name != "3.fc2.0.weight"]  # which gives to a trunk that ends there
        assert [now[name].equal(start[head][name]) for name in read] == [not moved] * len(read)


def test_objects_with_and_without_masks_in_turn_step_the_seg_adapters_only_with_masks(system, text):
    """As in zero-shot training: what a step without masks leaves behind does not reach the next one's."""
    images, labels, masks = batch()
    trainer, prefixes, seen = Trainer(system, 1e-2), system.prefix(images), []
    for mask in (masks, None, None, masks):
        before = system.decoder.adapter_state()["seg_adapters"]
        trainer.step(prefixes, labels, mask, text)
        after = system.decoder.adapter_state()["seg_adapters"]
        seen.append(all(tensor.equal(before[name]) for name, tensor in after.items()))
    assert seen == [False, True, True, False]
    steps = {head: next(iter(one.state.values()))["step"].item() for head, one in trainer.optimizers.items()}
    assert steps == {"seg": 2, "det": 4}


def test_on_cuda_steps_of_the_same_shapes_are_recorded_once(system, text, monkeypatch):
    """A recording is of the same shapes, with masks or without, of the same share; mocked, for want of CUDA."""
    images, labels, masks = batch()
    prefixes, made = system.prefix(images), []

    def recorded(device: torch.device, pool: tuple[int, int]) -> Callable[..., Tensor]:
        made.append((device, pool))
        return lambda call, *given: call(*given)

    monkeypatch.setattr("engine.training.Recorded", recorded)
    trainers = [Trainer(system, 1e-2) for _ in range(2)]
    start, losses = system.decoder.adapter_state(), []
    trainers[1].recorded, trainers[1].pool = {}, (0, 1)
    for trainer in trainers:
        system.decoder.load_adapters(start)
        steps = [(labels, masks, 1.0), (labels, masks, 1.0), (labels, None, 1.0), (labels, masks, 0.5)]
        losses.append([trainer.step(prefixes, *one[:2], text, one[2]).item() for one in steps])
        losses[-1].append(trainer.step(prefixes[:1], labels[:1], masks[:1], text).item())
    assert losses[0] == losses[1] and made == [(system.device, (0, 1))] * 4
    assert trainers[0].recorded is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_recorded_steps_are_those_that_go_one_by_one(clip):
    """With masks, without, and of fewer images in turn, until all were recorded and started again."""
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    images, labels, masks = (one.to(device) for one in batch())
    losses, text = [], F.normalize(torch.randn(48, 2, generator=torch.manual_seed(0)), dim=0).to(device)
    for recorded in (True, False):
        torch.manual_seed(0)
        system = System(MDecoder(copy.deepcopy(clip), adapter="mvfa").to(device), device, SIZE)
        trainer, prefixes = Trainer(system, 1e-3), system.prefix(images.cpu())
        trainer.recorded = trainer.recorded if recorded else None
        losses.append([])
        for _ in range(WARM + 3):
            for count, mask in ((2, masks), (2, None), (1, masks[:1])):
                losses[-1].append(trainer.step(prefixes[:count], labels[:count], mask, text).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@pytest.mark.skipif(not packs(torch.bfloat16), reason="this machine has no products in 16 bits")
def test_what_is_scored_between_steps_is_of_the_adapters_as_they_are(clip, text):
    """Scoring keeps their weights packed, and Adam's fused step does not say that it has changed them."""
    torch.manual_seed(0)
    systems = [System(MDecoder(clip, half=torch.bfloat16), torch.device("cpu"), SIZE) for _ in range(2)]
    trainer, prefix = Trainer(systems[0], 1e-2), systems[0].prefix(torch.rand(1, 3, SIZE, SIZE))
    before = None
    for _ in range(3):
        trainer.step(prefix, torch.ones(1), torch.ones(1, 1, SIZE, SIZE), text)
        systems[1].decoder.load_adapters(systems[0].decoder.adapter_state())
        found, expected = (next(iter(one.tokens(prefix, ("seg", "det")))).seg_tokens for one in systems)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert before is None or not found[-1].equal(before)
        before = found[-1]


def test_steps_lower_the_loss(system, text):
    images, labels, masks = batch()
    trainer = Trainer(system, 1e-3)
    losses = [trainer.step(system.prefix(images), labels, masks, text) for _ in range(30)]
    assert min(losses[-3:]) < 0.9 * losses[0]


def test_a_loss_that_is_no_number_stops_before_the_step(system, text):
    images, labels, masks = batch()
    before = system.decoder.adapter_state()
    with pytest.raises(InputError, match="the loss became nan; train with a lower --learning_rate"):
        Trainer(system, 1e-3).step(system.prefix(images) * math.nan, labels, masks, text)
    after = system.decoder.adapter_state()
    assert all(after[head][name].equal(tensor) for head, part in before.items() for name, tensor in part.items())


def test_every_row_comes_once_an_epoch_in_an_order_of_the_seed():
    def epochs(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.cat(list(shuffled(20, 3, generator))).tolist() for _ in range(2)]

    first, second = epochs(1)
    assert sorted(first) == sorted(second) == list(range(20)) and first != second
    assert epochs(1) == [first, second] and epochs(2)[0] != first
    assert [len(rows) for rows in shuffled(20, 3, torch.Generator())] == [3] * 6 + [2]


def sample(folder: Path, name: str, label: int, masked: bool = False) -> Sample:
    """An image file of random pixels, and a mask file if it has one."""
    rng = np.random.default_rng(len(list(folder.iterdir())))
    image, mask = folder / f"{name}.png", folder / f"{name}_mask.png"
    Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(image)
    if masked:
        Image.fromarray(255 * rng.integers(0, 2, (SIZE, SIZE), np.uint8)).save(mask)
    return Sample(image, label, mask if masked else None)


def test_support_comes_abnormal_first_and_variant_by_variant(tmp_path):
    normal = tuple(sample(tmp_path, f"n{row}", 0) for row in range(3))
    abnormal = tuple(sample(tmp_path, f"a{row}", 1, masked=True) for row in range(2))
    support = load_support(FewShotSet(find("Brain", tmp_path), normal, abnormal, (), {}), SIZE)
    assert support.labels.tolist() == [1.0] * 2 * VARIANTS + [0.0] * 3 * VARIANTS
    assert support.source.tolist() == [0, 1] * VARIANTS + [2, 3, 4] * VARIANTS
    expected = [variant for many in (2, 3) for variant in range(VARIANTS) for _ in range(many)]
    assert support.variant.tolist() == expected
    assert support.normal.tolist() == list(range(2 * VARIANTS, 5 * VARIANTS))
    for row, (source, variant) in enumerate(zip(support.source.tolist(), support.variant.tolist(), strict=True)):
        of = (abnormal + normal)[source]
        mask = load_mask(of.mask, SIZE) if of.mask else torch.zeros(1, SIZE, SIZE)
        images, masks = augment(load_image(of.image, SIZE), mask)
        assert support.images[row].equal(images[variant]) and support.masks[row].equal(masks[variant])


def test_support_without_abnormal_images(tmp_path):
    normal = (sample(tmp_path, "n", 0),)
    support = load_support(FewShotSet(find("Brain", tmp_path), normal, (), (), {}), SIZE)
    assert len(support.images) == VARIANTS and not support.labels.any() and not support.masks.any()
    assert not support.source.any() and support.normal.tolist() == list(range(VARIANTS))


@pytest.mark.parametrize(("later", "best"), [(False, 2), (True, 3)])
def test_the_best_snapshot_scores_highest_and_is_the_first_or_the_last_that_does(later, best):
    snapshots = [Snapshot(epoch, {}, None) for epoch in range(5)]
    history = TrainingHistory(snapshots[0])
    assert history.best is None
    for snapshot, value in zip(snapshots, (math.nan, 0.5, 0.75, 0.75, 0.25), strict=True):
        history.offer(snapshot, f"scores of {snapshot.epoch}", value, later)
    assert (history.best, history.best_scores) == (snapshots[best], f"scores of {best}")
    assert history.best_value == 0.75


@pytest.mark.parametrize(
    ("evaluations", "epochs", "steps", "plan"),
    [
        (Evaluations(1), 3, 8, {8: 1, 16: 2, 24: 3}),
        (Evaluations(2), 5, 8, {16: 2, 32: 4}),
        (Evaluations(0), 5, 8, {}),
        (Evaluations(0, ahead=True), 5, 8, {}),
        (Evaluations(0.2, ahead=True), 2, 10, {2 * k: k / 5 for k in range(10)}),  # five an epoch, as published
        (Evaluations(0.2, ahead=True), 1, 13, {0: 0, 2: 0.2, 5: 0.4, 7: 0.6, 10: 0.8}),
        (Evaluations(0.2, ahead=True), 0, 13, {}),
        (Evaluations(1, ahead=True), 3, 8, {0: 0, 8: 1, 16: 2}),
        (Evaluations(1.5, ahead=True), 3, 10, {0: 0, 15: 1.5}),
        (Evaluations(2, ahead=True), 3, 8, {0: 0, 16: 2}),
        (Evaluations(0.001, ahead=True), 1, 2, {0: 0, 1: 0.5}),
    ],
)
def test_evaluations_come_before_or_after_their_part_of_training(evaluations, epochs, steps, plan):
    assert evaluations.plan(epochs, steps) == plan


def test_scalars_are_logged(tmp_path):
    log = Log(tmp_path / "log")
    log.add(3, loss=0.5, auroc=0.25)
    log.close()
    (file,) = (tmp_path / "log").iterdir()
    content = file.read_bytes()
    assert b"loss" in content and b"auroc" in content
