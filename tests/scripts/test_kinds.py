"""Whole runs on every kind of data: each layout, with and without masks, without abnormal images, whole families."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import trees
from helpers.lab import Lab, files, paint, same

from dataset.registry import FAMILIES


def own_without_masks(lab: Lab) -> None:
    paint(trees.medical(lab.data / "Cells", masks=None))


def own_with_masks(lab: Lab) -> None:
    paint(trees.medical(lab.data / "Cells", masks="label"))


def own_industrial(lab: Lab) -> None:
    lab.mvtec("Cells")


def own_industrial_without_masks(lab: Lab) -> None:
    lab.mvtec("Cells")
    shutil.rmtree(lab.data / "Cells" / "ground_truth")


DATA: dict[str, tuple[Callable[[Lab], object], bool, tuple[int, int]]] = {
    # object: (its tree, whether it has masks, normal and abnormal images that are scored)
    "Brain": (lambda lab: lab.medical("Brain"), True, (4, 3)),
    "Chest": (lambda lab: lab.medical("Chest"), False, (4, 3)),  # its masks are not looked at, as published
    "mvtec/bottle": (lambda lab: lab.mvtec("mvtec/bottle"), True, (3, 5)),
    "btad/01": (lambda lab: paint(trees.mvtec(lab.data / "btad/01", "ok", ("ko",), ".png")), True, (3, 2)),
    "visa/candle": (lambda lab: paint(trees.visa(lab.data / "visa").parent), True, (2, 2)),
    "Cells": (own_without_masks, False, (4, 3)),
    "own with masks": (own_with_masks, True, (4, 3)),
    "own industrial": (own_industrial, True, (3, 5)),
    "own industrial without masks": (own_industrial_without_masks, False, (3, 5)),
}


@pytest.mark.parametrize("kind", DATA)
def test_every_layout_is_trained_on_and_tested(lab, kind):
    build, masks, scored = DATA[kind]
    build(lab)
    obj = "Cells" if kind.startswith("own") else kind
    run = lab.done("train_few", "--obj", obj)
    lab.done("test_few", "--obj", obj)
    name = f"{obj.replace('/', '_')}_1-shot"
    one, other = (lab.results(f"{way}_few/{name}") for way in ("train", "test"))
    assert one["results"] == other["results"]
    assert one["masks"] == masks == ("pixel_auroc" in one["results"][0]["branches"]["fused"])
    assert (one["counts"]["scored"]["normal"], one["counts"]["scored"]["abnormal"]) == scored
    assert len(run.seen[0].map_patches) == sum(scored)  # abnormal support is not scored
    assert f"{obj} AUC : " in run.out and (f"{obj} pAUC : " in run.out) == masks


def test_industrial_support_is_named_with_its_kind_of_defect(lab):
    """MVTec numbers the images of every kind from 000, so their names alone repeat."""
    lab.mvtec("mvtec/bottle")
    lab.done("train_few", "--obj", "mvtec/bottle", "--shot", 5, "--epoch", 0)
    support = lab.results("train_few/mvtec_bottle_5-shot")["support"]
    assert len(set(support["abnormal"])) == 5
    assert {name.partition("/")[0] for name in support["abnormal"]} == {"crack", "hole"}
    assert set(support["normal"]) == {f"{number:03d}.png" for number in range(5)}


def only_normal(lab: Lab) -> None:
    for split, count in (("valid", 3), ("test", 4)):
        for number in range(count):
            trees.picture(lab.data / "Cells" / split / "good" / f"{number}.png")
    paint(lab.data / "Cells")


def only_normal_industrial(lab: Lab) -> None:
    for split, count in (("train", 3), ("test", 4)):
        for number in range(count):
            trees.picture(lab.data / "Cells" / split / "good" / f"{number}.png")
    paint(lab.data / "Cells")


def only_normal_to_test(lab: Lab) -> None:
    shutil.rmtree(own_tree(lab) / "test" / "Ungood")


def own_tree(lab: Lab) -> Path:
    return paint(trees.medical(lab.data / "Cells"))


@pytest.mark.parametrize(
    ("build", "flags"),
    [
        (only_normal, "--abnormal_shot 0"),
        (only_normal_industrial, "--abnormal_shot 0"),
        (only_normal_to_test, ""),
        (only_normal_to_test, "--epoch 2 --eval_every 2"),
    ],
)
def test_without_abnormal_images_figures_are_not_available(lab, build, flags):
    build(lab)
    pictures = lab.root / "pictures"
    run = lab.done("train_few", "--obj", "Cells", *flags.split(), "--save_images", pictures)
    tested = lab.done("test_few", "--obj", "Cells")
    assert same(run.seen, tested.seen) and len(files(pictures)) == 4
    one, other = (lab.results(f"{way}_few/Cells_1-shot")["results"] for way in ("train", "test"))
    assert one == other and [result["selected"] for result in one] == ["last"]
    for row in one[0]["branches"].values():
        assert 0 <= row.pop("specificity") <= 1 and 0 <= row.pop("specificity_at_half") <= 1
        assert set(row.values()) == {None}
    assert "n/a" in run.out and "Cells AUC" not in run.out and "best" not in run.out


@pytest.mark.parametrize("kind", ["few", "zero"])
def test_all_classes_of_a_family(lab, kind):
    names = list(FAMILIES["mpdd"])
    for name in names:
        lab.mvtec(name)
    lab.others()
    for way in ("train", "test"):
        run = lab.done(f"{way}_{kind}", "--obj", "mpdd")
        suffix = "_1-shot" if kind == "few" else ""
        whole = lab.results(f"{way}_{kind}/mpdd{suffix}")
        last = [result for result in whole["results"] if result["selected"] == "last"]
        assert [result["obj"] for result in last] == names
        for result in last:
            alone = lab.results(f"{way}_{kind}/{result['obj'].replace('/', '_')}{suffix}")
            assert result in alone["results"]
        assert [mean["selected"] for mean in whole["means"]] == ["last", "best"]
        branch, row = next(iter(whole["means"][0]["branches"].items()))
        for metric, value in row.items():
            assert value == pytest.approx(np.mean([result["branches"][branch][metric] for result in last]))
        assert f"{branch:<7}mean" in run.out and "mpdd AUC : " in run.out
