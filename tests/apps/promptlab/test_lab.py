"""The prompt lab without its page: it shows what test scripts compute, and an edit costs its sentence alone."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cachetools import LRUCache
from helpers.lab import SIZE, write_clip
from helpers.promptlab import asked

import prompt
from apps.promptlab.lab import Lab
from apps.promptlab.open_lab import LabSpec, found_checkpoints, found_objects, open_lab
from apps.promptlab.prompt_set import PromptSet
from dataset import load_image
from decoder import patch_logits
from engine import text
from engine.system import System
from runtime.errors import InputError
from scoring.maps import FUSION


@pytest.fixture
def few(lab) -> Lab:
    """The lab of a small object with masks under a few-shot checkpoint."""
    lab.medical()
    lab.done("train_few")
    return open_lab(asked(lab), "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")


@pytest.fixture
def bare(lab) -> Lab:
    """The same without a checkpoint."""
    lab.medical()
    return open_lab(asked(lab), "Brain", None)


def added(prompts: PromptSet, sentence: str) -> PromptSet:
    return replace(prompts, normal=(*prompts.normal, sentence))


def plain(figures: dict) -> dict:
    return json.loads(json.dumps({branch: {k: float(v) for k, v in row.items()} for branch, row in figures.items()}))


def last(lab, name: str) -> dict:
    """The figures of the last epoch in a run's results."""
    results = lab.results(name)["results"]
    return next(result for result in results if result["selected"] == "last")["branches"]


@pytest.mark.parametrize("masks", ["anomaly_mask", None])
def test_figures_are_those_of_test_few(lab, masks):
    obj = "Brain" if masks else "Chest"
    lab.medical(obj, masks=masks)
    lab.done("train_few", "--obj", obj)
    lab.done("test_few", "--obj", obj)
    opened = open_lab(asked(lab), obj, lab.root / "ckpt" / f"{obj}_1-shot.pth")
    assert plain(opened.predict(opened.test, opened.start).figures) == last(lab, f"test_few/{obj}_1-shot")


def test_figures_of_an_edited_set_are_those_of_test_few_with_these_prompts(lab, few):
    edited = added(few.start, "a quiet {classname}")
    shown = plain(few.predict(few.test, edited).figures)
    prompt.write_json(lab.root / "edited.json", *edited.sentences("Brain"))
    lab.run("test_few", "--prompts", lab.root / "edited.json")
    assert shown == last(lab, "test_few/Brain_1-shot")


def test_figures_are_those_of_test_zero(lab):
    lab.medical()
    lab.others()
    lab.done("train_zero")
    lab.done("test_zero")
    opened = open_lab(asked(lab), "Brain", lab.root / "ckpt" / "Brain.pth")
    result = opened.predict(opened.test, opened.start)
    assert plain(result.figures) == last(lab, "test_zero/Brain") and result.threshold == result.threshold
    edited = opened.predict(opened.test, added(opened.start, "x"))
    assert edited.threshold != edited.threshold, "thresholds hold for the checkpoint's own prompts"


@pytest.mark.parametrize("kind", ["few", "bare"])
def test_an_edit_encodes_one_sentence_and_no_image(request, monkeypatch, kind):
    opened, encoded, encode = request.getfixturevalue(kind), [], text.encode
    before = opened.predict(opened.test, opened.start)
    monkeypatch.setattr(text, "encode", lambda clip, sentences: encoded.extend(sentences) or encode(clip, sentences))
    monkeypatch.setattr(System, "prefix", lambda *_: pytest.fail("an image went through the trunk"))
    monkeypatch.setattr(System, "tokens", lambda *_: pytest.fail("an image went through the adapters"))
    after = opened.predict(opened.test, added(opened.start, "a quiet {classname}"))
    opened.pulls(after)
    assert encoded == ["a quiet Brain"]
    assert not torch.equal(after.seen.map_patches.zero, before.seen.map_patches.zero)
    if kind == "few":
        assert torch.equal(after.seen.map_patches.few, before.seen.map_patches.few)
    assert opened.predict(opened.test, opened.start).scores["zero"].equal(before.scores["zero"])
    assert len(encoded) == 1


def test_half_typed_sentences_stay_out_of_the_cache(lab, few):
    few.predict(few.test[:1], added(few.start, "a qui"))
    again = open_lab(asked(lab), "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")
    names = again.encoder.known
    assert len(names) == 4, "the four sentences of the words, and no more"


def test_the_bare_trunk_is_compared_in_the_joint_space(bare):
    result, visual = bare.predict(bare.test[:1], bare.start), bare.system.decoder.visual
    assert bare.banks == {} and list(result.scores) == ["zero"] and result.threshold != result.threshold
    x = visual.embed(load_image(bare.test[0].image, SIZE)[None])
    for tap, block in enumerate(visual.transformer.resblocks):  # a tap after each
        x = block(x)
        expected = patch_logits(visual.ln_post(x) @ visual.proj, result.words.text).view(4, 4)
        assert torch.allclose(result.seen.map_patches.zero[0, tap], expected, atol=1e-3)


def test_maps_of_the_bare_trunk_are_probabilities(bare):
    result = bare.predict(bare.test, bare.start)
    maps = torch.stack([torch.from_numpy(one) for one in result.maps()])
    assert maps.shape == (len(bare.test), SIZE, SIZE) and maps.min() >= 0 and maps.max() <= 1
    assert torch.allclose(maps.amax(dim=(1, 2)), result.scores["zero"])


@pytest.mark.parametrize("masks", ["anomaly_mask", None])
def test_pulls_are_what_leaving_a_sentence_out_changes(lab, masks):
    obj = "Brain" if masks else "Chest"
    lab.medical(obj, masks=masks)
    opened = open_lab(asked(lab), obj, None)
    prompts = added(opened.start, "a quiet {classname}")
    result = opened.predict(opened.test[-2:], prompts)

    def score(normal, abnormal, row):
        """By hand: mean over taps of the probability on the patch grid; maximum with masks, mean without."""
        words = text.directions(opened.encoder.features(normal), opened.encoder.features(abnormal))
        held = opened.store.get(result.samples[row].image).tokens[opened.rule.map_head]
        share = torch.stack([patch_logits(level, words)[0].sigmoid() for level in held]).mean(dim=0)
        return float(share.max() if masks else share.mean())

    normal, abnormal = result.words.normal, result.words.abnormal
    for row, (for_normal, for_abnormal) in enumerate(opened.pulls(result)):
        whole = score(normal, abnormal, row)
        effects = {one: whole - score([s for s in normal if s != one], abnormal, row) for one in normal}
        strongest = max(effects, key=lambda one: abs(effects[one]))
        assert for_normal.sentence == strongest and for_normal.effect == pytest.approx(effects[strongest], abs=1e-5)
        effects = {one: whole - score(normal, [s for s in abnormal if s != one], row) for one in abnormal}
        strongest = max(effects, key=lambda one: abs(effects[one]))
        assert for_abnormal.sentence == strongest and for_abnormal.effect == pytest.approx(effects[strongest], abs=1e-5)


def test_an_only_sentence_cannot_be_left_out(bare):
    result = bare.predict(bare.test[:1], PromptSet(("good",), ("bad", "worse")))
    ((normal, abnormal),) = bare.pulls(result)
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
    result, held = few.predict(few.test, few.start), len(few.store)
    judged = few.judge(sample.image, few.start)
    for branch, scores in result.scores.items():
        assert float(judged.scores[branch]) == float(scores[-1])
    assert judged.threshold == result.threshold and judged.pixel_threshold == judged.pixel_threshold
    assert len(few.store) == held and judged.figures == {}


def test_the_parts_of_a_score_are_of_one_place_and_add_up(lab, few):
    """Each branch's own maximum lies elsewhere."""
    result = few.predict(few.some(3), few.start)
    apart = 0
    for row in range(6):
        parts = result.parts(row)
        assert parts["fused"] == pytest.approx(float(result.scores["fused"][row]), abs=1e-6)
        assert parts["fused"] == pytest.approx(FUSION * parts["zero"] + (1 - FUSION) * parts["few"], abs=1e-6)
        apart += any(float(result.scores[name][row]) > parts[name] + 1e-4 for name in ("zero", "few"))
    assert apart


def test_the_parts_of_a_mean_are_the_means(lab):
    lab.medical("Chest", masks=None)
    lab.done("train_few", "--obj", "Chest")
    chest = open_lab(asked(lab), "Chest", lab.root / "ckpt" / "Chest_1-shot.pth")
    result = chest.predict(chest.some(1), chest.start)
    assert result.parts(1) == {branch: float(scores[1]) for branch, scores in result.scores.items()}


def test_an_edited_set_judges_by_the_supports_thresholds(few):
    edited = added(few.start, "a quiet {classname}")
    judged, result = few.judge(few.test[0].image, edited), few.predict(few.test, edited)
    assert judged.threshold == result.threshold != few.predict(few.test, few.start).threshold
    assert judged.pixel_threshold == judged.pixel_threshold


def test_more_images_than_memory_are_refused(lab):
    lab.medical()
    opened = open_lab(asked(lab), "Brain", None)
    opened.store = LRUCache(10_000, getsizeof=opened.store.getsizeof)
    with pytest.raises(InputError, match=r"more than --tokens_gb holds; choose \d+ at most"):
        opened.predict(opened.test, opened.start)
    opened.predict(opened.test[:1], opened.start)


def test_images_that_were_not_looked_at_for_long_make_room(bare):
    first, *others = bare.test
    bare.predict([first], bare.start)
    bare.store = LRUCache(2.5 * bare.store.currsize, getsizeof=bare.store.getsizeof)
    for sample in (first, others[0], first, others[1]):
        bare._hold([sample])
    assert set(bare.store) == {first.image, others[1].image}


def test_without_support_the_prompts_alone_are_scored(lab, few):
    shutil.rmtree(lab.data / "Brain_AD" / "valid")
    opened = open_lab(asked(lab), "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")
    result = opened.predict(opened.test, opened.start)
    assert list(result.scores) == ["zero"] and "no support" in opened.notes[0]
    assert result.seen.map_patches.zero.equal(few.predict(few.test, few.start).seen.map_patches.zero)


def test_another_objects_checkpoint_is_refused(lab, few):
    lab.medical("Liver")
    with pytest.raises(InputError, match="was trained on Brain, not on Liver"):
        open_lab(asked(lab), "Liver", lab.root / "ckpt" / "Brain_1-shot.pth")


def test_a_checkpoint_of_other_weights_is_refused(lab, few, tmp_path):
    _, weights = write_clip(tmp_path, seed=1)
    other = asked(lab, "--clip_path", weights)
    for _ in range(2):  # with the support at hand, then without
        with pytest.raises(InputError, match="other CLIP weights"):
            open_lab(other, "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")
        shutil.rmtree(lab.data / "Brain_AD" / "valid", ignore_errors=True)


def test_a_checkpoint_of_other_support_images_is_refused(lab, few):
    for image in (lab.data / "Brain_AD" / "valid" / "good" / "img").iterdir():
        image.rename(image.with_name(f"other_{image.name}"))
    with pytest.raises(InputError, match="has other support images than"):
        open_lab(asked(lab), "Brain", lab.root / "ckpt" / "Brain_1-shot.pth")


@pytest.mark.parametrize("flags", [("--adapter", "mvfa"), ("--madff", "fab"), ("--madff_axis", "token")])
def test_without_a_checkpoint_there_are_no_adapters_to_choose(lab, flags):
    lab.medical()
    with pytest.raises(InputError, match=f"^{flags[0]} says which adapters, and without a checkpoint there are none"):
        open_lab(asked(lab, *flags), "Brain", None)


def test_transferred_adapters_have_no_bank_to_score_by(lab):
    lab.medical()
    lab.others()
    lab.done("train_zero")
    with pytest.raises(InputError, match="no memory bank: leave --branches out"):
        open_lab(asked(lab, "--branches", "both"), "Brain", lab.root / "ckpt" / "Brain.pth")


def test_some_images_are_spread_over_both_labels(bare):
    chosen = bare.some(2)
    assert [sample.label for sample in chosen] == [0, 0, 1, 1]
    assert len(bare.some(1000)) == len(bare.test)


def test_overlong_sentences_are_said(bare):
    assert "exceed 77 tokens" in bare.predict(bare.test[:1], added(bare.start, "word " * 90)).words.notes[0]


def test_what_can_be_chosen(lab, few):
    settings = asked(lab)
    spec = LabSpec.of(settings)
    assert found_objects(spec, settings) == ["Brain"]
    assert list(found_checkpoints(spec, "Brain")) == ["Brain_1-shot.pth"]
    assert found_checkpoints(spec, "Liver") == {}
    assert "mvtec/carpet" in found_objects(LabSpec(demo=True), {"demo": True})
