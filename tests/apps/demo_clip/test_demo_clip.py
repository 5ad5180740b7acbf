"""Training of the embedded demo CLIP: pairs that are true, losses by hand, and a scale that changes nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.lab import files

import CLIP
from apps.demo_clip import __main__ as demo_clip
from apps.demo_clip.pairs import SIZE, UNSTATED, PairBatches, Phase, caption, crop, draw_pictures

NAMES = ("Brain", "Chest", "mvtec/carpet")
PHASE = Phase(1, 6, 64, (88, 144), 0.5)


@pytest.fixture(scope="module")
def drawings():
    return {name: draw_pictures(name, 4, seed=5) for name in NAMES}


def test_half_of_the_pictures_are_abnormal_and_marked(drawings):
    drawn = drawings["Brain"]
    assert drawn.pictures.shape == (4, SIZE, SIZE, 3)
    assert [words["state"] for words in drawn.words] == ["normal", "abnormal"] * 2
    assert drawn.masks.any(axis=(1, 2)).tolist() == [False, True] * 2
    again = draw_pictures("Brain", 2, seed=5)
    assert np.array_equal(again.pictures, drawn.pictures[:2]) and again.words == drawn.words[:2]


def test_a_crop_is_called_what_it_shows(drawings):
    """Past the lesion it is a normal picture; a cut through it is not taken."""
    drawn, rng = drawings["Brain"], np.random.default_rng(0)
    states = set()
    for _ in range(40):
        picture, facts = crop(rng, drawn, 1, replace(PHASE, whole=0.0))
        states.add(facts["state"])
        assert picture.shape[0] == picture.shape[1] < SIZE and "place" not in facts
    assert states == {"normal", "abnormal"}


def test_a_caption_states_facts_of_its_picture(drawings):
    words, rng = drawings["Brain"].words[1], np.random.default_rng(0)
    wordings = PairBatches(drawings, 0).wordings
    for _ in range(40):
        text, stated = caption(rng, words, wordings)
        assert text and stated.items() <= words.items()


def test_a_batch_knows_which_captions_are_true_of_which_pictures(drawings):
    batch = PairBatches(drawings, 0).draw(PHASE)
    assert batch.images.shape == (6, 3, 64, 64) and batch.images.min() >= 0 and batch.images.max() <= 1
    assert batch.truth.shape == (6, 6) and batch.truth.diagonal().all()
    other = batch.shown[:, None, 0] != batch.stated[None, :, 0]  # another object, or another state of it
    assert not batch.truth[other].any() and (batch.stated[:, 0] != UNSTATED).all()


def test_the_contrastive_loss_by_hand():
    """One caption is true of both pictures: it counts a half for each."""
    images, texts = torch.eye(2), torch.tensor([[1.0, 0], [1, 0]])
    truth, scale = torch.tensor([[1.0, 1], [0, 1]]), torch.tensor(2.0)
    by_image = -(0.5 * 2 * np.log(0.5) + np.log(0.5)) / 2
    low = np.log(1 + np.exp(-2))  # of the first picture under either text
    by_text = (low + (low + (low + 2)) / 2) / 2
    found = demo_clip.contrastive(images, texts, truth, scale)
    assert float(found) == pytest.approx((by_image + by_text) / 2, abs=1e-6)


def test_a_finding_that_is_not_stated_has_no_anchor():
    anchors = demo_clip.Anchors(2, 3, 8)
    features = torch.randn(4, 8)
    numbers = torch.tensor([[0, UNSTATED], [1, UNSTATED], [0, UNSTATED], [1, UNSTATED]])
    table, scaled = anchors.tables[0], F.normalize(features, dim=1) * 8**0.5
    assert torch.allclose(anchors(features, numbers), F.cross_entropy(table(scaled), numbers[:, 0]))


def test_the_folded_scale_keeps_probabilities():
    """About, on random weights, whose text features are not all of one length."""
    torch.manual_seed(0)
    model = CLIP.load_clip("ViT-T-16-demo", image_size=SIZE)
    with torch.no_grad():
        model.logit_scale.fill_(float(np.log(20)))
    ids, image = CLIP.tokenize(["a normal brain", "a brain with a mass", "a carpet"]), torch.rand(1, model.embed_dim)

    def probabilities() -> torch.Tensor:
        with torch.no_grad():
            texts = F.normalize(model.encode_text(ids), dim=1)
            return (model.logit_scale.exp() * F.normalize(image, dim=1) @ texts.T).softmax(dim=1)

    before = probabilities()
    demo_clip.fold_scale(model)
    assert float(model.logit_scale) == pytest.approx(np.log(100))
    assert torch.allclose(probabilities(), before, atol=0.05)
    with torch.no_grad():
        model.logit_scale.fill_(float(np.log(500)))  # what the same step would do without the fold
    assert not torch.allclose(probabilities(), before, atol=0.2)


def test_a_few_steps_write_weights_that_load(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_clip, "OBJECTS", dict.fromkeys(NAMES))
    monkeypatch.setattr(demo_clip, "HELD_OUT", 2)
    monkeypatch.setattr(demo_clip, "PHASES", (Phase(2, 6, 112, (88, 144), 0.0),))
    demo_clip.train(demo_clip.DemoClipSpec(pool=4, out=tmp_path, workers=1))
    assert files(tmp_path) == {"ViT-T-16-demo.safetensors", "ViT-T-16-demo.log.json"}
    log = json.loads((tmp_path / "ViT-T-16-demo.log.json").read_text())
    assert log["options"]["pool"] == "4" and log["log"][-1]["step"] == 2
    CLIP.load_clip("ViT-T-16-demo", tmp_path / "ViT-T-16-demo.safetensors")
