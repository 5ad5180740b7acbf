"""One slice, one verdict: the same pixels as PNG, DICOM, NIfTI and NRRD; and what is said of files that differ."""

import json
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
from helpers.dicom_files import dicom_file
from helpers.predicting import noise, predict
from PIL import Image

from apps.predict.inputs import Reader
from apps.predict.manners import Manner, differing, manners_of
from apps.predict.outputs import ScoredPicture
from apps.predict.volumes import AS_STORED, BY_FILE, BY_HEADER, BY_WINDOW, DEEP, plane_of

PIXELS = np.random.default_rng(5).integers(20, 230, (48, 40), np.uint8)  # neither 0 nor 255
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # columns lead to the patient's left, rows to the back: as slices are shown
NAMES = ("a.png", "b.dcm", "c.dcm", "d.dcm", "e.nii.gz", "f.nii", "g.nrrd", "h.nrrd")


def written(folder: Path, pixels: np.ndarray = PIXELS) -> dict[str, Path]:
    """A slice in every way that keeps its pixels: plain, by a window of all values, turned round, with geometry."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in NAMES}
    Image.fromarray(pixels).save(files["a.png"])
    dicom_file(files["b.dcm"], pixels)
    dicom_file(files["c.dcm"], pixels, WindowCenter=128, WindowWidth=256)
    dicom_file(files["d.dcm"], 255 - pixels, PhotometricInterpretation="MONOCHROME1")
    stored = pixels.T[..., None]
    nibabel.Nifti1Image(stored, LPS).to_filename(files["e.nii.gz"])
    nibabel.Nifti1Image(stored, None).to_filename(files["f.nii"])
    nrrd.write(str(files["g.nrrd"]), stored)
    geometry = {"space": "left-posterior-superior", "space directions": np.eye(3), "space origin": np.zeros(3)}
    nrrd.write(str(files["h.nrrd"]), stored, geometry)
    return files


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_those_of_the_image_file(tmp_path, name):
    (picture,) = Reader().open(written(tmp_path)[name]).pictures
    assert picture.mode == "RGB" and (np.asarray(picture) == PIXELS[..., None]).all()


def test_one_slice_gets_one_score_whatever_holds_it(folders):
    files = written(folders.root / "slices")
    out = predict(folders, "--normal", folders.root / "good", "--input", folders.root / "slices")
    assert out.code == 0 and len(out.rows) == len(files)
    assert len({row["score"] for row in out.rows}) == 1 and len({row["verdict"] for row in out.rows}) == 1
    assert "of the support" not in out.out
    maps = [np.asarray(Image.open(path)) for path in sorted((out.folder / "maps").iterdir())]
    assert len(maps) == len(files) and all((one == maps[0]).all() for one in maps)


def test_what_differs_from_the_support_is_said_in_a_line_and_on_the_page(folders):
    deep = (PIXELS.astype(np.uint16) * 16).astype(np.uint16)
    (folders.root / "slices").mkdir()
    for name in ("one.dcm", "two.dcm"):
        dicom_file(folders.root / "slices" / name, deep, WindowCenter=1000, WindowWidth=900)
    dicom_file(folders.root / "slices" / "three.dcm", deep)
    for _ in range(2):  # the second time nothing is scored, and it still holds
        out = predict(folders, "--normal", folders.root / "good", "--input", folders.root / "slices")
        said = [line for line in out.out.splitlines() if line.startswith("brightness of")]
        assert out.code == 0 and len(said) == 2
        assert any(f"one.dcm and 1 more: {BY_HEADER}; of the support: {AS_STORED}" in line for line in said)
        assert any(f"three.dcm: {BY_FILE}; of the support: {AS_STORED}" in line for line in said)
    page = (out.folder / "report.html").read_text(encoding="utf-8")
    assert "three.dcm: each file from its lowest to its highest value; of the support: 8 bits" in page
    assert out.settings["support_seen"] == [{"shown": AS_STORED, "plane": ""}]


def test_slices_of_another_plane_are_named(folders):
    volume = np.random.default_rng(0).integers(0, 255, (6, 40, 40), np.uint8)
    for name in ("known", "asked"):
        (folders.root / name).mkdir()
    nibabel.Nifti1Image(volume, LPS).to_filename(folders.root / "known" / "a.nii")
    other = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    nibabel.Nifti1Image(volume.T.copy(), other).to_filename(folders.root / "asked" / "b.nii")
    out = predict(folders, "--normal", folders.root / "known", "--input", folders.root / "asked")
    assert out.code == 0 and "plane of b.nii: sagittal; of the support: axial. Scores may not compare" in out.out
    assert "brightness of" not in out.out


def test_how_files_are_seen(tmp_path):
    files = written(tmp_path)
    assert {name: Reader().open(file).shown for name, file in files.items()} == dict.fromkeys(NAMES, AS_STORED)
    Image.fromarray(PIXELS.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    nibabel.Nifti1Image(PIXELS.T[..., None].astype(np.int16), LPS).to_filename(tmp_path / "short.nii")
    assert Reader().open(tmp_path / "deep.png").shown == DEEP and Reader().open(tmp_path / "short.nii").shown == BY_FILE
    for name in NAMES[1:]:
        stack = Reader(window=(100, 50)).open(files[name])
        (picture,) = stack.pictures
        assert stack.shown == BY_WINDOW and picture.mode == "RGB"
    assert Reader().open(files["e.nii.gz"]).plane == Reader().open(files["h.nrrd"]).plane == "axial"
    assert Reader().open(files["f.nii"]).plane == "along axis 2" and Reader().open(files["a.png"]).plane == ""


def test_a_scaled_header_means_more_than_bytes(tmp_path):
    image = nibabel.Nifti1Image(PIXELS.T[..., None], LPS)
    image.header.set_slope_inter(2, 10)
    image.to_filename(tmp_path / "a.nii")
    rescaled = dicom_file(tmp_path / "b.dcm", PIXELS, RescaleSlope=2, RescaleIntercept=10)
    assert Reader().open(tmp_path / "a.nii").shown == Reader().open(rescaled).shown == BY_FILE


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [([1, 0, 0, 0, 1, 0], "axial"), ([1, 0, 0, 0, 0, -1], "coronal"), ([0, 1, 0, 0, 0, -1], "sagittal")],
)
def test_planes_of_dicom(tmp_path, orientation, plane):
    assert Reader().open(dicom_file(tmp_path / "a.dcm", ImageOrientationPatient=orientation)).plane == plane
    assert Reader().open(dicom_file(tmp_path / "b.dcm")).plane == ""


def test_planes_by_axis():
    assert [plane_of(axis, np.diag([-1.0, 1.0, -1.0])) for axis in range(3)] == ["sagittal", "coronal", "axial"]
    assert plane_of(1, None) == "along axis 1"


def test_a_few_files_speak_for_the_support(tmp_path):
    for number in range(30):
        noise(tmp_path / f"{number:02d}.png", seed=number)
    (found,) = manners_of(Reader(), sorted(tmp_path.iterdir()))
    assert found == Manner(AS_STORED, "")
    row = ScoredPicture("x.png", None, 0.5, 0.4, "abnormal", 0.1, shown=DEEP)
    unread = ScoredPicture("y.png", None, None, None, "unreadable", None, "damaged")
    assert list(differing([row], [])) == [] and list(differing([unread], [found])) == []
    (line,) = differing([row, unread], [found])
    assert line.startswith("brightness of x.png: ") and json.dumps(line)
