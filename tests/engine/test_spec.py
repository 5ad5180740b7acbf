"""Specs: every setting once, checked wherever it comes from, frozen, and plain data there and back."""

import json
from dataclasses import FrozenInstanceError, fields, replace
from math import inf, nan
from pathlib import Path

import pytest

from engine import Predictor, evaluate, options
from engine.recipe import PARTS
from engine.settings import Spec
from engine.spec import (
    DEMO,
    FewShotSpec,
    FewShotTestSpec,
    ModelSpec,
    PredictorSpec,
    SystemSpec,
    TransferSpec,
    TransferTestSpec,
)
from madff import ATTENTIONS
from runtime.errors import InputError

RUNS = (FewShotSpec, FewShotTestSpec, TransferSpec, TransferTestSpec, PredictorSpec)

OTHER = {  # flags, and what they make of their settings: of every field another value than its default
    "--obj Liver": "Liver",
    "--data_path there": Path("there"),
    "--classname cat": "cat",
    "--demo": True,
    "--model_name ViT-B-16": "ViT-B-16",
    "--pretrain laion2b": "laion2b",
    "--clip_path w.pt": Path("w.pt"),
    "--trust_weights": True,
    "--offline": True,
    "--img_size 64": 64,
    "--features_list 1 2": (1, 2),
    "--adapter mvfa": "mvfa",
    "--madff fab sca": ("sca", "fab"),
    "--madff_axis token": "token",
    "--protocol sound": "sound",
    "--prompts base": "base",
    "--seed 4294967295": 2**32 - 1,
    "--device cpu": "cpu",
    "--cache_path c": Path("c"),
    "--cache_gb 0.5": 0.5,
    "--precision bf16": "bf16",
    "--compile": True,
    "--shot 2": 2,
    "--abnormal_shot 0": 0,
    "--iterate -1": -1,
    "--bank_cap coreset:9": "coreset:9",
    "--branches few": "few",
    "--method winclip": "winclip",
    "--batch_size 3": 3,
    "--num_workers 2": 2,
    "--results_path r": Path("r"),
    "--save_images i": Path("i"),
    "--epoch 0": 0,
    "--save_model 0": 0,
    "--log_dir l": Path("l"),
    "--save_every 0.5": 0.5,
    "--resume": True,
    "--restart": True,
    "--recipe robust": "robust",
    "--deterministic": True,
    "--folds 7": 7,
    "--threshold_rule recall:0.9": "recall:0.9",
    "--epoch_by support": "support",
    "--average_epochs 3": 3,
    "--ensemble 2": 2,
    "--synthetic 1": 1,
    "--fusion support": "support",
    "--image_score cues": "cues",
    "--smooth 1.5": 1.5,
    "--neighbourhood 3": 3,
    "--bank_taps support": "support",
    "--bank_variants none": "none",
    "--head linear": "linear",
    "--ckpt a.pth": Path("a.pth"),
    "--threshold -0.5": -0.5,
    "--pixel_threshold 1e3": 1000.0,
    "--tile 512": 512,
    "--overlap 7": 7,
    "--learning_rate 0.5": 0.5,
    "--eval_every 2": 2,
    "--save_path s": Path("s"),
}


def name_of(flags: str) -> str:
    return flags.split()[0].removeprefix("--")


def with_flags(kind: type[Spec], flags: str) -> Spec:
    return kind.of(options.parse(kind, flags.split()))


FOLLOW = {  # a setting, and what it settles too
    **{"clip_path": {"pretrain"}, "shot": {"abnormal_shot"}, "tile": {"overlap"}},
    **{"method": {"adapter", "recipe", *PARTS}, "recipe": set(PARTS)},
}
NEEDS = {"overlap": "--tile 64"}


@pytest.mark.parametrize("kind", RUNS)
def test_every_field_has_a_flag_that_sets_it_and_nothing_else(kind):
    names = {one.name for one in fields(kind)}
    of = {name_of(flags): flags for flags in OTHER}
    assert names <= of.keys()
    for name in names - {"demo"}:
        needed = NEEDS.get(name, "")
        usual, found = with_flags(kind, needed), with_flags(kind, f"{needed} {of[name]}")
        assert getattr(found, name) == OTHER[of[name]]
        differing = {one for one in names if getattr(found, one) != getattr(usual, one)}
        assert {name} <= differing <= {name} | FOLLOW.get(name, set())


@pytest.mark.parametrize("kind", RUNS)
def test_help_tells_every_field(kind, capsys):
    with pytest.raises(SystemExit):
        options.parse(kind, ["--help"])
    told = capsys.readouterr().out
    assert all(f"--{one.name}" in told and one.metadata["help"] for one in fields(kind))


def test_defaults_of_the_machine_lie_out_of_sight():
    """What need not be kept is hidden; what a run writes for people goes below results/."""
    assert FewShotSpec().cache_path == Path(".cache")
    assert FewShotSpec().log_dir is TransferSpec().log_dir is None  # the run's own folder
    assert FewShotSpec().results_path == Path("results")


def test_a_run_goes_on_or_begins_anew():
    with pytest.raises(InputError, match="leave one of the two out"):
        FewShotSpec(resume=True, restart=True)


@pytest.mark.parametrize("kind", RUNS)
def test_a_spec_is_what_its_flags_say_however_it_is_made(kind):
    """From a command line, from Python values, from JSON."""
    skipped = {"--demo", "--overlap 7", "--restart", "--method winclip"}
    flags = [one for one in OTHER if one not in skipped and name_of(one) in {field.name for field in fields(kind)}]
    by_flags = with_flags(kind, " ".join(flags))
    by_values = kind(**{name_of(one): OTHER[one] for one in flags})
    assert by_flags == by_values == kind.of(json.loads(json.dumps(by_values.plain())))
    assert hash(by_flags) == hash(by_values)


def test_plain_is_json():
    plain = FewShotSpec(features_list=[1, 2], clip_path="w.pt").plain()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["features_list"] == [1, 2] and plain["madff"] == list(ATTENTIONS)
    assert plain["clip_path"] == "w.pt" and plain["classname"] is None and plain["demo"] is False


BAD = [  # of FewShotSpec: a setting, and what it does not take
    *(("shot", value) for value in (0, -1, 1.5, 4.0, "x", "", nan, None, True, [4], (4,), {4}, b"4")),
    *(("seed", value) for value in (-1, 2**32, 0.5, nan, None)),
    *(("iterate", value) for value in (-2, "first", None)),
    *(("img_size", value) for value in (0, 240.5, "big", None, [240])),
    *(("epoch", value) for value in (-1, nan, inf, None)),
    *(("learning_rate", value) for value in (-1e-9, nan, inf, -inf, "fast", None, True, [1e-3])),
    *(("cache_gb", value) for value in (-1, nan, inf, "all")),
    *(("eval_every", value) for value in (-1, 0.5, nan)),
    *(("features_list", value) for value in ([0], [1, "x"], [1.5], 4, "6 12", [], (), [None], [[1]], {1})),
    *(("madff", value) for value in ("sca", ["gap"], None, [None], [True], {"sca"})),
    *(("adapter", value) for value in ("lora", "", None, ["madff"], 1)),
    *(("branches", value) for value in ("all", ("few",), None)),
    *(("precision", value) for value in ("int8", "fp16", 32, None)),  # which have no gradients
    *(("save_model", value) for value in (2, -1, True, None)),
    *(("bank_cap", value) for value in (0, -3, "half", "coreset:", 1.5)),
    *(("demo", value) for value in (1, 0, "yes", None)),
    *(("compile", value) for value in ("", "true", None)),
    *(("obj", value) for value in (None, ["Brain"], {}, b"Brain", True)),
    *(("data_path", value) for value in (None, ["data"], b"data")),
    *(("clip_path", value) for value in (["w.pt"], b"w.pt", False)),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_a_setting_does_not_take_is_refused_by_its_flag(name, value):
    for make in (lambda: FewShotSpec(**{name: value}), lambda: replace(FewShotSpec(), **{name: value})):
        with pytest.raises(InputError, match=f"^--{name} ") as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["threshold", "pixel_threshold"])
@pytest.mark.parametrize("value", [nan, inf, -inf, "x", True, [0.5]])
def test_thresholds_are_numbers(name, value):
    assert getattr(PredictorSpec(**{name: -2}), name) == -2.0
    with pytest.raises(InputError, match=f"^--{name} "):
        PredictorSpec(**{name: value})


def test_tiles_share_less_than_they_hold():
    assert PredictorSpec(tile=512).overlap == 128 and PredictorSpec(tile=512, overlap=0).overlap == 0
    assert PredictorSpec().overlap is None
    with pytest.raises(InputError, match="--overlap 512 must be less than --tile 512"):
        PredictorSpec(tile=512, overlap=512)
    with pytest.raises(InputError, match="give their size with --tile"):
        PredictorSpec(overlap=3)


def test_as_many_abnormal_images_as_normal_ones_unless_told():
    assert FewShotSpec(shot=7).abnormal_shot == 7
    assert FewShotSpec(shot=7, abnormal_shot=0).abnormal_shot == 0


def test_whose_weights_are_known_of_published_ones_alone():
    assert ModelSpec().pretrain == "openai"
    assert ModelSpec(clip_path="w.pt").pretrain is None
    assert ModelSpec(model_name="ViT-T-16-demo").pretrain == "demo"  # the only weights that it has
    assert ModelSpec(model_name="ViT-T-16-demo", clip_path="w.pt").pretrain is None
    assert ModelSpec(model_name="ViT-B-16").pretrain == "openai"
    assert ModelSpec(clip_path="w.pt", pretrain="laion2b").pretrain == "laion2b"


def test_branches_come_in_one_order_once():
    assert ModelSpec(madff=["fab", "sca", "fab"]).madff == ("sca", "fab")
    assert ModelSpec(madff=[]).madff == ()


@pytest.mark.parametrize("kind", RUNS)
def test_the_demo_brings_its_settings_and_gives_way(kind):
    names = {one.name for one in fields(kind)}
    found, own = kind.of(demo=True), kind.demo_settings()
    assert DEMO.items() <= own.items()
    assert {name: getattr(found, name) for name in own if name in names} == {
        name: value for name, value in own.items() if name in names
    }
    assert kind.of({"demo": True, "data_path": "here"}, seed=3) == replace(found, data_path="here", seed=3)
    assert kind.of(demo=False) == kind.of() == kind()


def test_the_demo_trains_less():
    assert (FewShotSpec.of(demo=True).epoch, FewShotSpec().epoch) == (3, 50)
    short = TransferSpec.of(demo=True)
    assert (short.epoch, short.learning_rate) == (5, 1e-3)
    assert FewShotSpec.of(demo=True, epoch=2).epoch == 2


@pytest.mark.parametrize("kind", RUNS[:4])
def test_numbers_may_be_left_to_the_program(kind):
    """Whole numbers of old records stay what they are; a training's steps have their own."""
    assert kind().num_workers == kind(num_workers="auto").num_workers == "auto"
    assert (kind(num_workers=0).num_workers, kind(num_workers="3").num_workers) == (0, 3)
    for name in ("num_workers", "batch_size"):
        with pytest.raises(InputError, match=rf"^--{name} x is not a whole number"):
            kind(**{name: "x"})
    with pytest.raises(InputError, match=r"^--num_workers 257 is not from 0 to 256, nor is it auto$"):
        kind(num_workers=257)
    trains = kind in (FewShotSpec, TransferSpec)
    assert kind().batch_size == (1 if trains else "auto")
    assert kind(batch_size=3).scored_together == ("auto" if trains else 3)
    if trains:
        with pytest.raises(InputError, match=r"^--batch_size auto is not a whole number$"):
            kind(batch_size="auto")


def test_settings_of_another_spec_are_passed_over_and_names_of_none_are_not():
    assert TransferTestSpec.of(FewShotSpec(img_size=64).plain()) == replace(
        TransferTestSpec(img_size=64), batch_size=1, save_path=FewShotSpec().save_path
    )
    with pytest.raises(InputError, match=r"^no setting shots; did you mean shot\?$"):
        FewShotSpec.of(shots=4)
    with pytest.raises(InputError, match=r"^no setting xyz$"):
        TransferSpec.of({"shot": 4}, xyz=1)


def test_a_checkpoint_is_not_used_with_a_setting_that_is_none(trained):
    path = trained.root / "ckpt" / "Brain_1-shot.pth"
    for use in (evaluate, Predictor.from_checkpoint):
        with pytest.raises(InputError, match=r"^no setting branch; did you mean branches\?$"):
            use(path, branch="few")
    with pytest.raises(InputError, match=r"^no setting shot"):
        evaluate(trained.root / "zero" / "Brain.pth", shot=1)


def test_a_spec_is_frozen():
    spec = SystemSpec(features_list=[1, 2])
    with pytest.raises(FrozenInstanceError):
        spec.seed = 3
    assert isinstance(spec.features_list, tuple)  # nothing in it can be changed either
    assert replace(spec, seed=3).seed == 3 and spec.seed == 111
