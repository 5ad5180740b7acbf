"""Words by the folder's name, and the toy that needs no weights."""

import pytest
from helpers.lab import run
from helpers.predicting import noise

from apps.predict.own_words import UNKNOWN, own_words, says_something
from apps.predict.spec import PredictSpec
from CLIP.sources import TOY, TOY_NOTE
from runtime.errors import InputError


def spec(**asked: object) -> PredictSpec:
    return PredictSpec(output="out", **{"input": ("x",), **asked})


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("steel_bolts/train/good", "steel bolts"),
        ("Brain_AD/valid/good/img", "Brain"),
        ("solar-cells/2024-11-03/new images", "solar cells"),
        ("screw/good", "screw"),
        ("a/b/good/img/1/2/3", UNKNOWN),  # single letters and numbers say nothing, and far above nothing is looked for
    ],
)
def test_words_are_those_of_the_folder_that_says_something(tmp_path, capsys, folder, words):
    place = tmp_path / folder
    place.mkdir(parents=True)
    assert own_words(spec(normal=place)) == words
    assert f'prompts say "{words}" (' in capsys.readouterr().out


def test_without_normal_images_the_input_tells(tmp_path, monkeypatch):
    file = noise(tmp_path / "zip_ties" / "new" / "a.png")
    for name in (file, file.parent, file.parent / "*.png", file.parent.parent / "*" / "*.png"):
        assert own_words(spec(input=(str(name),))) == "zip ties", name
    monkeypatch.chdir(file.parent)
    assert own_words(spec(input=("a.png",))) == own_words(spec(input=(".",))) == "zip ties"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("good", False),
        ("New-Images_2", False),
        ("img", False),
        ("003", False),
        ("x", False),
        ("bolt", True),
        ("μ", False),
    ],
)
def test_names_that_say_nothing(name, says):
    assert says_something(name) is says


@pytest.mark.parametrize("flags", [["--demo_clip"], ["--model_name", TOY]])
def test_the_toy_needs_no_weights_and_is_named_wherever_it_shows(tmp_path, flags):
    noise(tmp_path / "bolts" / "new" / "a.png")
    usual = ["--input", tmp_path / "bolts", "--output", tmp_path / "out", "--cache_path", tmp_path / "cache"]
    done = run("predict", *usual, "--offline", "--device", "cpu", "--img_size", 64, "--prompts", "base", *flags)
    assert done.code == 0 and TOY_NOTE in done.out.splitlines()
    assert TOY_NOTE in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--demo_clip", "--model_name", "ViT-B-16"], "--model_name names another"),
        (["--demo_clip", "--clip_path", "w.pt"], "--clip_path names another"),
        (["--demo_clip", "--ckpt", "a.pth"], "--demo_clip is for scoring without --ckpt"),
    ],
)
def test_the_toy_is_one_model(tmp_path, flags, words):
    noise(tmp_path / "new" / "a.png")
    done = run("predict", "--input", tmp_path / "new", "--output", tmp_path / "out", *flags)
    assert done.code == 2 and words in done.err and done.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_what_the_toy_stands_for():
    made = PredictSpec.of({"input": ("x",), "output": "out", "demo_clip": True})
    assert (made.model_name, made.pretrain) == (TOY, "demo") and made.notes == [TOY_NOTE]
    assert PredictSpec.of({"input": ("x",), "output": "out"}).notes == []
    with pytest.raises(InputError, match="demo_clip"):
        PredictSpec.of({"input": ("x",), "output": "out", "demo_clip": 1})
