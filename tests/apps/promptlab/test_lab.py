"""The prompt lab without its page: it shows what test scripts compute, and an edit costs its sentence alone."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.lab import SIZE, write_clip

import prompt
from apps.promptlab.lab import Lab, Store
from apps.promptlab.open_lab import found_checkpoints, found_objects, open_lab
from apps.promptlab.prompt_set import PromptSet
from dataset import load_image
from decoder import patch_logits
from engine import options, text
from engine.system import System
from runtime.errors import InputError


def arguments(lab, *more):
    """Options of app.py that fit the test's folder."""
    flags = ["--device", "cpu", "--save_path", lab.root / "ckpt", "--cache_path", lab.root / "cache"]
    flags += ["--model_name", lab.config, "--clip_path", lab.weights, "--img_size", SIZE, "--data_path", lab.data]
    return options.app([*map(str, [*flags, "--prompts", lab.words, "--shot", 1, "--iterate", -1, *more])])


@pytest.fixture
def few(lab) -> Lab:
    """The lab of a small object with masks under a few-shot checkpoint."""
    lab.medical()
    lab.done("train_few")
    return open_lab(arguments(lab), "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")


@pytest.fixture
def bare(lab) -> Lab:
    """The same without a checkpoint."""
    lab.medical()
    return open_lab(arguments(lab), "Brain", None)


def added(prompts: PromptSet, sentence: str) -> PromptSet:
    return replace(prompts, normal=(*prompts.normal, sentence))


def plain(figures: dict) -> dict:
    return json.loads(json.dumps({branch: {k: float(v) for k, v in row.items()} for branch, row in figures.items()}))


def last(lab, name: str) -> dict:
    """The figures of the last epoch in a run's results."""
    outcomes = lab.results(name)["results"]
    return next(outcome for outcome in outcomes if outcome["selected"] == "last")["branches"]


@pytest.mark.parametrize("masks", ["anomaly_mask", None])
def test_figures_are_those_of_test_few(lab, masks):
    obj = "Brain" if masks else "Chest"
    lab.medical(obj, masks=masks)
    lab.done("train_few", "--obj", obj)
    lab.done("test_few", "--obj", obj)
    opened = open_lab(arguments(lab), obj, lab.root / "ckpt" / f"{obj}_1-shot.pth")
    assert plain(opened.look(opened.test, opened.start).figures) == last(lab, f"test_few/{obj}_1-shot")


def test_figures_of_an_edited_set_are_those_of_test_few_with_these_prompts(lab, few):
    edited = added(few.start, "a quiet {classname}")
    shown = plain(few.look(few.test, edited).figures)
    prompt.write_json(lab.root / "edited.json", *edited.sentences("Brain"))
    lab.run("test_few", "--prompts", lab.root / "edited.json")
    assert shown == last(lab, "test_few/Brain_1-shot")


def test_figures_are_those_of_test_zero(lab):
    lab.medical()
    lab.others()
    lab.done("train_zero")
    lab.done("test_zero")
    opened = open_lab(arguments(lab), "Brain", lab.root / "ckpt" / "Brain.pth")
    look = opened.look(opened.test, opened.start)
    assert plain(look.figures) == last(lab, "test_zero/Brain") and look.threshold == look.threshold
    edited = opened.look(opened.test, added(opened.start, "x"))
    assert edited.threshold != edited.threshold, "thresholds hold for the checkpoint's own prompts"


@pytest.mark.parametrize("kind", ["few", "bare"])
def test_an_edit_encodes_one_sentence_and_no_image(request, monkeypatch, kind):
    opened, encoded, encode = request.getfixturevalue(kind), [], text.encode
    before = opened.look(opened.test, opened.start)
    monkeypatch.setattr(text, "encode", lambda clip, sentences: encoded.extend(sentences) or encode(clip, sentences))
    monkeypatch.setattr(System, "prefix", lambda *_: pytest.fail("an image went through the trunk"))
    monkeypatch.setattr(System, "tokens", lambda *_: pytest.fail("an image went through the adapters"))
    after = opened.look(opened.test, added(opened.start, "a quiet {classname}"))
    opened.pulls(after)
    assert encoded == ["a quiet Brain"]
    assert not torch.equal(after.seen.maps.zero, before.seen.maps.zero)
    if kind == "few":
        assert torch.equal(after.seen.maps.few, before.seen.maps.few)
    assert opened.look(opened.test, opened.start).scores["zero"].equal(before.scores["zero"])
    assert len(encoded) == 1


def test_half_typed_sentences_stay_out_of_the_cache(lab, few):
    few.look(few.test[:1], added(few.start, "a qui"))
    again = open_lab(arguments(lab), "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")
    names = again.encoder.known
    assert len(names) == 4, "the four sentences of the words, and no more"


def test_the_bare_trunk_is_compared_in_the_joint_space(bare):
    look, visual = bare.look(bare.test[:1], bare.start), bare.system.decoder.visual
    assert bare.banks == {} and list(look.scores) == ["zero"] and look.threshold != look.threshold
    x = visual.embed(load_image(bare.test[0].image, SIZE)[None])
    for tap, block in enumerate(visual.transformer.resblocks):  # a tap after each
        x = block(x)
        expected = patch_logits(visual.ln_post(x) @ visual.proj, look.words.text).view(4, 4)
        assert torch.allclose(look.seen.maps.zero[0, tap], expected, atol=1e-3)


def test_maps_of_the_bare_trunk_are_probabilities(bare):
    look = bare.look(bare.test, bare.start)
    maps = torch.stack([torch.from_numpy(one) for one in look.maps()])
    assert maps.shape == (len(bare.test), SIZE, SIZE) and maps.min() >= 0 and maps.max() <= 1
    assert torch.allclose(maps.amax(dim=(1, 2)), look.scores["zero"])


@pytest.mark.parametrize("masks", ["anomaly_mask", None])
def test_pulls_are_what_leaving_a_sentence_out_changes(lab, masks):
    obj = "Brain" if masks else "Chest"
    lab.medical(obj, masks=masks)
    opened = open_lab(arguments(lab), obj, None)
    prompts = added(opened.start, "a quiet {classname}")
    look = opened.look(opened.test[-2:], prompts)

    def score(normal, abnormal, row):
        """By hand: mean over taps of the probability on the patch grid; maximum with masks, mean without."""
        words = text.directions(opened.encoder.features(normal), opened.encoder.features(abnormal))
        held = opened.store.get(look.samples[row].image).tokens[opened.heads[0]]
        share = torch.stack([patch_logits(level, words)[0].sigmoid() for level in held]).mean(dim=0)
        return float(share.max() if masks else share.mean())

    normal, abnormal = look.words.normal, look.words.abnormal
    for row, (for_normal, for_abnormal) in enumerate(opened.pulls(look)):
        whole = score(normal, abnormal, row)
        effects = {one: whole - score([s for s in normal if s != one], abnormal, row) for one in normal}
        strongest = max(effects, key=lambda one: abs(effects[one]))
        assert for_normal.sentence == strongest and for_normal.effect == pytest.approx(effects[strongest], abs=1e-5)
        effects = {one: whole - score(normal, [s for s in abnormal if s != one], row) for one in abnormal}
        strongest = max(effects, key=lambda one: abs(effects[one]))
        assert for_abnormal.sentence == strongest and for_abnormal.effect == pytest.approx(effects[strongest], abs=1e-5)


def test_an_only_sentence_cannot_be_left_out(bare):
    look = bare.look(bare.test[:1], PromptSet(("good",), ("bad", "worse")))
    ((normal, abnormal),) = bare.pulls(look)
    assert normal is None and abnormal.sentence in ("bad", "worse")


def test_directions_without_each_sentence():
    torch.manual_seed(0)
    normal, abnormal = (F.normalize(torch.randn(count, 8), dim=1) for count in (3, 2))
    left = text.without_each(normal, abnormal)
    expected = [text.directions(normal[[b for b in range(3) if b != a]], abnormal) for a in range(3)]
    expected += [text.directions(normal, abnormal[[1 - a]]) for a in range(2)]
    assert torch.allclose(left, torch.stack(expected), atol=1e-6)


def test_an_image_is_judged_as_among_others_and_nothing_is_kept(few):
    sample = few.test[-1]
    look, held = few.look(few.test, few.start), len(few.store.held)
    judged = few.judge(sample.image, few.start)
    for branch, scores in look.scores.items():
        assert float(judged.scores[branch]) == float(scores[-1])
    assert judged.threshold == look.threshold and judged.pixel_threshold == judged.pixel_threshold
    assert len(few.store.held) == held and judged.figures == {}


def test_an_edited_set_judges_by_the_supports_thresholds(few):
    edited = added(few.start, "a quiet {classname}")
    judged, look = few.judge(few.test[0].image, edited), few.look(few.test, edited)
    assert judged.threshold == look.threshold != few.look(few.test, few.start).threshold
    assert judged.pixel_threshold == judged.pixel_threshold


def test_more_images_than_memory_are_refused(lab):
    lab.medical()
    opened = open_lab(arguments(lab), "Brain", None)
    opened.store.limit = 10_000
    with pytest.raises(InputError, match=r"more than --tokens_gb holds; choose \d+ at most"):
        opened.look(opened.test, opened.start)
    opened.look(opened.test[:1], opened.start)


def test_the_store_forgets_the_longest_unused():
    class Ten:
        size = 10

    store = Store(25)
    store.put("a", Ten()), store.put("b", Ten()), store.get("a"), store.put("c", Ten())
    assert store.get("b") is None and store.get("a") and store.get("c") and store.size == 20


def test_without_support_the_prompts_alone_are_scored(lab, few):
    shutil.rmtree(lab.data / "Brain_AD" / "valid")
    opened = open_lab(arguments(lab), "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")
    look = opened.look(opened.test, opened.start)
    assert list(look.scores) == ["zero"] and "no support" in opened.notes[0]
    assert look.seen.maps.zero.equal(few.look(few.test, few.start).seen.maps.zero)


def test_another_objects_checkpoint_is_refused(lab, few):
    lab.medical("Liver")
    with pytest.raises(InputError, match="was trained on Brain, not on Liver"):
        open_lab(arguments(lab), "Liver", lab.root / "ckpt" / "Brain_1-shot.pth")


def test_a_checkpoint_of_other_weights_is_refused(lab, few, tmp_path):
    _, weights = write_clip(tmp_path, seed=1)
    args = arguments(lab, "--clip_path", weights)
    for _ in range(2):  # with the support at hand, then without
        with pytest.raises(InputError, match="other CLIP weights"):
            open_lab(args, "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")
        shutil.rmtree(lab.data / "Brain_AD" / "valid", ignore_errors=True)


def test_some_images_are_spread_over_both_labels(bare):
    chosen = bare.some(2)
    assert [sample.label for sample in chosen] == [0, 0, 1, 1]
    assert len(bare.some(1000)) == len(bare.test)


def test_overlong_sentences_are_said(bare):
    assert "exceed 77 tokens" in bare.look(bare.test[:1], added(bare.start, "word " * 90)).words.notes[0]


def test_what_can_be_chosen(lab, few):
    args = arguments(lab)
    assert found_objects(args) == ["Brain"]
    assert list(found_checkpoints(args, "Brain")) == ["Brain_1-shot.pth"]
    assert found_checkpoints(args, "Liver") == {}
    assert "mvtec/carpet" in found_objects(options.app(["--demo"]))
