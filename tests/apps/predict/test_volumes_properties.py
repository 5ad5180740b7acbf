"""Whatever a header of a volume or a DICOM file holds, it is opened or refused in one line that names the file."""

import nibabel
import numpy as np
import pytest
from helpers.dicom_files import dicom_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.predict.inputs import Reader
from runtime.errors import InputError

BOUNDED = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
FIELDS = (
    "type",
    "dimension",
    "sizes",
    "endian",
    "encoding",
    "line skip",
    "byte skip",
    "data file",
    "space",
    "spacings",
)
WORDS = st.one_of(
    st.sampled_from(
        ("short", "float", "3", "-1", "0", "2 3 4", "1000000000", "nan inf 1", "raw", "gzip", "LIST", "RAS")
    ),
    st.text(max_size=12),
)


def opened_or_named(path) -> None:
    """Open the file; what is wrong with it is one line that names it."""
    try:
        pictures = Reader().open(path).pictures
    except InputError as fault:
        assert str(path) in str(fault) and "\n" not in str(fault)
    else:
        assert all(np.isfinite(np.asarray(picture)).all() for picture in pictures)


@BOUNDED
@given(st.dictionaries(st.sampled_from(FIELDS), WORDS))
def test_nrrd(tmp_path, changed):
    header = {"type": "short", "dimension": "3", "sizes": "2 3 4", "endian": "little", "encoding": "raw"} | changed
    lines = "".join(f"{name}: {value}\n" for name, value in header.items())
    (tmp_path / "a.nrrd").write_bytes(f"NRRD0004\n{lines}\n".encode() + VALUES.tobytes("F"))
    opened_or_named(tmp_path / "a.nrrd")


@pytest.mark.parametrize("kind", ["a.nii", "a.dcm"])
@BOUNDED
@given(place=st.floats(0, 1, exclude_max=True), content=st.binary(min_size=1, max_size=16))
def test_bytes_of_a_header(tmp_path, kind, place, content):
    path = tmp_path / kind
    if kind == "a.nii":
        nibabel.save(nibabel.Nifti1Image(VALUES, np.eye(4)), path)
    else:
        dicom_file(path)
    whole = bytearray(path.read_bytes())
    start = int(place * 348)
    whole[start : start + len(content)] = content
    path.write_bytes(whole)
    opened_or_named(path)
