"""predict.py without training: memory bank, thresholds and prompts from folders and words alone."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from helpers.dicom_files import dicom_file
from helpers.lab import SIZE
from helpers.parts import directions_of
from helpers.predicting import noise, predict
from PIL import Image

from apps.predict import reference_folders
from apps.predict.spec import PredictSpec
from dataset import FewShotSet, Sample
from engine.tiled_calibration import KnownPicture


def test_thresholds_come_from_the_folders_and_not_from_what_is_scored(folders):
    root = folders.root
    few = predict(folders, "--normal", root / "good", "--input", root / "new" / "new0.png", to="a")
    all_ = predict(folders, "--normal", root / "good", "--input", root / "new", root / "bad", to="b")
    judged = ("threshold", "pixel_threshold", "colours", "maps", "calibrated")
    assert {name: few.settings[name] for name in judged} == {name: all_.settings[name] for name in judged}
    assert few.settings["branch"] == "fused" and few.settings["colours"]["to"] == 2


def test_without_abnormal_images_the_threshold_is_just_above_the_normal_ones(folders):
    """With one normal image left out in turn, its score is the highest that counts as normal."""
    root, none = folders.root, ["--cache_gb", 0]
    out = predict(folders, "--normal", root / "good", "--branches", "few", "--input", root / "new", *none)
    highest = np.nextafter(np.float32(out.settings["threshold"]), np.float32(0))
    assert 0.9 < highest < 1.5  # 1 on the scale of all, and by what the others weigh cues near it
    maps = [*none, "--image_score", "published", "--head", "none"]
    of_maps = predict(
        folders, "--normal", root / "good", "--branches", "few", "--input", root / "new", *maps, to="maps"
    )
    assert of_maps.settings["threshold"] == np.nextafter(
        np.float32(1), np.float32(2)
    )  # on its own scale the highest is 1
    again = predict(folders, "--normal", root / "good", "--branches", "few", "--input", root / "good", *none, to="own")
    assert all(row["verdict"] == "normal" for row in again.rows)  # they are in the bank


def test_a_bank_in_the_cache_leaves_out_the_right_images(folders):
    """With and without abnormal images the same bank numbers its images otherwise."""
    root = folders.root
    flags = ["--normal", root / "good", "--input", root / "new"]
    fresh = predict(folders, *flags, "--cache_gb", 0, to="fresh")
    predict(folders, *flags, "--abnormal", root / "bad", to="first")
    assert predict(folders, *flags, to="second").settings["threshold"] == fresh.settings["threshold"]


def test_abnormal_images_set_the_threshold_with_the_largest_f1(folders):
    """Abnormal images that are plainly brighter than normal ones: the threshold parts them."""
    root = folders.root
    for number in range(3):
        Image.new("L", (40, 30), 255).save(root / "bad" / f"bad{number}.png")
    out = predict(
        folders,
        *("--normal", root / "good", "--abnormal", root / "bad", "--branches", "few"),
        *("--input", root / "good", root / "bad"),
    )
    verdicts = {Path(row["file"]).parent.name: set() for row in out.rows}
    for row in out.rows:
        verdicts[Path(row["file"]).parent.name].add(row["verdict"])
    assert verdicts == {"good": {"normal"}, "bad": {"abnormal"}}
    assert 0 < out.settings["threshold"] < 1 and out.settings["colours"]["to"] == 1


@pytest.mark.parametrize("score", ["max", "mean"])
def test_prompts_alone_are_probabilities_and_say_that_nothing_is_calibrated(folders, score):
    out = predict(folders, "--input", folders.root / "new", "--score", score)
    assert out.code == 0 and "uncalibrated" in out.out
    assert all(row["note"] == "uncalibrated" and row["threshold"] == "0.5" for row in out.rows)
    assert not out.settings["calibrated"] and out.settings["maps"]["65535"] == 1
    for name, value in out.scores.items():
        assert 0 <= float(value) <= 1
        if score == "max":
            assert out.map(name).max() <= float(value) + 1e-4


def test_prompts_alone_project_the_trunks_tokens_as_clip_does(folders, tiny):
    """By hand: probabilities of ln_post and proj of every tap's patches, averaged over taps and patches."""
    import CLIP
    import prompt
    from dataset import load_image

    out = predict(folders, "--input", folders.root / "new" / "new0.png", "--score", "mean")
    clip = CLIP.load_clip(*tiny, SIZE)
    text = directions_of(clip, *prompt.sentences("thing", folders.words, "thing"))
    visual, probabilities = clip.visual, []
    with torch.no_grad():
        x = visual.embed(load_image(folders.root / "new" / "new0.png", SIZE)[None])
        for block in visual.transformer.resblocks:
            x = block(x)
            joint = visual.ln_post(x[0, 1:]) @ visual.proj
            cosines = joint / joint.norm(dim=1, keepdim=True) @ text
            probabilities.append((100 * cosines).softmax(dim=1)[:, 1])
    assert float(out.rows[0]["score"]) == pytest.approx(float(torch.stack(probabilities).mean()), abs=1e-5)


def test_of_a_volume_some_slices_are_seen_for_calibration(monkeypatch):
    """Slices count singly: a volume of hundreds would otherwise be scored whole."""
    monkeypatch.setattr(reference_folders, "CALIBRATION_IMAGES", 3)
    pictures = [KnownPicture(0, 1, Image.Image), *(KnownPicture(1, 0, Image.Image) for _ in range(10))]
    data = FewShotSet(None, (Sample(Path("head.nii"), 0),), (Sample(Path("bad.png"), 1),), (), {})
    support = reference_folders._support(pictures, SIZE, 1)
    run = reference_folders.UntrainedRun(PredictSpec(seed=0), None, (), None, None, data, support, pictures=pictures)
    rows = run.calibration_rows().tolist()
    assert rows[0] == 0 and len(rows) == 4 and rows == sorted(set(rows))


def test_shot_takes_some_of_the_normal_images(folders):
    out = predict(folders, "--normal", folders.root / "good", "--shot", 2, "--input", folders.root / "new")
    assert len(out.settings["support"]["normal"]) == 2 and "2 of 4 normal files" in out.out


def test_many_normal_images_speak_for_themselves(folders):
    for number in range(17):
        noise(folders.root / "many" / f"{number}.png", seed=number)
    out = predict(folders, "--normal", folders.root / "many", "--input", folders.root / "new")
    assert "17 normal files\n" in out.out and out.code == 0
    capped = predict(
        folders, "--normal", folders.root / "many", "--bank_cap", 20, "--input", folders.root / "new", to="c"
    )
    assert capped.scores != out.scores


def test_volumes_and_dicom_files_may_be_normal_too(folders):
    good = folders.root / "stacks"
    good.mkdir()
    values = np.random.default_rng(5).integers(0, 200, (20, 24, 5), np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), good / "a.nii.gz")
    dicom_file(good / "b.dcm", values[..., 0])
    out = predict(folders, "--normal", good, "--input", good)
    assert out.code == 0 and "2 normal files with 6 slices" in out.out
    (folders.root / "bad" / "c.nii.gz").write_bytes((good / "a.nii.gz").read_bytes())
    bad = predict(folders, "--normal", good, "--abnormal", folders.root / "bad", "--input", good, to="bad out")
    assert bad.code == 2 and "which of its 5 slices" in bad.err


def test_no_image_is_normal_and_abnormal(folders):
    root = folders.root
    (root / "bad" / "linked.png").symlink_to(root / "good" / "good2.png")
    out = predict(folders, "--normal", root / "good", "--abnormal", root / "bad", "--input", root / "new")
    assert out.code == 2 and "good2.png is in --normal and in --abnormal" in out.err


def test_scored_images_of_the_support_are_counted(folders):
    root = folders.root
    out = predict(folders, "--normal", root / "good", "--input", root / "new", root / "good" / "good0.png")
    assert out.code == 0 and "in the support too: 1 of the 6 files" in out.out
    other = predict(folders, "--normal", root / "good", "--input", root / "new", to="other")
    assert "in the support" not in other.out
