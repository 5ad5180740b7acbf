import hashlib
import json
import re
from pathlib import Path

import pytest

import prompt
from CLIP.tokenizer import Tokenizer
from runtime.errors import InputError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "prompt_ensemble.json").read_text(encoding="utf-8"))

MEDICAL = [
    "Brain",
    "Liver",
    "Retina_RESC",
    "Retina_OCT2017",
    "Chest",
    "Histopathology",
    "Skin_HAM10000",
    "Skin_ISIC2019",
]
INDUSTRIAL = """
    mvtec/bottle mvtec/cable mvtec/capsule mvtec/carpet mvtec/grid mvtec/hazelnut mvtec/leather
    mvtec/metal_nut mvtec/pill mvtec/screw mvtec/tile mvtec/toothbrush mvtec/transistor mvtec/wood
    mvtec/zipper
    mpdd/bracket_black mpdd/bracket_brown mpdd/bracket_white mpdd/connector mpdd/metal_plate mpdd/tubes
    btad/01 btad/02 btad/03
    visa/candle visa/capsules visa/cashew visa/chewinggum visa/fryum visa/macaroni1 visa/macaroni2
    visa/pcb1 visa/pcb2 visa/pcb3 visa/pcb4 visa/pipe_fryum
"""
OBJECTS = [*MEDICAL, "Solar", *INDUSTRIAL.split()]
OWN = "my_widget"


def all_digests() -> dict[str, str]:
    return {obj: prompt.digest(*prompt.sentences(obj)) for obj in [*OBJECTS, OWN]}


def both(obj: str, prompts: str = "llm") -> list[str]:
    """Normal and abnormal sentences in one list."""
    normal, abnormal = prompt.sentences(obj, prompts)
    return normal + abnormal


# Base ensemble


def test_lists_are_the_published_ones():
    assert GOLDEN["normal_states"] == prompt.NORMAL_STATES
    assert GOLDEN["abnormal_states"] == prompt.ABNORMAL_STATES
    assert GOLDEN["templates"] == prompt.TEMPLATES


@pytest.mark.parametrize("name", ["Brain", "retinal OCT", "Chest X-ray film"])
def test_base_is_every_state_in_every_template(name):
    normal, abnormal = prompt.sentences(name, "base")
    for got, states, count in ((normal, "normal_states", 245), (abnormal, "abnormal_states", 175)):
        expected = [
            template.replace("{}", state.replace("{}", name))
            for state in GOLDEN[states]
            for template in GOLDEN["templates"]
        ]
        assert got == expected
        assert len(got) == count


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        ("Brain", "Brain"),
        ("Liver", "Liver"),
        ("Retina_RESC", "retinal OCT"),
        ("Retina_OCT2017", "retinal OCT"),
        ("Chest", "Chest X-ray film"),
        ("Histopathology", "histopathological image"),
        ("Skin_HAM10000", "skin lesion"),
        ("mvtec/metal_nut", "metal nut"),
        ("mvtec/bottle", "bottle"),
        ("visa/pcb3", "pcb"),
        ("visa/pipe_fryum", "pipe fryum"),
        ("my_widget", "my widget"),
        ("own/solar-cell_front", "solar-cell front"),
    ],
)
def test_words_for_an_object(obj, words):
    assert prompt.class_name(obj) == words
    assert f"a photo of a {words}." in prompt.sentences(obj, "base")[0]


def test_no_object_is_called_by_a_number():
    assert not [obj for obj in OBJECTS if re.search(r"\d", prompt.class_name(obj))]


def test_classname_replaces_the_words():
    normal, _ = prompt.sentences("Brain", "base", classname="head scan")
    assert "a photo of a flawless head scan." in normal
    assert not [text for text in normal if "Brain" in text]


# P-Prompts


def test_every_object_has_a_block():
    assert sorted(prompt.P_PROMPTS) == sorted(OBJECTS)


@pytest.mark.parametrize("obj", [*OBJECTS, OWN])
def test_counts_without_repeats(obj):
    normal, abnormal = prompt.sentences(obj, "llm")
    assert len(normal) >= 40
    assert len(abnormal) >= 80
    assert len({text.lower() for text in normal + abnormal}) == len(normal) + len(abnormal)


def test_all_is_base_then_llm():
    base, llm, combined = (prompt.sentences("Brain", choice) for choice in ("base", "llm", "all"))
    assert combined == (base[0] + llm[0], base[1] + llm[1])
    assert prompt.sentences("Brain") == combined


def test_order_is_stable():
    assert prompt.sentences("mvtec/carpet") == prompt.sentences("mvtec/carpet")


def test_objects_do_not_share_their_p_prompts():
    assert len({prompt.digest(*prompt.sentences(obj, "llm")) for obj in OBJECTS}) == len(OBJECTS)


def test_sentences_fit_the_text_tower():
    encode = Tokenizer().encode
    longest = 0
    for obj in [*OBJECTS, OWN]:
        for text in both(obj, "all"):
            longest = max(longest, len(encode(text)) + 2)  # start and end
    assert longest <= 40  # of 77; short sentences are what CLIP was trained on


@pytest.mark.parametrize("obj", [*OBJECTS, OWN])
def test_sentences_are_well_formed(obj):
    for text in both(obj):
        assert text == " ".join(text.split()), text
        assert text.endswith(".") and not re.search(r"[{}]| [.,:;]|[.,:;]{2}", text), text
        for article, word in re.findall(r"\b(an?) (\S+)", text):
            vowel = re.match(r"[aeioAEIO]|u(?!ni|se)|H&E|MR", word) is not None and not word.startswith("one")
            assert article == ("an" if vowel else "a"), text


def test_no_answer_leaks():
    of_the_task = r"masks?|anomal\w*|ground truth|heat ?maps?|maps?|label\w*|annotat\w*|pixels?|segment\w*"
    of_datasets = (
        r"test set|dataset|benchmark|brats\w*|lits|btcv|resc|oct2017|rsna|camelyon\w*|ham10000|isic\w*|elpv|"
        r"mvtec|mpdd|btad|visa"
    )
    leaks = re.compile(rf"\b({of_the_task}|{of_datasets})\b|\.(png|jpe?g|bmp|tif)|_|\d{{2}}", re.IGNORECASE)
    found = [text for obj in OBJECTS for text in both(obj) if leaks.search(text)]
    assert not found


@pytest.mark.parametrize("obj", ["Skin_HAM10000", "Skin_ISIC2019"])
def test_skin_sets_melanoma_against_naevus(obj):
    normal, abnormal = prompt.sentences(obj, "llm")
    benign, malignant = re.compile("naevus|mole"), re.compile("melanoma|malignant")
    assert all(benign.search(text) and not malignant.search(text) for text in normal)
    assert all(malignant.search(text) and not benign.search(text) for text in abnormal)


def test_findings_meet_every_place_and_adjectives_and_phrasings_vary():
    block, abnormal = prompt.P_PROMPTS["Brain"], prompt.sentences("Brain", "llm")[1]
    for finding in block["findings"]:
        tail = finding.removeprefix("a {} ")
        for place in block["places"]:
            assert len([text for text in abnormal if tail in text and place in text]) == 1
    starts = {
        (text.split()[1], word) for text in abnormal for word in prompt.VOICES["report"]["severity"] if word in text
    }
    assert len(starts) > 15


def test_unknown_object_speaks_of_its_words():
    normal, abnormal = prompt.sentences(OWN, "llm")
    assert all("my widget" in text for text in normal + abnormal)
    assert prompt.sentences(OWN, "llm", classname="brass gear")[0][0].count("brass gear") == 1


# Edits


@pytest.mark.parametrize("key", ["views", "normal", "findings", "places", "overall"])
def test_an_edit_changes_that_object_only(monkeypatch, key):
    before = all_digests()
    monkeypatch.setitem(prompt.P_PROMPTS["Brain"], key, [*prompt.P_PROMPTS["Brain"][key], "quokka {}"])
    after = all_digests()
    assert [obj for obj in before if before[obj] != after[obj]] == ["Brain"]
    assert [text for text in both("Brain") if "quokka" in text]


def test_an_added_finding_leaves_the_others(monkeypatch):
    before = prompt.sentences("Brain", "llm")
    block = prompt.P_PROMPTS["Brain"]
    monkeypatch.setitem(block, "findings", [*block["findings"], "a {} abscess"])
    normal, abnormal = prompt.sentences("Brain", "llm")
    assert normal == before[0]
    assert [text for text in abnormal if "abscess" not in text] == before[1]
    assert len(abnormal) == len(before[1]) + len(block["places"])


def test_an_edit_of_a_state_changes_the_ensemble_only(monkeypatch):
    base, llm = prompt.sentences("Brain", "base"), prompt.sentences("Brain", "llm")
    monkeypatch.setattr(prompt, "ABNORMAL_STATES", [*prompt.ABNORMAL_STATES, "diseased {}"])
    changed = prompt.sentences("Brain", "base")
    assert changed[0] == base[0]
    assert changed[1][: len(base[1])] == base[1]
    assert "a photo of a diseased Brain." in changed[1]
    assert prompt.sentences("Brain", "llm") == llm


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("finding", ["a {} mass"], "does not know 'finding'"),
        ("findings", "a {} mass", "'findings' must be a list"),
        ("views", [], "'views' is empty"),
        ("voice", "poetry", "choose report"),
    ],
)
def test_a_slip_in_a_block_is_named(monkeypatch, key, value, says):
    monkeypatch.setitem(prompt.P_PROMPTS["Brain"], key, value)
    with pytest.raises(InputError, match=f"prompt.py: .*Brain.*{says}") as fault:
        prompt.sentences("Brain")
    assert "\n" not in str(fault.value)
    prompt.sentences("Liver")


def test_a_missing_or_emptied_list_is_named(monkeypatch):
    with monkeypatch.context() as patch:
        patch.delitem(prompt.P_PROMPTS["Brain"], "places")
        with pytest.raises(InputError, match="Brain has no 'places'"):
            prompt.sentences("Brain")
    monkeypatch.setitem(prompt.P_PROMPTS["Brain"], "normal", [])
    with pytest.raises(InputError, match="no normal sentences for Brain"):
        prompt.sentences("Brain", "llm")


# Choice and files


@pytest.mark.parametrize("choice", ["", "LLM", "gpt", "prompts.txt"])
def test_unknown_choice(choice):
    with pytest.raises(InputError, match="choose base, llm, all"):
        prompt.sentences("Brain", choice)


@pytest.mark.parametrize("obj", ["", "/", "_"])
def test_no_words(obj):
    with pytest.raises(InputError, match="--classname"):
        prompt.sentences(obj)


def test_json_round_trip(tmp_path):
    path = tmp_path / "new" / "brain.json"
    expected = prompt.sentences("Brain")
    prompt.write_json(path, *expected)
    assert prompt.sentences("Brain", path) == prompt.sentences("Brain", str(path)) == expected
    assert [file.name for file in path.parent.iterdir()] == ["brain.json"]
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["normal", "abnormal"]


def test_json_place_holder_and_other_braces(tmp_path):
    path = tmp_path / "Prompts.JSON"
    normal = ["a {classname} of {size}", "{} naïve café", "a {classname} of {size}", "  padded "]
    prompt.write_json(path, normal, ["{classname} and {classname}, {0"])
    assert prompt.sentences("Chest", path) == (
        ["a Chest X-ray film of {size}", "{} naïve café", "padded"],
        ["Chest X-ray film and Chest X-ray film, {0"],
    )
    assert prompt.sentences("Chest", path, classname="film")[0][0] == "a film of {size}"


def test_json_with_byte_order_mark_and_further_keys(tmp_path):
    path = tmp_path / "p.json"
    text = '{"about": 1, "normal": {"prompts": ["good"], "n": 1}, "abnormal": {"prompts": ["bad"]}}'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert prompt.read_json(path, "x") == (["good"], ["bad"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{'normal': 1}", "not JSON"),
        (b"\xff\xfe\x00", "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", 'no list of prompts under "normal"'),
        (b'{"normal": ["a"], "abnormal": ["b"]}', 'no list of prompts under "normal"'),
        (b'{"normal": {"prompts": ["a"]}}', 'no list of prompts under "abnormal"'),
        (
            b'{"normal": {"prompts": "a"}, "abnormal": {"prompts": ["b"]}}',
            'no list of prompts under "normal"',
        ),
        (
            b'{"normal": {"prompts": ["a"]}, "abnormal": {"prompts": []}}',
            'empty list of prompts under "abnormal"',
        ),
        (b'{"normal": {"prompts": ["a", 3]}, "abnormal": {"prompts": ["b"]}}', 'prompt 2 of "normal"'),
        (b'{"normal": {"prompts": ["a"]}, "abnormal": {"prompts": [" \\n"]}}', 'prompt 1 of "abnormal"'),
    ],
)
def test_faulty_json_is_one_clear_line(tmp_path, content, says):
    path = tmp_path / "faulty.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as fault:
        prompt.sentences("Brain", path)
    assert says in str(fault.value)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "folder.json").mkdir()
    for name in ("missing.json", "folder.json"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            prompt.sentences("Brain", tmp_path / name)


def test_digest():
    assert prompt.digest(["a"], ["b"]) == hashlib.sha256(b'[["a"], ["b"]]').hexdigest()
    different = [(["a", "b"], []), (["b", "a"], []), (["a"], ["b"]), (["ab"], []), (["a"], ["B"])]
    assert len({prompt.digest(*lists) for lists in different}) == len(different)
