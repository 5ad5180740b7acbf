"""Whatever a file for --prompts holds, it gives sentences or one line that names it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prompt
from runtime.errors import InputError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just("a {classname}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prompts", "normal", "x"]), inner),
    max_leaves=6,
)
SIDES = st.dictionaries(st.sampled_from(["normal", "abnormal"]), PLAIN | st.fixed_dictionaries({"prompts": PLAIN}))
BOUNDED = settings(max_examples=200, derandomize=True, deadline=None)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory):
    return tmp_path_factory.mktemp("prompts") / "words.json"


def taken_or_refused(path) -> None:
    try:
        normal, abnormal = prompt.read_json(path, "liver")
    except InputError as fault:
        assert str(path) in str(fault) and "\n" not in str(fault)
    else:
        assert normal and abnormal and all(isinstance(one, str) and one.strip() for one in (*normal, *abnormal))
        assert not any("{classname}" in one for one in (*normal, *abnormal))


@BOUNDED
@given(PLAIN | SIDES)
def test_json_of_any_content(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    taken_or_refused(path)


@BOUNDED
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")))
def test_bytes_of_any_kind(path, content):
    path.write_bytes(content)
    taken_or_refused(path)


@BOUNDED
@given(st.lists(st.text(max_size=12), max_size=4), st.lists(st.text(max_size=12), max_size=4))
def test_lists_of_any_sentences(path, normal, abnormal):
    path.write_text(json.dumps({"normal": {"prompts": normal}, "abnormal": {"prompts": abnormal}}), encoding="utf-8")
    taken_or_refused(path)
