"""DICOM: rescaling, windows, MONOCHROME1, frames, colours."""

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import RAMP, dicom_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from apps.predict.dicom import is_dicom, open_stack
from apps.predict.inputs import Reader, kind_of
from runtime.errors import InputError


def pixels(path, window=None) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in open_stack(path, window).pictures])


def test_without_a_window_values_are_scaled_over_the_file(tmp_path):
    np.testing.assert_allclose(pixels(dicom_file(tmp_path / "a.dcm")), RAMP[None] / 1900, atol=1e-6)


def test_padding_does_not_count(tmp_path):
    padded = RAMP.copy()
    padded[0, 0] = -2000
    found = pixels(dicom_file(tmp_path / "a.dcm", padded, PixelPaddingValue=-2000))
    np.testing.assert_allclose(found[0].ravel()[1:], (RAMP.ravel()[1:] - 100) / 1800, atol=1e-6)
    assert found[0, 0, 0] == 0


def test_the_users_window_is_of_rescaled_values(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", RescaleSlope=0.5, RescaleIntercept=-100)
    expected = np.clip((RAMP * 0.5 - 100 - (40 - 200)) / 400, 0, 1)
    np.testing.assert_allclose(pixels(path, (40, 400))[0], expected, atol=1e-6)


@pytest.mark.parametrize("window", [(500, 800), ([500, 9], [800, 9])])
def test_the_headers_window_is_the_standards(tmp_path, window):
    path = dicom_file(
        tmp_path / "a.dcm", WindowCenter=window[0], WindowWidth=window[1], RescaleSlope=1, RescaleIntercept=0
    )
    file = pydicom.dcmread(path)
    theirs = pydicom.pixels.apply_windowing(RAMP, file)
    low, high = -(2**15), 2**15 - 1  # what that function spreads the window over
    np.testing.assert_allclose(pixels(path)[0], (theirs - low) / (high - low), atol=1e-4)


def test_other_window_functions(tmp_path):
    path = dicom_file(tmp_path / "s.dcm", WindowCenter=500, WindowWidth=800, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(pixels(path)[0], 1 / (1 + np.exp(-4 * (RAMP - 500.0) / 800)), atol=1e-6)
    path = dicom_file(tmp_path / "e.dcm", WindowCenter=500, WindowWidth=800, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(pixels(path)[0], np.clip((RAMP - 100) / 800, 0, 1), atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [{"WindowCenter": 0, "WindowWidth": 0}, {"WindowWidth": 800}])
def test_a_window_without_width_or_centre_is_none(tmp_path, function, window):
    path = dicom_file(tmp_path / "a.dcm", VOILUTFunction=function, **window)
    np.testing.assert_allclose(pixels(path), RAMP[None] / 1900, atol=1e-6)


def test_a_voi_table(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [2000, 0, 8]  # entries, first value, bits
    table.LUTData = (np.arange(2000) % 256).astype("<u2").tobytes()
    found = pixels(dicom_file(tmp_path / "a.dcm", RAMP.astype(np.uint16), VOILUTSequence=Sequence([table])))
    np.testing.assert_allclose(found[0], (RAMP % 256) / 255, atol=1e-6)


def test_monochrome1_is_turned_round(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(pixels(path)[0], 1 - RAMP / 1900, atol=1e-6)


def test_frames_share_one_scale(tmp_path):
    frames = np.stack([RAMP, RAMP // 2, RAMP * 2])
    stack = open_stack(dicom_file(tmp_path / "a.dcm", frames), None)
    assert stack.several and stack.save is None and len(stack.pictures) == 3
    np.testing.assert_allclose(pixels(tmp_path / "a.dcm"), frames / 3800, atol=1e-6)


def test_a_single_frame_is_one_image(tmp_path):
    stack = open_stack(dicom_file(tmp_path / "a.dcm"), None)
    assert not stack.several and stack.pictures[0].size == (5, 4)


def test_windows_and_rescaling_of_functional_groups(tmp_path):
    def group(centre, slope):
        window, value, both = Dataset(), Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = centre, 1001
        value.RescaleSlope, value.RescaleIntercept = slope, 0
        both.FrameVOILUTSequence, both.PixelValueTransformationSequence = Sequence([window]), Sequence([value])
        return both

    groups = Sequence([group(500.5, 1), group(1000.5, 2)])
    path = dicom_file(tmp_path / "a.dcm", np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=groups)
    expected = np.stack([np.clip(RAMP / 1000, 0, 1), np.clip((RAMP * 2 - 500) / 1000, 0, 1)])
    np.testing.assert_allclose(pixels(path), expected, atol=1e-5)


def test_colours_stay(tmp_path):
    colours = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    stack = open_stack(dicom_file(tmp_path / "a.dcm", colours), None)
    assert stack.pictures[0].mode == "RGB"
    np.testing.assert_array_equal(pixels(tmp_path / "a.dcm")[0], colours)


def test_files_are_known_by_suffix_or_first_bytes(tmp_path):
    dicom_file(tmp_path / "a.dcm").rename(tmp_path / "IM0001")
    (tmp_path / "readme").write_text("text")
    assert is_dicom(tmp_path / "IM0001") and not is_dicom(tmp_path / "readme")
    assert is_dicom(tmp_path / "A.DCM")
    assert len(Reader().open(tmp_path / "IM0001").pictures) == 1


@pytest.mark.parametrize("name", ["1.2.840.113619.2.5.1762", "scan.ima", "scan.dicom"])
def test_other_suffixes_say_nothing(tmp_path, name):
    dicom_file(tmp_path / "a.dcm").rename(tmp_path / name)
    (tmp_path / "table.ima").write_text("text")
    assert kind_of(tmp_path / name) == "dicom" and kind_of(tmp_path / "table.ima") is None


def test_what_is_no_image_is_named_in_one_line(tmp_path):
    whole = dicom_file(tmp_path / "cut.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-20])
    (tmp_path / "text.dcm").write_text("no image")
    bare = pydicom.dcmread(dicom_file(tmp_path / "bare.dcm"))
    del bare.PixelData
    bare.save_as(tmp_path / "bare.dcm")
    for name in ("cut.dcm", "text.dcm", "bare.dcm"):
        with pytest.raises(InputError) as fault:
            Reader().open(tmp_path / name)
        assert name in str(fault.value) and "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("RescaleSlope", value) for value in ("nan", "inf", "1e39", "0")),
        *(("RescaleIntercept", "nan"), ("WindowCenter", "nan"), ("WindowWidth", "inf")),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_numbers_that_make_no_picture_are_named(tmp_path, name, value):
    usual = {"RescaleSlope": 1, "RescaleIntercept": 0, "WindowCenter": 500, "WindowWidth": 800}
    path = dicom_file(tmp_path / "a.dcm", **(usual | {name: value}))
    with pytest.raises(InputError, match=rf"a\.dcm can't be read as an image \(its {name} is "):
        Reader().open(path)


@pytest.mark.parametrize("frames", [RAMP, np.stack([RAMP, RAMP])])
def test_more_pixels_than_the_header_says(tmp_path, frames):
    file = pydicom.dcmread(dicom_file(tmp_path / "a.dcm", frames))
    file.PixelData = 3 * file.PixelData
    file.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"a\.dcm holds more pixels than its header says"):
        Reader().open(tmp_path / "a.dcm")
