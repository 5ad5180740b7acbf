"""What regions are handed on as: SEG files that others read, mask volumes with their geometry, JSON, a column."""

import json
from pathlib import Path

import highdicom
import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
from helpers.dicom_files import RAMP, dicom_file
from helpers.predicting import Out, predict
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, generate_uid

from apps.predict import segmentation, volumes
from apps.predict.inputs import Reader
from apps.predict.segmentation import ScoredSlice, read_cell
from engine.findings import Finding, Resemblance
from runtime.errors import InputError

CT = {
    "SOPClassUID": CTImageStorage,
    "StudyInstanceUID": generate_uid(),
    "SeriesInstanceUID": generate_uid(),
    "FrameOfReferenceUID": generate_uid(),
    "Modality": "CT",
    "PatientID": "7",
    "InstanceNumber": 3,
    "PixelSpacing": [0.5, 0.75],
    "SliceThickness": 2,
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "ImagePositionPatient": [-10, -20, 5],
}
MARKED = np.zeros((1, 4, 5), bool)
MARKED[0, 1:3, 2:5] = True
ONE = Finding((2, 1, 5, 3), 6, 0.9, "centre right", 1.0, 2.25, (Resemblance("a mass", 1.5),))


def slice_of(marked: np.ndarray = MARKED[0], place: int | None = None) -> ScoredSlice:
    return ScoredSlice(place, 0.8, bool(marked.any()), (ONE,) if marked.any() else (), marked)


def saved(file: Path, to: Path, *slices: ScoredSlice) -> tuple[str, dict]:
    """Why there is no segmentation, and the JSON."""
    why = segmentation.save(to, "x", file, Reader().open(file), slices or (slice_of(),), {"threshold": 0.5})
    return why, json.loads((to / "segmentations" / "x.json").read_text(encoding="utf-8"))


def test_a_seg_refers_to_its_image_and_keeps_its_geometry(tmp_path):
    file = dicom_file(tmp_path / "a.dcm", **CT)
    why, content = saved(file, tmp_path / "out")
    assert why == "" and content["segmentation"] == "x.dcm" and content["no_segmentation_because"] is None
    source, found = pydicom.dcmread(file), highdicom.seg.segread(tmp_path / "out" / "segmentations" / "x.dcm")
    np.testing.assert_array_equal(found.pixel_array.reshape(4, 5), MARKED[0])
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "InstanceNumber", "Rows", "Columns"):
        assert found.get(name) == source.get(name), name
    assert found.SeriesInstanceUID != source.SeriesInstanceUID and found.Modality == "SEG"
    shared, frame = found.SharedFunctionalGroupsSequence[0], found.PerFrameFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.5, 0.75]
    assert "SpacingBetweenSlices" not in shared.PixelMeasuresSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert frame.PlanePositionSequence[0].ImagePositionPatient == [-10, -20, 5]
    (referred,) = frame.DerivationImageSequence[0].SourceImageSequence
    assert referred.ReferencedSOPInstanceUID == source.SOPInstanceUID
    (segment,) = found.SegmentSequence
    assert segment.SegmentLabel == "anomaly region" and segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentAlgorithmName == "ClipMPCAD"


def test_the_same_regions_have_the_same_uids(tmp_path):
    stack = Reader().open(dicom_file(tmp_path / "a.dcm", **CT))
    uids = []
    for name, marked in (("one", MARKED), ("again", MARKED), ("other", MARKED[..., ::-1])):
        found = pydicom.dcmread(stack.segment(tmp_path / name, marked))
        uids.append((found.SeriesInstanceUID, found.SOPInstanceUID))
    assert uids[0] == uids[1] and uids[0][0] == uids[2][0] and uids[0][1] != uids[2][1]


def test_frames_of_an_enhanced_image_keep_their_places(tmp_path):
    def of_frame(height: float) -> Dataset:
        position, both = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, height]
        both.PlanePositionSequence = Sequence([position])
        return both

    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], 2
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    known = {name: CT[name] for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality")}
    known |= {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "SharedFunctionalGroupsSequence": Sequence([shared])}
    known["PerFrameFunctionalGroupsSequence"] = Sequence([of_frame(height) for height in (0, 2, 4)])
    file = dicom_file(tmp_path / "a.dcm", np.stack([RAMP] * 3), **known)
    assert Reader().open(file).spacing == (0.5, 0.5)
    empty = np.zeros((4, 5), bool)
    why, _ = saved(file, tmp_path, slice_of(empty, 0), slice_of(place=1), slice_of(empty, 2))
    found = highdicom.seg.segread(tmp_path / "segmentations" / "x.dcm")
    assert why == "" and found.NumberOfFrames == 1
    (frame,) = found.PerFrameFunctionalGroupsSequence
    assert frame.PlanePositionSequence[0].ImagePositionPatient == [0, 0, 2]
    assert frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 2


def test_a_radiograph_needs_no_frame_of_reference(tmp_path):
    known = {name: CT[name] for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    known |= {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX", "ImagerPixelSpacing": [0.2, 0.1]}
    file = dicom_file(tmp_path / "a.dcm", **known)
    why, content = saved(file, tmp_path)
    assert why == "" and content["spacing_mm"] == [0.2, 0.1]


@pytest.mark.parametrize("name", sorted(CT.keys() - {"SOPClassUID", "PatientID", "InstanceNumber"}))
def test_what_a_seg_needs_and_an_image_lacks_is_named_once_and_json_is_there(tmp_path, name):
    file = dicom_file(tmp_path / "a.dcm", **{key: value for key, value in CT.items() if key != name})
    why, content = saved(file, tmp_path / "out")
    assert "a.dcm: no DICOM SEG can be made of it" in why and "\n" not in why
    assert name in why or (name == "FrameOfReferenceUID" and "Frame Of Reference" in why)
    assert content["segmentation"] is None and content["no_segmentation_because"] == why
    assert content["images"][0]["regions"][0]["area"] == 6
    assert [path.name for path in (tmp_path / "out" / "segmentations").iterdir()] == ["x.json"]


def test_without_highdicom_there_is_json_and_the_line_that_installs_it(tmp_path, monkeypatch):
    usual = volumes.importlib.import_module

    def missing(name: str) -> object:
        if name == "highdicom":
            raise ImportError(name)
        return usual(name)

    monkeypatch.setattr(volumes.importlib, "import_module", missing)
    why, content = saved(dicom_file(tmp_path / "a.dcm", **CT), tmp_path)
    assert "pip install -r requirements/medical.txt" in why and "highdicom" in why
    assert content["segmentation"] is None and content["source"]["StudyInstanceUID"] == CT["StudyInstanceUID"]


def test_a_normal_dicom_image_has_json_alone(tmp_path):
    why, content = saved(dicom_file(tmp_path / "a.dcm"), tmp_path, slice_of(np.zeros((4, 5), bool)))
    assert why == "" and content["segmentation"] is None
    assert content["images"] == [{"slice": None, "score": 0.8, "verdict": "normal", "regions": []}]
    assert "no diagnosis" in content["note"]


@pytest.mark.parametrize("spacing", [[0.5], [0, 1], ["nan", 1], [-1, 1], None])
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_a_spacing_that_is_none_is_not_told(tmp_path, spacing):
    more = {} if spacing is None else {"PixelSpacing": spacing}
    assert Reader().open(dicom_file(tmp_path / "a.dcm", **more)).spacing is None


def nifti(path: Path, unit: str = "mm", known: bool = True) -> Path:
    """A volume of 3 x 4 x 2 voxels of 0.5, 2 and 3 units."""
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(3, 4, 2), np.diag([0.5, 2, 3, 1]))
    image.header.set_xyzt_units(unit)
    if not known:
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(
    ("unit", "known", "axis", "spacing"),
    [
        ("mm", True, 2, (2, 0.5)),
        ("mm", True, 0, (3, 2)),
        ("meter", True, 1, (3000, 500)),
        ("micron", False, 2, (2e-3, 5e-4)),
        ("unknown", True, 2, (2, 0.5)),
        ("unknown", False, 2, None),
    ],
)
def test_the_spacing_of_a_nifti_slice(tmp_path, unit, known, axis, spacing):
    found = Reader(axis).open(nifti(tmp_path / "v.nii", unit, known)).spacing
    if spacing is None:
        assert found is None
    else:
        assert sorted(found) == pytest.approx(sorted(spacing))
        if known:
            assert found == pytest.approx(spacing)


def test_a_nifti_mask_has_the_volumes_geometry(tmp_path):
    file = nifti(tmp_path / "v.nii.gz")
    stack = Reader().open(file)
    marked = np.zeros((2, 4, 3), bool)
    marked[1, 0, 2] = True
    found = nibabel.load(stack.segment(tmp_path / "x", marked))
    assert found.get_data_dtype() == np.uint8 and found.shape == (3, 4, 2)
    np.testing.assert_array_equal(found.affine, nibabel.load(file).affine)
    again = volumes.open_labels(tmp_path / "x.nii.gz", file, 2)  # cut as the volume itself is
    np.testing.assert_array_equal(again, marked)


@pytest.mark.parametrize(
    ("header", "spacing"),
    [
        ({"space": "left-posterior-superior", "space directions": np.diag([0.5, 2, 3])}, (2, 0.5)),
        ({"space directions": np.diag([0.5, 2, 3]), "space dimension": 3}, None),
        ({"spacings": [0.5, 2, 3], "units": ["mm", "mm", "mm"]}, (2, 0.5)),
        ({"spacings": [0.5, 2, 3]}, None),
    ],
)
def test_an_nrrd_mask_has_the_volumes_geometry(tmp_path, header, spacing):
    nrrd.write(str(tmp_path / "v.nrrd"), np.arange(24, dtype=np.int16).reshape(3, 4, 2), dict(header))
    stack = Reader().open(tmp_path / "v.nrrd")
    assert stack.spacing == (None if spacing is None else pytest.approx(spacing))
    marked = np.zeros((2, 4, 3), bool)
    marked[1, 3, 1] = True
    array, found = nrrd.read(str(stack.segment(tmp_path / "x", marked)))
    assert array.dtype == np.uint8 and array.sum() == array[1, 3, 1] == 1
    for name, value in header.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_cell_is_read_as_it_was_written():
    cell = slice_of().cell()
    (found,) = read_cell(cell)
    assert found["place"] == "centre right" and found["area_mm2"] == 2.25
    assert found["resembles"] == [{"finding": "a mass", "margin": 1.5}] and read_cell("") == []
    assert slice_of(np.zeros((4, 5), bool)).cell() == ""
    many = ScoredSlice(None, 0.8, True, (ONE,) * (segmentation.MOST + 9), MARKED[0])
    assert len(read_cell(many.cell())) == segmentation.MOST


@pytest.mark.parametrize("text", ["[", "7", '{"a": 1}', "[7]", "[{}]", '[{"box": [1], "resembles": []}]'])
def test_a_cell_that_was_never_written_is_refused(text):
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_cell(text)


def findings_of(out: Out) -> list[list[dict]]:
    """Of every row of scores.csv."""
    return [json.loads(row["findings"]) if row["findings"] else [] for row in out.rows]


def test_predict_tells_the_regions_of_abnormal_images_alone(folders):
    flags = ["--input", folders.root / "new", "--pixel_threshold", 0.5]
    abnormal = predict(folders, *flags, "--threshold", 0, to="abnormal")
    normal = predict(folders, *flags, "--threshold", 9, to="normal")
    assert abnormal.code == normal.code == 0 and abnormal.scores == normal.scores
    assert all(row["findings"] == "" and row["verdict"] == "normal" for row in normal.rows)
    for row, found in zip(abnormal.rows, findings_of(abnormal), strict=True):
        mask = abnormal.picture("masks", f"{Path(row['file']).stem}.png") > 0
        assert sum(one["area"] for one in found) == mask.sum()
        if found:
            assert sum(one["share"] for one in found) == pytest.approx(1, abs=1e-3)
        assert all(len(one["resembles"]) == 3 and one["area_mm2"] is None for one in found)
    assert any(findings_of(abnormal)) and not (abnormal.folder / "segmentations").exists()
    again = predict(folders, *flags, "--threshold", 0, to="abnormal")
    assert "were scored before" in again.out and again.rows == abnormal.rows


@pytest.mark.parametrize(("branches", "count"), [("few", 0), ("both", 3)])
def test_only_where_there_is_text_something_is_resembled(folders, branches, count):
    flags = ["--normal", folders.root / "good", "--branches", branches, "--input", folders.root / "new"]
    out = predict(folders, *flags, "--threshold", 0, "--pixel_threshold", 0.1)
    found = [one for row in findings_of(out) for one in row]
    assert out.code == 0 and found and {len(one["resembles"]) for one in found} == {count}


def test_predict_writes_a_seg_and_one_notice(folders):
    (folders.root / "dicom").mkdir()
    frames = np.random.default_rng(2).integers(0, 900, (3, 16, 20), np.int16)
    dicom_file(folders.root / "dicom" / "whole.dcm", frames[0], **CT)
    for number in (1, 2):
        dicom_file(folders.root / "dicom" / f"bare{number}.dcm", frames[number])
    flags = ["--input", folders.root / "dicom", "--threshold", 0, "--pixel_threshold", 0.1]
    out = predict(folders, *flags)
    assert out.code == 0
    made = sorted(path.name for path in (out.folder / "segmentations").iterdir())
    assert made == ["bare1.json", "bare2.json", "whole.dcm", "whole.json"]
    assert out.out.count("no DICOM SEG can be made") == 1 and "bare1.dcm" in out.out and "; and 1 more" in out.out
    seg = highdicom.seg.segread(out.folder / "segmentations" / "whole.dcm")
    np.testing.assert_array_equal(seg.pixel_array.reshape(16, 20) > 0, out.picture("masks", "whole.png") > 0)
    whole = findings_of(out)[-1]
    assert whole and all(one["area_mm2"] == pytest.approx(one["area"] * 0.375) for one in whole)
    told = json.loads((out.folder / "segmentations" / "whole.json").read_text())["images"][0]
    assert told["regions"] == whole


def test_predict_marks_abnormal_slices_of_volumes_alone(folders):
    values = np.random.default_rng(1).integers(0, 99, (12, 10, 3), np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])), folders.root / "v.nii")
    flags = ["--input", folders.root / "v.nii", "--pixel_threshold", 0.1]
    scores = sorted(float(score) for score in predict(folders, *flags, to="first").scores.values())
    out = predict(folders, *flags, "--threshold", scores[1])
    mask = nibabel.load(out.folder / "segmentations" / "v.nii").get_fdata()
    marked = [bool(mask[..., number].any()) for number in range(3)]
    assert marked == [row["verdict"] == "abnormal" for row in out.rows] and sum(marked) == 2
    assert [bool(found) for found in findings_of(out)] == marked


def test_a_volume_that_can_not_be_segmented_is_named(tmp_path):
    stack = volumes.Stack([], several=True, segment=lambda to, marked: (_ for _ in ()).throw(InputError("no room")))
    assert segmentation.save(tmp_path, "x", tmp_path / "v.nii", stack, [slice_of(place=0)], {}) == "no room"
