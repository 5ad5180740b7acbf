"""Every flag of the scripts: it changes what it says and nothing else. Test scripts follow their checkpoint."""

import json
import math
from pathlib import Path

import pytest
import torch
from helpers.lab import Lab, Run, files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from decoder import HEADS
from engine import build, options
from engine.checkpoint import Checkpoint, Snapshot
from engine.settings import Spec
from engine.spec import FewShotSpec, FewShotTestSpec, SystemSpec, TransferSpec, TransferTestSpec
from madff import ATTENTIONS, build_adapter
from runtime.errors import InputError


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """Something to compare that a changed last bit changes."""
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def traits(lab: Lab, run: Run, name: str) -> dict[str, object]:
    """What a training run came to, in parts that flags may or may not change. "zero" and "few" are patch scores."""
    record, trained = lab.results(name), lab.checkpoint(name.partition("/")[2])
    adapters = {f"{head}.{key}": part for head, of in trained.last.adapters.items() for key, part in of.items()}
    parts = {"map": run.seen[0].map_patches, "score": run.seen[0].mean_patches or run.seen[0].map_patches}
    scored = {branch: {key: getattr(part, branch) for key, part in parts.items()} for branch in ("zero", "few")}
    return {
        "support": record.get("support"),
        "prompts": record["prompts_sha256"],
        "shapes": {key: part.shape for key, part in adapters.items()},
        "adapters": bits(adapters),
        "rows": list(record["results"][0]["branches"]),
        "epochs": [(result["selected"], result["epoch"]) for result in record["results"]],
        **{branch: None if part["map"] is None else bits(part) for branch, part in scored.items()},
    }


def changed(one: dict[str, object], other: dict[str, object]) -> set[str]:
    """The names under which two dicts differ."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


MODEL = {"shapes", "adapters", "zero", "few"}
VALUES = {"adapters", "zero", "few"}
FEW = {  # flags of train_few.py -> the options that differ, the traits that differ
    "--adapter mvfa": ({"adapter"}, MODEL),
    "--adapter projector": ({"adapter"}, MODEL),
    "--madff": ({"madff"}, MODEL),
    "--madff sca": ({"madff"}, MODEL),
    "--madff llspm": ({"madff"}, MODEL),
    "--madff fab llspm": ({"madff"}, MODEL),
    "--madff sca llspm fab": (set(), set()),
    "--madff_axis token": ({"madff_axis"}, VALUES),
    "--features_list 2 4": ({"features_list"}, MODEL),
    "--features_list 1 2 3 4": (set(), set()),
    "--branches few": ({"branches"}, {"zero", "rows"}),
    "--branches zero": ({"branches"}, {"few", "rows"}),
    "--protocol sound": ({"protocol"}, VALUES),
    "--prompts base": ({"prompts"}, VALUES | {"prompts"}),
    "--prompts llm": ({"prompts"}, VALUES | {"prompts"}),
    "--prompts all": ({"prompts"}, VALUES | {"prompts"}),
    "--classname cat": ({"classname"}, VALUES | {"prompts"}),
    "--abnormal_shot 0": ({"abnormal_shot", "branches"}, MODEL | {"support", "prompts", "rows", "epochs"}),
    "--abnormal_shot 2": ({"abnormal_shot"}, VALUES | {"support"}),
    "--seed 7": ({"seed"}, VALUES | {"support"}),
    "--img_size 48": ({"img_size"}, VALUES),
    "--learning_rate 0.01": ({"learning_rate"}, VALUES),
    "--batch_size 1": ({"batch_size"}, VALUES),
    "--epoch 0": ({"epoch"}, VALUES | {"epochs"}),
    "--epoch 2": ({"epoch"}, VALUES | {"epochs"}),
    "--eval_every 0": ({"eval_every"}, {"epochs"}),
    "--eval_every 2": ({"eval_every"}, {"epochs"}),
    "--num_workers 2": ({"num_workers"}, set()),
    "--offline": ({"offline"}, set()),
    "--trust_weights": ({"trust_weights"}, set()),
}
ZERO = {  # the same of train_zero.py
    "--adapter mvfa": ({"adapter"}, {"shapes", "adapters", "zero"}),
    "--madff_axis token": ({"madff_axis"}, {"adapters", "zero"}),
    "--features_list 4": ({"features_list"}, {"shapes", "adapters", "zero"}),
    "--protocol sound": ({"protocol"}, {"adapters", "zero"}),
    "--prompts base": ({"prompts"}, {"adapters", "zero", "prompts"}),
    "--classname cat": ({"classname"}, {"zero", "prompts"}),
    "--seed 7": ({"seed"}, {"adapters", "zero"}),
    "--img_size 48": ({"img_size"}, {"adapters", "zero"}),
    "--learning_rate 0.01": ({"learning_rate"}, {"adapters", "zero"}),
    "--batch_size 2": ({"batch_size"}, {"adapters", "zero"}),
    "--epoch 0": ({"epoch"}, {"adapters", "zero", "epochs"}),
    "--eval_every 0": ({"eval_every"}, {"epochs"}),
    "--num_workers 2": ({"num_workers"}, set()),
}


@pytest.fixture(scope="module")
def usual(tiny, tmp_path_factory) -> Lab:
    """Brain to train on, and what zero-shot transfer wants beside it."""
    lab = Lab(tmp_path_factory.mktemp("usual"), *tiny)
    lab.medical("Brain", test=(4, 4))
    lab.medical("Chest", masks=None, test=(3, 2))
    lab.medical("Liver", test=(2, 3))
    return lab


@pytest.fixture(scope="module")
def few(usual) -> tuple[dict, dict]:
    """Options and traits of train_few.py without further flags."""
    run = usual.done("train_few")
    return usual.results("train_few/Brain_1-shot")["options"], traits(usual, run, "train_few/Brain_1-shot")


@pytest.fixture(scope="module")
def zero(usual) -> tuple[dict, dict]:
    """The same of train_zero.py, with one evaluation before any step, so that the epochs are the same ones always."""
    run = usual.done("train_zero", "--eval_every", 1)
    return usual.results("train_zero/Brain")["options"], traits(usual, run, "train_zero/Brain")


@pytest.mark.parametrize("flags", FEW)
def test_a_flag_of_few_shot_training_changes_what_it_says_and_nothing_else(usual, few, flags):
    run = usual.done("train_few", *flags.split())
    found = traits(usual, run, "train_few/Brain_1-shot")
    assert changed(few[0], usual.results("train_few/Brain_1-shot")["options"]) == FEW[flags][0]
    assert changed(few[1], found) == FEW[flags][1]


@pytest.mark.parametrize("flags", ZERO)
def test_a_flag_of_transfer_changes_what_it_says_and_nothing_else(usual, zero, flags):
    run = usual.done("train_zero", "--eval_every", 1, *flags.split())
    found = traits(usual, run, "train_zero/Brain")
    assert changed(zero[0], usual.results("train_zero/Brain")["options"]) == ZERO[flags][0]
    assert changed(zero[1], found) == ZERO[flags][1]


def test_more_shots_keep_the_images_of_fewer(usual, few):
    usual.done("train_few", "--shot", 2, "--results_path", usual.root / "other")
    found = json.loads((usual.root / "other" / "train_few" / "Brain_2-shot" / "results.json").read_text())
    assert all(len(names) == 2 for names in found["support"].values())
    assert all(found["support"][label][:1] == few[1]["support"][label] for label in ("normal", "abnormal"))
    assert (usual.root / "ckpt" / "Brain_2-shot.pth").is_file()
    assert {key: row["normal"] for key, row in found["counts"].items() if key != "object"} == {
        "valid": 5,
        "test": 4,
        "support": 2,
        "scored": 4,
    }


def test_iterate_takes_that_line_of_the_stored_selection(usual, tmp_path, monkeypatch):
    lines = ("n-0: valid_n4.png", "a-0: valid_a0.png", "n-1: valid_n0.png", "a-1: valid_a3.png")
    (tmp_path / "Brain").mkdir()
    (tmp_path / "Brain" / "1-shot.txt").write_text("\n".join(lines))
    monkeypatch.setattr("dataset.support.SEED_FILES", tmp_path)
    for number, names in ((0, ("valid_n4.png", "valid_a0.png")), (1, ("valid_n0.png", "valid_a3.png"))):
        usual.done("train_few", "--epoch", 0, "--iterate", number)
        found = usual.results("train_few/Brain_1-shot")
        assert found["support"] == {"normal": [names[0]], "abnormal": [names[1]]}
        assert f"iterate {number}" in found["counts"]["support"]["source"]
        assert usual.done("test_few").code == 0  # it reads the same line
    run = usual.run("train_few", "--iterate", 2)
    assert run.code == 2 and "has no selection 2" in run.err


def test_without_attention_madff_is_mvfa(usual):
    kinds = {}
    for flags in ("--adapter mvfa", "--adapter madff --madff"):
        usual.done("train_few", *flags.split())
        kinds[flags] = usual.checkpoint().last.adapters
    one, other = kinds.values()
    for head in one:
        assert one[head].keys() == other[head].keys()
        for name in one[head]:
            torch.testing.assert_close(one[head][name], other[head][name], rtol=1e-3, atol=1e-3)


def test_the_bare_trunk_needs_no_abnormal_image_and_knows_no_adapter(usual):
    """--abnormal_shot 0 scores with the memory branch alone, whatever concerns adapters or words."""
    runs = [
        usual.done("train_few", "--abnormal_shot", 0, *flags.split())
        for flags in ("", "--adapter mvfa", "--prompts base", "--branches few", "--epoch 5", "--learning_rate 1e3")
    ]
    few = [run.seen[0].map_patches.few for run in runs]
    assert all(
        run.seen[0].map_patches.zero is None and values.equal(few[0]) for run, values in zip(runs, few, strict=True)
    )
    assert all("nothing to train" in run.out for run in runs)
    assert usual.checkpoint().last.adapters == {"seg_adapters": {}, "det_adapters": {}}
    assert usual.results("train_few/Brain_1-shot")["adapter"] == "none"


def test_own_images_are_evaluated_at_the_end_and_benchmarks_as_published(usual):
    """The words of own images are their name's, which is said."""
    usual.medical("bolts")
    for script, every in (("train_few", 1), ("train_zero", 0.2)):
        for obj, expected, kinds in (("Brain", every, ["last", "best"]), ("bolts", 0, ["last"])):
            name = f"{script}/{obj}" + "_1-shot" * (script == "train_few")
            done = usual.done(script, "--obj", obj)
            results = usual.results(name)
            assert results["options"]["eval_every"] == expected
            assert [row["selected"] for row in results["results"]] == kinds
            assert ('prompts say "bolts" (the name bolts); other words: --classname' in done.out) == (obj == "bolts")
    assert usual.done("train_few", "--obj", "bolts", "--eval_every", 1).out.count("best epoch") == 1
    assert "prompts say" not in usual.done("train_few", "--obj", "bolts", "--classname", "nut").out


@pytest.mark.parametrize(("flags", "evaluated"), [("3 2", {2}), ("4 2", {2, 4}), ("3 1", {1, 2, 3}), ("3 0", set())])
def test_eval_every(usual, flags, evaluated):
    epochs, every = flags.split()
    usual.done("train_few", "--epoch", epochs, "--eval_every", every, "--log_dir", usual.root / f"runs {flags}")
    last, *best = usual.results("train_few/Brain_1-shot")["results"]
    assert (last["selected"], last["epoch"]) == ("last", int(epochs))
    assert [row["selected"] for row in best] == ["best"] * bool(evaluated)
    assert {row["epoch"] for row in best} <= evaluated
    steps = 2  # an epoch: 22 variants, 11 at a time
    (folder,) = (usual.root / f"runs {flags}" / "Brain_1-shot").iterdir()
    logged = scalars(folder)
    assert set(logged["loss"]) == {epoch * steps for epoch in range(1, int(epochs) + 1)}
    logged = {name: {step // steps: value for step, value in by.items()} for name, by in logged.items()}
    assert set(logged.get("test/image_auroc", {})) == set(logged.get("test/pixel_auroc", {})) == evaluated
    if best:
        sums = {epoch: sum(logged[f"test/{name}_auroc"][epoch] for name in ("image", "pixel")) for epoch in evaluated}
        assert best[0]["epoch"] == max(sums, key=sums.get)
        assert best[0]["branches"]["fused"]["image_auroc"] == pytest.approx(
            logged["test/image_auroc"][best[0]["epoch"]], rel=1e-6
        )


def test_transfer_is_evaluated_five_times_an_epoch_first_before_any_step(usual):
    """As published; of equal figures the later ones are kept, and the end of training is `last` alone."""
    usual.done("train_zero", "--batch_size", 1, "--log_dir", usual.root / "runs zero")
    (folder,) = (usual.root / "runs zero" / "Brain").iterdir()
    logged = scalars(folder)
    (steps,) = logged["loss"]  # of one epoch
    due = [math.floor(part * steps / 5) for part in range(5)]
    assert sorted(logged["test/image_auroc"]) == due
    last, best = usual.results("train_zero/Brain")["results"]
    assert last["epoch"] == 1
    sums = [sum(logged[f"test/{name}_auroc"][step] for name in ("image", "pixel")) for step in due]
    assert best["epoch"] == max(range(5), key=lambda part: (sums[part], part)) / 5


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard reads there: name -> step -> value."""
    events = EventAccumulator(str(folder)).Reload()
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}


@pytest.mark.parametrize(("script", "name"), [("train_few", "Brain_1-shot"), ("train_zero", "Brain")])
def test_where_files_go(usual, tmp_path, script, name):
    """--save_path, --results_path and --log_dir each have their own; --save_model 0 leaves the checkpoint out."""
    flags = ["--save_path", tmp_path / "c", "--results_path", tmp_path / "r", "--log_dir", tmp_path / "l"]
    before = {name for name in files(usual.root) if not name.startswith("cache/")}
    usual.done(script, *flags, "--save_model", 0)
    (run,) = [path.name for path in (tmp_path / "r" / script / name).iterdir() if path.is_dir()]
    written = {"results.json", "results.csv", "scores.csv", "report.html"}
    results = {f"r/{script}/{name}/{part}" for part in written}  # the newest run's, and in its own folder
    results |= {f"r/{script}/{name}/{run}/{part}" for part in {*written, "run.json"}}
    assert results <= files(tmp_path)
    curves = files(tmp_path) - results
    assert len(curves) == 2 and all(path.startswith(f"l/{name}/{run}/events.out.tfevents.") for path in curves)
    logged = EventAccumulator(str(tmp_path / "l" / name / run)).Reload()
    assert len(logged.Scalars("loss")) == 1 and len(logged.Tags()["images"]) == 4  # an epoch, and a few maps
    usual.done(script, *flags)
    assert {name for name in files(tmp_path) if name.startswith("c")} == {f"c/{name}.pth"}
    assert len([path for path in files(tmp_path) if path.endswith("checkpoint.pth")]) == 1
    assert {name for name in files(usual.root) if not name.startswith("cache/")} == before


# The parser


def parse(flags: str) -> FewShotSpec:
    """The spec of train_few.py."""
    return FewShotSpec.of(options.parse(FewShotSpec, flags.split()))


KINDS = {
    "train_few": FewShotSpec,
    "test_few": FewShotTestSpec,
    "train_zero": TransferSpec,
    "test_zero": TransferTestSpec,
}


@pytest.mark.parametrize("script", KINDS)
def test_defaults_are_the_published_ones(script):
    assert options.parse(KINDS[script], []) == {}
    spec = KINDS[script].of({})
    assert (spec.obj, spec.model_name, spec.pretrain, spec.img_size, spec.seed) == (
        *("Brain", "ViT-L-14-336", "openai", 240, 111),
    )
    assert (spec.adapter, spec.madff, spec.madff_axis, spec.protocol) == ("madff", ATTENTIONS, "sequence", "paper")
    assert spec.prompts == "all" and spec.features_list is None
    rates = {"train_few": (50, 1e-3, 1, None), "train_zero": (50, 1e-4, 1, None)}
    if script in rates:
        assert (spec.epoch, spec.learning_rate, spec.batch_size, spec.eval_every) == rates[script]
        assert spec.save_model == 1
    if script.endswith("few"):
        assert (spec.shot, spec.abnormal_shot, spec.iterate, spec.branches) == (4, 4, 0, "both")
    assert spec.save_path == Path("ckpt/few-shot" if script.endswith("few") else "ckpt/zero-shot")


def test_what_was_asked_for_is_told_even_if_it_is_the_default():
    assert options.parse(FewShotSpec, ["--shot", "4", "--madff", "--seed", "3"]) == {"shot": 4, "madff": [], "seed": 3}


def test_branches_have_one_order():
    assert parse("--madff fab sca fab").madff == ("sca", "fab")


def test_demo_gives_way_to_what_is_said():
    demo = parse("--demo")
    assert (demo.model_name, demo.pretrain, demo.data_path, demo.iterate) == (
        *("ViT-T-16-demo", "demo", Path("data/demo"), -1),
    )
    spec = parse("--demo --data_path here --iterate 2")
    assert (spec.model_name, spec.data_path, spec.iterate) == ("ViT-T-16-demo", Path("here"), 2)
    assert TransferTestSpec.of(options.parse(TransferTestSpec, ["--demo"])).data_path == Path("data/demo")


FAULTY = (
    *("--shot 0", "--batch_size 0", "--img_size x", "--features_list 0", "--adapter x", "--madff x", "--madff_axis x"),
    *("--branches x", "--protocol x", "--save_model 2", "--epoch x", "--nonsense 1"),
    *("--seed -1", "--seed 4294967296", "--num_workers -1", "--learning_rate -1", "--learning_rate nan"),
    *("--epoch -1", "--eval_every -1", "--iterate -2", "--abnormal_shot -1"),
)


@pytest.mark.parametrize("flags", FAULTY)
def test_what_makes_no_sense_is_refused(flags):
    with pytest.raises(InputError, match=f"{flags.split()[0]}.*; see .* --help$"):
        parse(flags)


@pytest.mark.parametrize("every", ["-1", "1e-4", "nan", "inf", "x"])
def test_transfer_takes_fractions_of_an_epoch_but_no_nonsense(every):
    def found(text: str) -> float:
        return TransferSpec.of(options.parse(TransferSpec, ["--eval_every", text])).eval_every

    assert [found(good) for good in ("0", "0.5", "3")] == [0, 0.5, 3]
    with pytest.raises(InputError, match="--eval_every"):
        found(every)
    with pytest.raises(InputError, match="--eval_every"):
        parse("--eval_every 0.5")


def checkpoint_of(trained: str, obj: str = "Brain") -> Checkpoint:
    """What training with these flags left, as it comes back from a file."""
    record = {"obj": obj, "options": json.loads(json.dumps(parse(trained).plain()))}
    return Checkpoint(Snapshot(1, {}, None), None, record)


def recalled(trained: str, now: str, obj: str = "Brain", on: str = "Brain") -> FewShotTestSpec:
    """The spec of testing what was trained with others."""
    asked = options.parse(FewShotTestSpec, now.split())
    return options.recall(FewShotTestSpec, asked, checkpoint_of(trained, obj), Path("a.pth"), on)


def test_test_options_are_those_of_training():
    trained = (
        "--adapter mvfa --shot 2 --abnormal_shot 1 --iterate -1 --seed 5 --img_size 64 --features_list 1 2 "
        "--madff sca --madff_axis token --protocol sound --model_name ViT-B-16 --pretrain laion2b --clip_path w.pt "
        "--prompts base --branches few --bank_cap 9 --data_path there --classname cat --epoch 3 --batch_size 2"
    )
    found, expected = recalled(trained, ""), parse(trained)
    for name in (*options.FITTED, *options.FOLLOWED):
        assert getattr(found, name) == getattr(expected, name), name
    assert isinstance(found.data_path, Path) and isinstance(found.clip_path, Path)
    assert found.batch_size == "auto" and not hasattr(found, "epoch")


def test_the_words_of_another_object_are_not_recalled():
    assert recalled("--classname cat", "", "Liver", "Liver").classname == "cat"
    for flags, expected in ("", None), ("--classname dog", "dog"):
        assert recalled("--classname cat", flags, "Liver", "Brain").classname == expected


def test_what_does_not_decide_the_adapters_may_be_given_anew():
    found = recalled("", "--data_path here --prompts llm --branches zero --clip_path x.pt --batch_size 3 --device cpu")
    assert (found.data_path, found.prompts, found.branches) == (Path("here"), "llm", "zero")
    assert (found.clip_path, found.batch_size, found.device) == (Path("x.pt"), 3, "cpu")


@pytest.mark.parametrize(
    "now",
    [
        *("--model_name ViT-B-16", "--pretrain laion2b", "--img_size 336", "--features_list 1 2", "--adapter mvfa"),
        *("--madff sca", "--madff", "--madff_axis token", "--protocol sound", "--shot 2", "--abnormal_shot 1"),
        *("--iterate -1", "--seed 7", "--classname cat", "--demo"),
    ],
)
def test_what_decides_the_adapters_may_not(now):
    name = now.split()[0]
    with pytest.raises(InputError, match=rf"^a\.pth was trained with {name} .*; leave {name} out$"):
        recalled("", now)


@pytest.mark.parametrize(("name", "value"), [("shot", "x"), ("madff", "sca"), ("img_size", [240]), ("adapter", None)])
def test_a_record_of_another_kind_is_refused_by_the_files_name(name, value):
    kept = checkpoint_of("")
    kept.record["options"][name] = value
    with pytest.raises(InputError, match=rf"^a\.pth: --{name} ") as caught:
        options.recall(FewShotTestSpec, {}, kept, Path("a.pth"), "Brain")
    assert "\n" not in str(caught.value)


def test_whose_weights_a_file_holds_is_remembered(tmp_path):
    """A bare state dict does not tell that it wants QuickGELU; --pretrain beside --clip_path does."""
    for name in ("w.pt", "moved.pt"):
        (tmp_path / name).write_bytes(b"weights")
    file = f"--clip_path {tmp_path / 'w.pt'} --img_size 336"
    openai = f"{file} --pretrain openai"
    for flags, expected in ((file, None), (openai, "quickgelu"), (f"{openai} --img_size 240", "gelu")):
        assert activation(parse(flags)) == activation(recalled(flags, "")) == expected
    assert activation(recalled("--img_size 336", f"--clip_path {tmp_path / 'moved.pt'}")) == "quickgelu"


def activation(spec: SystemSpec) -> str | None:
    return build.resolve(spec).activation


def test_the_same_may_be_said_again():
    assert recalled("", "--shot 4 --img_size 240 --madff fab llspm sca --adapter madff --seed 111").shot == 4


def published(kind: str, attentions: tuple[str, ...] = ATTENTIONS) -> Checkpoint:
    """Adapters of that kind from others, who say nothing of them."""
    state = build_adapter(kind, 32, 8, attentions=attentions).state_dict()
    adapters = {head: {f"0.{key}": tensor for key, tensor in state.items()} for head in HEADS}
    return Checkpoint(Snapshot(None, adapters, None), None, None)


@pytest.mark.parametrize(
    ("adapters", "asked", "adapter", "madff"),
    [
        (("madff", ("fab",)), {}, "madff", ("fab",)),  # as recognised
        (("madff", ("fab",)), {"adapter": "projector", "madff": ["sca"]}, "projector", ("sca",)),  # as asked for
        (("mvfa",), {"madff": ["sca"]}, "mvfa", ("sca",)),
    ],
)
def test_without_a_record_the_adapters_tell_and_all_else_is_as_asked_for(adapters, asked, adapter, madff):
    found = options.recall(FewShotTestSpec, asked | {"shot": 7}, published(*adapters), Path("a.pth"), "Liver")
    assert found == FewShotTestSpec(obj="Liver", shot=7, adapter=adapter, madff=madff, recipe="paper")


@pytest.mark.parametrize("kind", KINDS.values())
def test_specs_can_be_written_and_read_again(kind: type[Spec]):
    spec = kind.of(options.parse(kind, ["--data_path", "there", "--features_list", "1", "2", "--cache_gb", "0.5"]))
    plain = json.loads(json.dumps(spec.plain()))
    assert plain == spec.plain() and plain["data_path"] == "there"
    assert kind.of(plain) == spec


def test_settings_of_adapters_are_refused_where_there_are_none():
    options.without_adapters({"shot": 4})
    for name in ("adapter", "madff", "madff_axis"):
        with pytest.raises(InputError, match=f"^--{name} .*; leave it out$"):
            options.without_adapters({name: "x"})
    with pytest.raises(InputError, match=r"^--method .*; leave it out$"):
        options.without_adapters({"method": "winclip"})
