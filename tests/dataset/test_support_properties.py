"""Whatever a selection file holds, its names are read or it is refused in one line that names the file."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset.support import read_selection
from runtime.errors import InputError

LINES = st.one_of(
    st.sampled_from((b"n-0: a b", b"a-0: c", b"n-0: a a", b"n-1:", b"a-0 c", b"")), st.binary(max_size=20)
)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(LINES, max_size=5))
def test_selections(tmp_path, lines):
    (tmp_path / "1-shot.txt").write_bytes(b"\n".join(lines))
    try:
        normal, abnormal = read_selection(tmp_path / "1-shot.txt")
    except InputError as fault:
        assert str(tmp_path / "1-shot.txt") in str(fault) and "\n" not in str(fault)
    else:
        assert normal and abnormal and len(set(normal)) == len(normal)
