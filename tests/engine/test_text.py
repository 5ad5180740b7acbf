"""Sentences to directions: golden ensembles, and that batches change nothing."""

import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import FORWARD, arrays, relative
from helpers.parts import directions_of

import CLIP
import prompt
from engine import text
from runtime.cache import Cache

SENTENCES = [
    "a photo of a brain.",
    "x",
    "",
    "a far longer sentence, with several parts; and a number, 3.5 cm, in the middle of it all",
    "liver",
    "a photo of a damaged brain.",
    "a dark photo of the retina",
]


@pytest.mark.parametrize(("obj", "words"), [("Brain", "Brain"), ("Retina_RESC", "retinal OCT")])
def test_golden_ensembles(clip, obj, words):
    expected = arrays("text")[f"ensemble_{words}"]
    assert relative(directions_of(clip, *prompt.sentences(obj, "base", classname=words)), expected) < FORWARD


def test_features_are_the_towers_in_order_and_unit(clip):
    features = text.encode(clip, SENTENCES)
    alone = torch.cat([F.normalize(clip.encode_text(CLIP.tokenize(sentence))) for sentence in SENTENCES])
    assert relative(features, alone) < 1e-5
    assert torch.allclose(features.norm(dim=1), torch.ones(len(SENTENCES)))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_change_nothing(clip, monkeypatch, size):
    whole = text.encode(clip, SENTENCES)
    monkeypatch.setattr(text, "SINGLE", size)
    assert relative(text.encode(clip, SENTENCES), whole) < 1e-5


def test_directions_by_hand(clip):
    normal, abnormal = SENTENCES[:2], SENTENCES[2:]
    directions = directions_of(clip, normal, abnormal)
    assert directions.shape == (48, 2)
    for column, part in enumerate((normal, abnormal)):
        mean = text.encode(clip, part).mean(dim=0)
        assert relative(directions[:, column], mean / mean.norm()) < 1e-5
    swapped = directions_of(clip, abnormal, normal)
    assert relative(swapped, directions.flip(1)) < 1e-5


def test_one_sentence_a_class_is_that_sentence(clip):
    directions = directions_of(clip, ["x"], ["liver"])
    assert relative(directions, text.encode(clip, ["x", "liver"]).T) < 1e-6


def test_overlong_sentences_are_cut_and_said_once(clip):
    with pytest.warns(UserWarning, match="2 of 3 prompts exceed 77 tokens") as caught:
        features = text.encode(clip, ["word " * 75, "word " * 80, "word " * 90])
    assert len(caught) == 1
    assert relative(features[1:], features[:1].expand(2, -1)) < 1e-5


def test_no_gradient_is_kept(clip):
    assert not directions_of(clip, ["x"], ["liver"]).requires_grad


def test_a_feature_does_not_depend_on_its_company(clip):
    """To the bit, or what the cache has of an edited list of prompts would differ from a fresh encoding."""
    sentences = ["x", "a b", "liver", "bright lesion", "a scan", "no fracture of the left hip", "dark", "one two"]
    whole = text.encode(clip, sentences)
    assert text.encode(clip, sentences[::-1]).flip(0).equal(whole)
    assert torch.cat([text.encode(clip, [sentence]) for sentence in sentences]).equal(whole)


def test_a_sentence_is_encoded_once(clip, tmp_path, monkeypatch):
    encoded = []
    encode = text.encode
    monkeypatch.setattr(text, "encode", lambda clip, new: encoded.append(new) or encode(clip, new))
    loads = []

    def encoder() -> text.Encoder:
        return text.Encoder(lambda: loads.append(1) or clip, Cache(tmp_path, 1e6), "key", clip.embed_dim)

    with encoder() as first:
        features = first.features(["x", "liver", "x"])
        assert first.features(["liver"]).equal(features[1:2]) and features[0].equal(features[2])
    assert encoded == [["x", "liver"]] and loads == [1] and first.clip is None
    with encoder() as second:
        assert second.features(["liver", "x"]).equal(features[[1, 0]])
        assert loads == [1]
        second.features(["new", "liver"])
    assert encoded[1:] == [["new"]] and loads == [1, 1]
    assert features.equal(encode(clip, ["x", "liver", "x"]))
