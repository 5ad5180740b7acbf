import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import trees
from helpers.lab import ROOT, SIZE, Lab, files, paint, write_clip
from sklearn.metrics import roc_auc_score
from torch import Tensor

import prompt
from apps.prompts import command
from apps.prompts.check import slips, visible
from apps.prompts.rank import RankSpec
from engine import system, text
from engine.build import build_system, open_encoder, sentences
from engine.few_shot import open_support
from engine.open_checkpoint import open_checkpoint
from engine.options import parse
from engine.support import Support
from utils import VARIANTS


def kinds(normal: list[str], abnormal: list[str], name: str = "brain") -> list[tuple[str, str, int]]:
    """(kind, list, number) of every slip."""
    return [(found.kind, found.label, found.number) for found in slips(normal, abnormal, name)]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    code = command.run([str(one) for one in arguments])
    return code, *capsys.readouterr()


def write(path: Path, normal: list, abnormal: list) -> Path:
    path.write_text(json.dumps({"normal": {"prompts": normal}, "abnormal": {"prompts": abnormal}}))
    return path


# Commands


@pytest.mark.parametrize("start", [["prompt.py"], ["-m", "apps.prompts"]])
def test_the_file_itself_is_the_command(start):
    def called(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *start, *arguments], cwd=ROOT, capture_output=True, text=True)

    shown = called("show", "Brain")
    assert shown.returncode == 0 and not shown.stderr
    assert "normal   1  a bad photo of a Brain.\n" in shown.stdout
    refused = called("show", "Brian")
    assert refused.returncode == 2 and not refused.stdout
    assert refused.stderr.count("\n") == 1 and "Did you mean Brain?" in refused.stderr


def test_show_and_the_words_need_no_model():
    code = (
        "import sys; from apps.prompts import command as c; c.run(['show', 'Brain']); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_a_reader_that_goes_away_is_no_fault():
    shown = f"{sys.executable} {ROOT / 'prompt.py'} show mvtec | head -n 1"
    run = subprocess.run(["bash", "-c", shown], capture_output=True, text=True)
    assert run.stdout.startswith("mvtec/bottle") and not run.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["shwo"], "invalid choice: 'shwo'"),
        (["show"], "obj"),
        (["show", "Brian"], "Did you mean Brain?"),
        (["show", "mvtec/botle"], "Did you mean mvtec/bottle?"),
        (["show", "Brain", "--prompts", "few"], "choose base, llm, all"),
        (["show", "Brain", "--prompts", "nowhere.json"], "nowhere.json"),
        (["check", "Brian"], "unknown object Brian"),
        (["check", "--prompts", "nowhere.json"], "nowhere.json"),
        (["check", "Brain", "--prompts", "few"], "choose base, llm, all"),
        (["rank", "--bank_cap", "9"], "unrecognized arguments: --bank_cap"),
        (["rank", "--abnormal_shot", "0"], "--abnormal_shot 0"),
        (["rank", "--adapter", "mvfa"], "--adapter says which adapters, and without a checkpoint there are none"),
        (["rank", "--madff", "fab"], "--madff says which adapters"),
        (["rank", "--madff_axis", "token"], "--madff_axis says which adapters"),
        (["rank", "--top", "-1"], "--top"),
        (["rank", "--csv", "."], "--csv . is a folder"),
        (["rank", "--ckpt", "nowhere.pth"], "no checkpoint nowhere.pth"),
        (["rank", "--data_path", "nowhere"], "nowhere"),
        (["generate"], "--obj"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, words):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and not out
    assert words in err


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"], ["check", "--help"], ["rank", "--help"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        command.run(arguments)
    assert stop.value.code == 0 and capsys.readouterr().out.startswith(f"usage: prompt.py {arguments[0]}"[:16])


# show


@pytest.mark.parametrize("prompts", ["base", "llm", "all"])
def test_show_prints_what_is_encoded(capsys, prompts):
    code, out, _ = run(capsys, "show", "Chest", "--prompts", prompts)
    head, *lines = out.splitlines()
    normal, abnormal = prompt.sentences("Chest", prompts)
    assert code == 0
    assert head == f"Chest, --prompts {prompts}: {len(normal)} normal + {len(abnormal)} abnormal sentences"
    assert [line.split(maxsplit=2)[2] for line in lines] == normal + abnormal
    assert [line.split()[:2] for line in lines] == [
        [label, str(n)]
        for label, texts in (("normal", normal), ("abnormal", abnormal))
        for n in range(1, len(texts) + 1)
    ]


def test_show_takes_words_families_and_files(capsys, tmp_path):
    path = write(tmp_path / "p.json", ["a \u001b[31m{classname}"], ["a bad {classname}"])
    _, out, _ = run(capsys, "show", "bolts", "--classname", "steel bolt", "--prompts", path)
    assert "normal   1  a \\x1b[31msteel bolt\n" in out and "abnormal   1  a bad steel bolt\n" in out
    _, out, _ = run(capsys, "show", "btad", "--prompts", "llm")
    assert [line.split(",")[0] for line in out.splitlines() if "--prompts" in line] == ["btad/01", "btad/02", "btad/03"]


# check

TWO = '{"normal": {"prompts": [%s]}, "abnormal": {"prompts": ["x"]}}'


@pytest.mark.parametrize(
    ("normal", "abnormal", "expected"),
    [
        (["a clear scan", "a clear scan"], ["x"], [("duplicate", "normal", 2)]),
        (["a clear scan", " a clear scan "], ["x"], [("duplicate", "normal", 2)]),
        (["x"], ["A mass.", "a mass"], [("near", "abnormal", 2)]),
        (["a well-aerated lung", "a well aerated lung", "a  well-aerated, LUNG!"], ["x"],
         [("near", "normal", 2), ("near", "normal", 3)]),
        (["a {classname}", "a brain"], ["x"], [("near", "normal", 2)]),
        (["a lobe"], ["a Lobe."], [("both", "normal", 1), ("both", "abnormal", 1)]),
        (["word " * 75], ["word " * 76], [("overlong", "abnormal", 1)]),
        (["a" * 100_000], ["x"], [("overlong", "normal", 1)]),
        (["a {size} scan"], ["{}", "{0.__class__}", "brace {", "brace }"],
         [("place-holder", "normal", 1), *(("place-holder", "abnormal", n) for n in (1, 2, 3, 4))]),
        (["", " \n"], ["x"], [("empty", "normal", 1), ("empty", "normal", 2)]),
        (["tab\there"], ["bell\a", "soft\u00adhyphen"], [("control", "normal", 1), ("control", "abnormal", 1),
                                                        ("control", "abnormal", 2)]),
        (["a scan of a {classname}", "naïve café scan"], ["a mass"], []),
    ],
)  # fmt: skip
def test_slips(normal, abnormal, expected):
    assert kinds(normal, abnormal) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "a slice with a tumour",
        "a Tumor slice",
        "a cracked tile",
        "no oedema but a large mass",
        "no mass: a cyst",
        "not only a lesion",
        "an irregular outline",
        "a slice without contrast agent in which the left lobe at its base has a lesion",  # the denial is far away
        "a tumour in the free margin",
    ],
)
def test_a_normal_sentence_that_names_a_fault(sentence):
    assert kinds([sentence], ["x"]) == [("contradiction", "normal", 1)]


@pytest.mark.parametrize(
    "sentence",
    [
        "a slice without a tumour",
        "no mass, oedema or haemorrhage",
        "a surface free of any scratches",
        "rust-free steel",
        "an unbroken, undamaged rim",
        "a fracture is absent",
        "neither cysts nor nodules",
        "a photo of a flawless skin lesion",  # the object's own words
        "a massive, evenly lit grid",
    ],
)
def test_a_normal_sentence_may_deny_a_fault(sentence):
    assert kinds([sentence], ["x"], "skin lesion") == []


@pytest.mark.parametrize(
    ("sentence", "contradicts"),
    [
        ("a slice with no abnormality", True),
        ("a slice without any visible defect", True),
        ("a board that passes inspection", True),
        ("nothing wrong", True),
        ("a normal slice", True),
        ("an unremarkable radiograph of the chest", True),
        ("a healthy person", True),
        ("an abnormal slice", False),
        ("normal tissue displaced by a mass", False),
        ("loss of the normal contour", False),
        ("no longer normal", False),
        ("a candle without a wick", False),
        ("an odd spot", False),
    ],
)
def test_an_abnormal_sentence_that_claims_there_is_no_fault(sentence, contradicts):
    assert kinds(["y"], [sentence]) == [("contradiction", "abnormal", 1)] * contradicts


def test_hostile_sentences_take_no_time():
    """Sentences that would take a careless pattern, or the tokenizer, minutes."""
    letters = "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz"), 200_000))
    hostile = [letters, "{" * 100_000, "no " * 300 + "x", letters[:600], "without " * 120 + "mass", " " * 100_000]
    started = time.monotonic()
    assert len(slips(hostile, hostile, "x")) >= len(hostile)
    assert time.monotonic() - started < 5


def test_check_names_every_finding_and_counts_it(capsys, tmp_path):
    normal, abnormal = ["a clear lobe.", "a clear lobe.", "A clear lobe", "a tumour"], ["a {x} mass", "", "word " * 99]
    path = write(tmp_path / "p.json", normal, abnormal)
    code, out, err = run(capsys, "check", "--prompts", path)
    assert code == 1 and not err
    head, row, *rest = out.splitlines()
    counts = dict(zip(head.split(), row.split(), strict=True))
    assert counts == {
        **{"object": str(path), "normal": "4", "abnormal": "3", "both": "0", "control": "0"},
        **dict.fromkeys(("duplicate", "near", "contradiction", "place-holder", "empty", "overlong"), "1"),
    }
    assert rest[-1] == "6 findings"
    places = {"duplicate": "normal 2", "near": "normal 3", "contradiction": "normal 4"}
    places |= {"place-holder": "abnormal 1", "empty": "abnormal 2", "overlong": "abnormal 3"}
    for kind, place in places.items():
        assert len([line for line in rest if f"{kind}: {place} " in line]) == 1
    assert "\"a tumour\" says 'tumour'" in out


def test_check_of_a_clean_file(capsys, tmp_path):
    path = write(tmp_path / "p.json", ["a clear {classname}"], ["a {classname} with a mass"])
    code, out, _ = run(capsys, "check", "--prompts", path)
    assert code == 0 and out.splitlines()[-1] == "no findings"
    code, out, _ = run(capsys, "check", "Brain", "Liver", "--prompts", path)
    assert code == 0 and [line.split()[0] for line in out.splitlines()[1:3]] == ["Brain", "Liver"]


@pytest.mark.parametrize("content", ["", "[]", TWO % "3", TWO % '"\\ud800"'])
def test_check_of_a_damaged_file(capsys, tmp_path, content):
    path = tmp_path / "p.json"
    path.write_text(content)
    code, out, err = run(capsys, "check", "--prompts", path)
    assert code == 2 and str(path) in err and err.count("\n") == 1 and not out


def test_no_findings_in_the_built_in_words(capsys):
    code, out, _ = run(capsys, "check")
    assert code == 0, out
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == [*prompt.P_PROMPTS, "GENERIC"]


@pytest.mark.parametrize(
    ("key", "entry", "kind"),
    [
        ("normal", "a dented lobe", "contradiction"),
        ("normal", "symmetric hemispheres", "duplicate"),
        ("normal", "Symmetric Hemispheres", "near"),
        ("findings", " ", "empty"),
        ("places", "in {place}", "place-holder"),
    ],
)
def test_check_sees_an_edit_of_the_words(capsys, monkeypatch, key, entry, kind):
    block = prompt.P_PROMPTS["Brain"]
    monkeypatch.setitem(block, key, [*block[key], entry])
    monkeypatch.setitem(prompt.VOICES["report"], "normal", ["a {view} with {sign}."])  # alike but for the entry
    code, out, _ = run(capsys, "check", "Brain", "--prompts", "llm")
    assert code == 1
    assert {line.split(": ")[1] for line in out.splitlines() if line.startswith("Brain: ")} >= {kind}
    assert run(capsys, "check", "Liver", "--prompts", "llm")[0] == 0


def test_visible():
    assert visible("a\x1b[2J\u202e\u200b\ud800é\n") == "a\\x1b[2J\\u202e\\u200b\\ud800é\\n"


# rank


def arguments(lab: Lab, *flags: object) -> list[str]:
    """The command line of a small ranking inside the lab."""
    bare = ["--model_name", lab.config, "--clip_path", lab.weights, "--img_size", SIZE, "--prompts", lab.words]
    bare += ["--shot", 2, "--iterate", -1, "--data_path", lab.data]
    where = ["--device", "cpu", "--cache_path", lab.root / "cache", "--csv", lab.root / "rank.csv"]
    return [str(one) for one in [*([] if "--ckpt" in flags else bare), *where, *flags]]


def ranked(lab: Lab, *flags: object) -> list[dict[str, str]]:
    """The rows of --csv."""
    assert command.run(["rank", *arguments(lab, *flags)]) == 0
    with (lab.root / "rank.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@torch.no_grad()
def support_tokens(made: system.System, support: Support, head: str, bare: bool) -> list[list[Tensor]]:
    """The patch tokens (P, D) a tap of every support variant, where text is."""
    decoder = made.decoder
    images = [[level[0, 1:] for level in decoder(image[None]).tokens(head)] for image in support.images]
    if not bare:
        return images
    return [[decoder.visual.ln_post(level) @ decoder.visual.proj for level in levels] for levels in images]


def separation(masks: bool, labels: np.ndarray, images: list[list[Tensor]], directions: Tensor) -> tuple[float, float]:
    """(AUROC, margin) of the zero branch on the support, worked out from the method's formulas."""
    scores = []
    for levels in images:
        probabilities = []
        for level in levels:
            logits = 100 * F.normalize(level, dim=1) @ directions  # (P, 2)
            if masks:
                side = round(len(logits) ** 0.5)
                grid = logits.T.reshape(1, 2, side, side)
                logits = F.interpolate(grid, (SIZE, SIZE), mode="bilinear", align_corners=True)[0].flatten(1).T
            probabilities.append(logits.softmax(dim=1)[:, 1])
        mean = torch.stack(probabilities).mean(dim=0)
        scores.append(float(mean.max() if masks else mean.mean()))
    scores = np.array(scores)
    return roc_auc_score(labels, scores), scores[labels == 1].mean() - scores[labels == 0].mean()


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("masks", ["anomaly_mask", None])
def test_rank_leaves_each_sentence_out(lab, capsys, masks, trained):
    paint(trees.medical(lab.data / "Cells", masks=masks))
    flags, path = ["--obj", "Cells"], lab.root / "ckpt" / "Cells_2-shot.pth"
    if trained:
        lab.done("train_few", "--obj", "Cells", "--shot", 2)
        flags = ["--ckpt", path]
    rows, out = ranked(lab, *flags), capsys.readouterr().out

    asked = parse(RankSpec, arguments(lab, *flags))
    if trained:
        opened = open_checkpoint(path, RankSpec, asked, purpose="ranking")
        opened.load_adapters()
        made, spec = opened.run.system, opened.spec
    else:
        spec = RankSpec.of(asked)
        made = build_system(spec, bare=True)
    data, support = open_support(spec, "Cells")
    labels, head = support.labels.numpy(), "seg" if masks else "det"
    images = support_tokens(made, support, head, bare=not trained)
    normal, abnormal = sentences(spec, data.info)
    with open_encoder(spec) as encoder:
        features = dict(zip([*normal, *abnormal], encoder.features([*normal, *abnormal]), strict=True))

    def expected(without: str) -> tuple[float, float]:
        parts = [torch.stack([features[one] for one in part if one != without]) for part in (normal, abnormal)]
        columns = [F.normalize(part.mean(dim=0), dim=0) for part in parts]
        return separation(bool(masks), labels, images, torch.stack(columns, dim=1))

    whole = expected("")
    assert sorted(row["sentence"] for row in rows) == sorted([*normal, *abnormal])
    for row in rows:
        auroc, margin = expected(row["sentence"])
        assert row["object"] == "Cells" and row["list"] == ("normal" if row["sentence"] in normal else "abnormal")
        assert float(row["auroc_without"]) == pytest.approx(auroc, abs=3e-3)  # a tie may fall either way
        assert float(row["margin_without"]) == pytest.approx(margin, abs=1e-5)
        assert float(row["margin_effect"]) == pytest.approx(whole[1] - margin, abs=2e-5)
    assert len({row["margin_without"] for row in rows}) == 4  # each sentence has an effect of its own
    margins = [float(row["margin_effect"]) for row in rows]
    assert margins == sorted(margins, reverse=True)
    printed = [line.split(maxsplit=3) for line in out.splitlines()[-5:-1]]  # margin, AUROC, list, sentence
    assert [line[2:] for line in printed] == [[row["list"], row["sentence"]] for row in rows]
    for line, row in zip(printed, rows, strict=True):
        assert float(line[0]) == pytest.approx(float(row["margin_effect"]), abs=1e-6)
        assert float(line[1]) == pytest.approx(100 * float(row["auroc_effect"]), abs=1e-3)


def test_rank_knows_the_support_alone(lab):
    lab.medical()
    before = ranked(lab)
    for path in (lab.data / "Brain_AD" / "test").rglob("img/*.png"):
        trees.picture(path)
    assert ranked(lab) == before
    for path in (lab.data / "Brain_AD" / "valid").rglob("img/*.png"):
        trees.picture(path, level=200 if "Ungood" in path.parts else 90)
    assert ranked(lab) != before


def test_rank_computes_sentences_and_tokens_once(lab, monkeypatch):
    lab.medical()
    encode, prefix, encoded, seen = text.encode, system.System.prefix, [], []

    def noting_encode(clip: object, texts: list[str]) -> Tensor:
        encoded.extend(texts)
        return encode(clip, texts)

    def noting_prefix(self: system.System, images: Tensor) -> Tensor:
        seen.append(len(images))
        return prefix(self, images)

    monkeypatch.setattr("engine.text.encode", noting_encode)
    monkeypatch.setattr(system.System, "prefix", noting_prefix)
    ranked(lab, "--cache_gb", 0)
    assert len(encoded) == len(set(encoded)) == 4
    assert sum(seen) == 4 * VARIANTS


def test_rank_sorts_by_auroc_on_demand(lab, capsys):
    lab.medical()
    effects = [(float(row["auroc_effect"]), float(row["margin_effect"])) for row in ranked(lab, "--by", "auroc")]
    assert effects == sorted(effects, reverse=True)
    ranked(lab, "--top", 1)
    assert "2 more (--top 0 shows them)" in capsys.readouterr().out


def test_rank_of_an_industrial_class(lab):
    lab.mvtec("mvtec/bottle")
    rows = ranked(lab, "--obj", "mvtec/bottle")
    assert {row["object"] for row in rows} == {"mvtec/bottle"}


def test_a_lists_only_sentence_stays(lab, capsys):
    lab.medical()
    two = write(lab.root / "p.json", ["a clear lobe"], ["a mass", "a cyst"])
    assert {row["list"] for row in ranked(lab, "--prompts", two)} == {"abnormal"}
    capsys.readouterr()
    one = write(lab.root / "p.json", ["a clear lobe"], ["a mass"])
    assert command.run(["rank", *arguments(lab, "--prompts", one)]) == 2
    assert "one sentence a list" in capsys.readouterr().err


def test_rank_refuses_a_checkpoint_that_is_not_the_objects(lab, capsys):
    lab.medical()
    lab.medical("Liver")
    lab.done("train_few", "--shot", 2)
    path = lab.root / "ckpt" / "Brain_2-shot.pth"
    before = files(lab.root)
    for flags, words in (
        (("--obj", "Liver"), "was trained on Brain, not on Liver"),
        (("--seed", 5), "--seed 111, not 5"),
        (("--clip_path", write_clip(lab.root, seed=7)[1]), "other CLIP weights"),
    ):
        capsys.readouterr()
        assert command.run(["rank", *arguments(lab, "--ckpt", path, *flags)]) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
    assert {name for name in files(lab.root) - before if not name.startswith(("cache", "tiny"))} == set()


def test_rank_needs_a_checkpoints_abnormal_support(lab, capsys):
    lab.medical()
    lab.done("train_few", "--shot", 2, "--abnormal_shot", 0)
    capsys.readouterr()
    assert command.run(["rank", *arguments(lab, "--ckpt", lab.root / "ckpt" / "Brain_2-shot.pth")]) == 2
    assert "rank compares normal with abnormal support" in capsys.readouterr().err


def test_project_is_the_way_of_the_class_token(lab):
    lab.medical()
    made = build_system(RankSpec.of(parse(RankSpec, arguments(lab))), bare=True)
    images = torch.rand(2, 3, SIZE, SIZE)
    whole = made.decoder(images)
    projected = made.decoder.joint([whole.tokens("det")[-1]])[0]  # the last tap lies after the last block
    assert projected.shape == (2, 17, 16)
    assert torch.allclose(projected[:, 0], whole.pooled, atol=1e-6)
