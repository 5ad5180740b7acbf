"""Sets of prompts as the lab edits them: what comes out of the boxes, and the diff for prompt.py."""

import runpy
import shutil
import subprocess

import pytest

import prompt
from apps.promptlab.prompt_set import LONGEST, MOST_SENTENCES, SOURCE, PromptSet, diff
from runtime.errors import InputError


@pytest.mark.parametrize("prompts", ["base", "llm", "all"])
@pytest.mark.parametrize("obj", ["Brain", "my_widget"])
def test_unedited_they_are_the_sentences_of_a_run(obj, prompts):
    name = prompt.class_name(obj)
    assert PromptSet.of(obj, prompts).sentences(name) == prompt.sentences(obj, prompts)


def test_a_json_file_is_taken_as_it_is(tmp_path):
    prompt.write_json(tmp_path / "words.json", ["a good {classname}"], ["a bad {classname}", "x"])
    assert PromptSet.of("Brain", tmp_path / "words.json", "tile").sentences("tile") == (
        ["a good tile"],
        ["a bad tile", "x"],
    )


def test_texts_are_read_back():
    start = PromptSet.of("Liver")
    assert PromptSet.typed(*start.texts()) == start


def test_lines_are_stripped_and_empty_ones_count_for_nothing():
    typed = PromptSet.typed("  a {classname} \n\n a  b\n", "x", "", "", "")
    assert typed.normal == ("a {classname}", "a  b")
    assert typed.sentences("tile") == (["a tile", "a  b"], ["x"])


def test_states_go_into_templates_before_typed_sentences_and_repeats_go():
    typed = PromptSet.typed("a photo of a tile.\nnew", "bad", "{}\nwhole {}", "", "a photo of a {}.")
    assert typed.sentences("tile")[0] == ["a photo of a tile.", "a photo of a whole tile.", "new"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("a", "b", "", "", "a photo"), "templates, line 1: no {} in 'a photo'"),
        (("a", "b", "{}\nbroken", "", ""), "normal states, line 2: no {}"),
        (("a" * (LONGEST + 1), "b", "", "", ""), "normal, line 1: 1001 characters"),
    ],
)
def test_faulty_lines_are_named(texts, message):
    with pytest.raises(InputError, match=message.replace("{", r"\{")):
        PromptSet.typed(*texts)


def test_a_label_without_sentences_is_named():
    with pytest.raises(InputError, match="no abnormal sentences"):
        PromptSet.typed("a", "", "", "{} with flaw", "").sentences("tile")


def test_too_many_sentences_are_refused_before_they_are_made():
    side = int(MOST_SENTENCES**0.5) + 1
    typed = PromptSet.typed("a", "b", "\n".join(f"{n} {{}}" for n in range(side)), "", "{}\n" * side)
    with pytest.raises(InputError, match="more than 5000"):
        typed.sentences("tile")


@pytest.mark.skipif(shutil.which("patch") is None, reason="no patch program")
def test_the_diff_is_a_patch_of_prompt_py(tmp_path):
    start = PromptSet.of("Brain")
    states, templates = (*start.normal_states, 'a "quoted" {}'), start.templates[1:]
    edited = PromptSet(start.normal, start.abnormal, states, start.abnormal_states, templates)
    shutil.copy(SOURCE, tmp_path / "prompt.py")
    subprocess.run(["patch", "-p1"], input=diff(start, edited, "Brain"), text=True, cwd=tmp_path, check=True)
    patched = runpy.run_path(str(tmp_path / "prompt.py"))
    assert patched["NORMAL_STATES"] == list(states) and patched["TEMPLATES"] == list(templates)
    assert patched["ABNORMAL_STATES"] == prompt.ABNORMAL_STATES and patched["P_PROMPTS"] == prompt.P_PROMPTS


def test_the_diff_lists_sentences_by_label():
    start = PromptSet.of("Brain")
    edited = PromptSet(start.normal[1:], (*start.abnormal, "new"), *[()] * 3)
    lines = diff(start, edited, "Brain").splitlines()
    assert f"-{start.normal[0]}" in lines and "+new" in lines and "--- a/Brain, normal sentences" in lines
    assert not any("prompt.py" in line for line in lines), "states left out are --prompts llm, no edit of prompt.py"


def test_no_edit_no_diff():
    assert diff(PromptSet.of("Brain"), PromptSet.of("Brain"), "Brain") == ""


@pytest.mark.parametrize("sign", ["\x00", "\x07", "\x7f", "\ud800"])
def test_what_is_no_text_is_named(sign):
    with pytest.raises(InputError, match=r"abnormal, line 2: the sign .* is no text"):
        PromptSet.typed("fine", f"fine\nb{sign}d", "", "", "")
