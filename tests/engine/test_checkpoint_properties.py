"""Whatever a checkpoint's record and calibration hold, they are taken or refused in one line."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import checkpoint
from runtime.errors import InputError
from scoring.maps import Calibration

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
RECORD = {
    "obj": "Brain",
    "prompts_sha256": "0",
    "weights_sha256": "0",
    "masks": True,
    "options": {"shot": 4},
    "support": {"normal": ["a"], "abnormal": ["b"]},
}
LIMITS = {"zero": [0.0, 1.0], "few": [0.0, 1.0]}
CALIBRATION = {"maps": LIMITS, "means": LIMITS, "image": {"fused": 0.5}, "pixel": {"fused": 0.5}}
BOUNDED = settings(max_examples=150, derandomize=True, deadline=None)


def changed(whole: dict) -> st.SearchStrategy:
    """The whole with some entries replaced, or anything else."""
    return PLAIN | st.dictionaries(st.sampled_from([*whole, "trained_on"]), PLAIN, max_size=2).map(whole.__or__)


def test_the_whole_is_taken():
    checkpoint._check_record(RECORD)
    assert isinstance(checkpoint._calibration(CALIBRATION), Calibration)


@BOUNDED
@given(changed(RECORD))
def test_records(content):
    try:
        checkpoint._check_record(content)
    except InputError as fault:
        assert len(str(fault).splitlines()) == 1
    else:
        assert isinstance(content["obj"], str) and isinstance(content["options"], dict)


@BOUNDED
@given(changed(CALIBRATION))
def test_calibrations(content):
    try:
        found = checkpoint._calibration(content)
    except InputError as fault:
        assert len(str(fault).splitlines()) == 1
    else:
        assert isinstance(found, Calibration)
