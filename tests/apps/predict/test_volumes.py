"""NIfTI and NRRD: slices along an axis, upright, scaled over the volume; maps go back into the same geometry."""

import os
import sys

import nibabel
import nrrd
import numpy as np
import pytest

from apps.predict import volumes
from apps.predict.inputs import Reader
from apps.predict.volumes import open_stack, unit_range, view_of
from runtime.errors import InputError

SHAPE = (6, 5, 4)
RAS = np.diag([1.5, 2.0, 3.0, 1.0])


def values(shape=SHAPE) -> np.ndarray:
    """All different, from -100 up."""
    return (np.arange(np.prod(shape), dtype=np.int16) - 100).reshape(shape)


def nifti(path, array=None, affine=RAS, kind=nibabel.Nifti1Image):
    image = kind(values() if array is None else array, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def nrrd_file(path, array=None, **header):
    nrrd.write(str(path), values() if array is None else array, header)
    return path


def slices(stack) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in stack.pictures])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "V.NII.GZ", "v.nrrd", "V.NRRD"])
def test_slices_are_scaled_over_the_volume(tmp_path, name, axis):
    path = (nrrd_file if name.lower().endswith("nrrd") else nifti)(tmp_path / name)
    stack = Reader(axis=axis).open(path)
    found = slices(stack)
    assert stack.several and len(found) == SHAPE[axis] and found.dtype == np.float32
    assert found.min() == 0 and found.max() == 1
    wanted = (values() + 100) / values().size
    for number, one in enumerate(found):  # the same values, however they are turned
        expected = np.take(wanted, number, axis) * values().size / (values().size - 1)
        np.testing.assert_allclose(np.sort(one.ravel()), np.sort(expected.ravel()), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    "affine", [RAS, np.diag([-1.0, -1, 1, 1]), np.array([[0, 0, 2.0, 5], [1, 0, 0, 6], [0, -3, 0, 7], [0, 0, 0, 1]])]
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_map_lies_where_its_image_does(tmp_path, axis, affine, suffix):
    path = nifti(tmp_path / f"in{suffix}", affine=affine)
    stack = open_stack(path, axis, None)
    written = stack.save(tmp_path / "out", slices(stack))
    assert written == tmp_path / f"out{suffix}"
    one, other = nibabel.load(path), nibabel.load(written)
    assert type(one) is type(other) and one.shape == other.shape
    np.testing.assert_array_equal(one.affine, other.affine)
    np.testing.assert_array_equal(one.header.get_zooms(), other.header.get_zooms())
    assert other.get_data_dtype() == np.float32 and other.header.get_xyzt_units() == one.header.get_xyzt_units()
    np.testing.assert_array_equal(other.get_fdata(dtype=np.float32), unit_range(values(), None))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_nrrd_map_lies_where_its_image_does(tmp_path, axis):
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([0.5, -0.6, 2.0]),
        "space origin": [1.0, 2.0, 3.0],
        "kinds": ["domain"] * 3,
        "note": "kept",
    }
    path = nrrd_file(tmp_path / "in.nrrd", **header)
    stack = open_stack(path, axis, None)
    array, found = nrrd.read(str(stack.save(tmp_path / "out", slices(stack))))
    np.testing.assert_array_equal(array, unit_range(values(), None))
    assert array.dtype == np.float32 and found["note"] == "kept" and found["space"] == header["space"]
    for name in ("space directions", "space origin"):
        np.testing.assert_array_equal(found[name], header[name])


def test_an_axial_slice_is_shown_from_the_feet_with_the_front_up(tmp_path):
    array = np.zeros(SHAPE, np.int16)
    array[5, 4, 2] = 1  # furthest right and front
    right_front = slices(open_stack(nifti(tmp_path / "ras.nii", array), 2, None))
    assert right_front.shape == (4, 5, 6) and right_front[2, 0, 0] == 1
    lps = nifti(tmp_path / "lps.nii", array, np.diag([-1.0, -1, 1, 1]))
    assert slices(open_stack(lps, 2, None))[2, 4, 5] == 1
    directions = {"space": "RAS", "space directions": np.eye(3)}
    assert slices(open_stack(nrrd_file(tmp_path / "r.nrrd", array, **directions), 2, None))[2, 0, 0] == 1


def test_sagittal_and_coronal_slices_have_the_head_up():
    ras = np.eye(3)
    marked = np.zeros(SHAPE)
    marked[0, 4, 3] = 1  # left, front, top
    sagittal, coronal = (view_of(axis, ras).show(marked) for axis in (0, 1))
    assert sagittal.shape == (6, 4, 5) and sagittal[0, 0, 0] == 1  # front on the left
    assert coronal.shape == (5, 4, 6) and coronal[4, 0, 5] == 1  # patient's left on the right


@pytest.mark.parametrize("directions", [None, np.full((3, 3), np.nan), np.ones((3, 3))])
def test_without_directions_axes_stay_as_stored(directions):
    view = view_of(2, directions)
    assert view.axes == (2, 1, 0) and view.turned == ()


def test_a_window_says_which_values_count():
    array = np.array([-1000, -160, 40, 240, 3000])
    np.testing.assert_allclose(unit_range(array, (40, 400)), [0, 0, 0.5, 1, 1])


def test_what_is_not_a_number_is_dark():
    array = np.array([np.nan, 1, 3, np.inf], np.float32)
    np.testing.assert_array_equal(unit_range(array, None), [0, 0, 1, 0])


def test_a_constant_volume_is_dark(tmp_path):
    path = nifti(tmp_path / "flat.nii", np.full(SHAPE, 7, np.int16))
    assert (slices(open_stack(path, 2, None)) == 0).all()


def test_rescaling_of_the_header_counts(tmp_path):
    image = nibabel.Nifti1Image(values(), RAS)
    image.header.set_slope_inter(2, -10)
    nibabel.save(image, tmp_path / "s.nii")
    found = volumes.open_volume(tmp_path / "s.nii", 2)
    np.testing.assert_allclose(found.stored, nibabel.load(tmp_path / "s.nii").get_fdata(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 4, 1)])
def test_axes_of_length_one_come_back(tmp_path, shape):
    for path in (nifti(tmp_path / "a.nii", values(shape)), nrrd_file(tmp_path / "a.nrrd", values(shape))):
        stack = open_stack(path, 2, None)
        written = stack.save(tmp_path / "out", slices(stack))
        found = nibabel.load(written).shape if path.suffix == ".nii" else nrrd.read(str(written))[0].shape
        assert found == shape and len(stack.pictures) == (*shape, 1)[2]


def test_nifti_2(tmp_path):
    path = nifti(tmp_path / "two.nii", kind=nibabel.Nifti2Image)
    stack = open_stack(path, 2, None)
    assert type(nibabel.load(stack.save(tmp_path / "out", slices(stack)))) is nibabel.Nifti2Image


def broken(folder):
    """Files that are no grey volume, with a word of what is said."""
    whole = nifti(folder / "whole.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.nii").write_text("no volume")
    (folder / "text.nrrd").write_text("no volume")
    nifti(folder / "time.nii", values((3, 3, 3, 2)))
    nifti(folder / "complex.nii", np.zeros(SHAPE, np.complex64))
    nifti(folder / "nan.nii", np.full(SHAPE, np.nan, np.float32))
    return {
        "cut.nii.gz": "can't be read",
        "text.nii": "can't be read",
        "text.nrrd": "can't be read",
        "time.nii": "3x3x3x2",
        "complex.nii": "not grey",
        "nan.nii": "no value",
    }


def test_what_is_no_volume_is_named_in_one_line(tmp_path):
    for name, words in broken(tmp_path).items():
        with pytest.raises(InputError) as fault:
            Reader().open(tmp_path / name)
        assert name in str(fault.value) and words in str(fault.value) and "\n" not in str(fault.value)


def test_a_missing_package_names_its_install_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nrrd", None)
    with pytest.raises(InputError, match=r"pip install -r requirements/medical\.txt"):
        Reader().open(nifti(tmp_path / "a.nrrd.nii").rename(tmp_path / "a.nrrd"))


NRRD_HEADER = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\n"


@pytest.mark.parametrize(
    "name", ["{}/elsewhere.raw", "../elsewhere.raw", "sub/a.raw", "LIST", "a%02d.raw 1 4 1", "pipe"]
)
def test_an_nrrd_header_names_no_file_but_one_beside_it(tmp_path, name):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "elsewhere.raw", folder / "sub" / "a.raw"):
        place.write_bytes(values().tobytes("F"))
    os.mkfifo(folder / "pipe")
    (folder / "a.nrrd").write_text(f"{NRRD_HEADER}data file: {name.format(tmp_path)}\n\n")
    with pytest.raises(InputError, match=r"a\.nrrd names the data file .* no file beside it"):
        Reader().open(folder / "a.nrrd")


def test_an_nrrd_file_of_two_pieces(tmp_path):
    (tmp_path / "a.raw").write_bytes(values().tobytes("F"))
    (tmp_path / "a.nrrd").write_text(f"{NRRD_HEADER}data file: a.raw\n\n")
    whole = Reader().open(nrrd_file(tmp_path / "whole.nrrd"))
    np.testing.assert_array_equal(slices(Reader().open(tmp_path / "a.nrrd")), slices(whole))


@pytest.mark.parametrize("skip", ["line skip: 1000000000", "lineskip: 1000000000", "data file: a.raw\nbyte skip: -1"])
def test_what_an_nrrd_header_skips_lies_within_its_file(tmp_path, skip):
    (tmp_path / "a.raw").write_bytes(values().tobytes("F"))
    (tmp_path / "a.nrrd").write_bytes(f"{NRRD_HEADER}{skip}\n\n".encode() + values().tobytes("F"))
    with pytest.raises(InputError, match=r"a\.nrrd skips .* mend line skip and byte skip"):
        Reader().open(tmp_path / "a.nrrd")


def test_a_geometry_that_is_not_finite_is_said_before_scoring(tmp_path):
    path = nifti(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[280:284] = np.float32(np.nan).tobytes()  # the affine's first number
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii has an affine that is not finite"):
        Reader().open(path)


def test_values_that_float32_does_not_hold_are_not_taken_for_dark(tmp_path):
    array = values().astype(float)
    array[0, 0, 0] = 1e300
    for path in (nifti(tmp_path / "a.nii", array), nrrd_file(tmp_path / "a.nrrd", array)):
        with pytest.raises(InputError, match=f"{path.name} can't be read .*overflow"):
            Reader().open(path)


def test_packages_say_nothing_beside_the_line(tmp_path, capfd):
    path = nifti(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[70:72] = b"\xff\x7f"  # the type of its values
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii can't be read"):
        Reader().open(path)
    assert capfd.readouterr().err == ""
