"""What the events of the lab's page answer: pieces of HTML, files, and clear words for what can't be."""

import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.promptlab import asked
from PIL import Image

import prompt
from apps.promptlab import session as lab_session
from apps.promptlab.session import NONE, LabSession
from dataset.images import image_size
from runtime.errors import InputError

FILE = "Brain_1-shot.pth"


@pytest.fixture
def session(lab, tmp_path) -> LabSession:
    """A session over one object and its checkpoint."""
    lab.medical()
    lab.done("train_few")
    return LabSession(asked(lab), tmp_path / "page")


def start(session: LabSession) -> tuple[str, ...]:
    return session.start(session.lab("Brain", FILE))


def scores(html: str, name: str) -> list[str]:
    return re.findall(rf'data-set="{name}">.*?class="score">([^<]+)<', html, flags=re.DOTALL)


def upload(session: LabSession, content: bytes, name: str = "picture.png") -> str:
    path = session.folder / "gradio" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def claimed(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    parts = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_an_edit_changes_its_own_set_alone(session):
    names = session.chosen(session.lab("Brain", FILE), 2)
    before = session.answer("Brain", FILE, names, "name", start(session) * 2)
    edited = (start(session)[0] + "\na quiet {classname}", *start(session)[1:])
    after = session.answer("Brain", FILE, names, "name", start(session) + edited)
    assert len(scores(before.images, "A")) == len(names) == 4
    assert scores(before.images, "A") == scores(before.images, "B") == scores(after.images, "A")
    assert scores(after.images, "B") != scores(after.images, "A")
    assert "3 + 2" in after.figures and "image AUROC" in after.figures


def test_fewer_images_than_asked_for_are_said(session):
    lab = session.lab("Brain", FILE)
    there = {label: sum(sample.label == label for sample in lab.test) for label in (0, 1)}
    each = max(there.values()) + 3
    names = session.chosen(lab, each)
    message = session.answer("Brain", FILE, names, "name", start(session) * 2, each).message
    assert f"asked for {each} of either label; there are {there[0]} normal and {there[1]} abnormal" in message
    assert session.fewer(lab, names[:2], each) == []  # chosen by name
    assert session.fewer(lab, session.chosen(lab, 1), 1) == []


def test_an_upload_before_the_sets_are_there_is_judged_by_their_start(session, lab):
    image = next((lab.data / "Brain_AD" / "test" / "Ungood" / "img").iterdir())
    path = upload(session, image.read_bytes())
    for side, prompts in (("A", None), ("B", "base")):
        texts = session.start(session.lab("Brain", FILE), prompts)
        assert session.judged("Brain", FILE, path, None, side) == session.judged("Brain", FILE, path, texts)
    assert session.judged("Brain", FILE, path, None, "A") != session.judged("Brain", FILE, path, None, "B")


@pytest.mark.parametrize("order", ["score of A", "A less B"])
def test_rows_are_in_the_order_asked_for(session, order):
    names = session.chosen(session.lab("Brain", FILE), 4)
    other = ("good\nfine", "bad", "", "", "")
    html = session.answer("Brain", FILE, names, order, start(session) + other).images
    a, b = ([float(score) for score in scores(html, name)] for name in "AB")
    shown = a if order == "score of A" else [round(abs(x - y), 3) for x, y in zip(a, b, strict=True)]
    assert shown == sorted(shown, reverse=True) and len(set(shown)) > 1


def test_words_are_shown_and_never_run(session):
    nasty = "<img src=x onerror=alert(1)> ${alert(2)} {{ 7 * 7 }}"
    names, texts = session.chosen(session.lab("Brain", FILE), 1), (nasty + "\nfine", "bad\nworse", "", "", "")
    html = session.answer("Brain", FILE, names, "name", texts * 2).images
    assert "&lt;img src=x onerror=alert(1)&gt; ${alert(2)} {{ 7 * 7 }}" in html and "<img src=x" not in html


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("", "bad", "", "", ""), "set A: no normal sentences"),
        (("good", "bad", "a state", "", ""), "set A: normal states, line 1"),
    ],
)
def test_faulty_sets_are_named(session, texts, message):
    with pytest.raises(InputError, match=message):
        session.answer("Brain", FILE, session.chosen(session.lab("Brain", FILE), 1), "name", texts + start(session))


def test_no_images_no_answer(session):
    with pytest.raises(InputError, match="choose at least one"):
        session.answer("Brain", FILE, ["../../etc/passwd"], "name", start(session) * 2)


@pytest.mark.parametrize(("obj", "name"), [("Liver", NONE), ("Brain", "../ckpt/Brain_1-shot.pth"), ("/etc", NONE)])
def test_only_what_is_offered_is_opened(session, obj, name):
    with pytest.raises(InputError, match=r"not one of the objects|no checkpoint"):
        session.lab(obj, name)


def test_a_lab_is_opened_once(session):
    assert session.lab("Brain", FILE) is session.lab("Brain", FILE) is not session.lab("Brain", NONE)


def test_a_saved_set_is_what_prompts_reads(session):
    path = session.saved("Brain", FILE, ("a good {classname}", "a bad one", "", "", ""), "A")
    assert path.is_relative_to(session.folder)
    assert prompt.read_json(path, "Brain") == (["a good Brain"], ["a bad one"])


def test_the_diff_names_the_edit(session):
    texts = session.start(session.lab("Brain", FILE), "all")
    assert "no edit" in session.diff("Brain", FILE, texts)
    edited = session.diff("Brain", FILE, (*texts[:2], texts[2] + "\nnew {}", *texts[3:]))
    assert '+    "new {}",' in edited and "+++ b/prompt.py" in edited


def test_an_upload_is_judged(session, lab):
    image = next((lab.data / "Brain_AD" / "test" / "Ungood" / "img").iterdir())
    html = session.judged("Brain", FILE, upload(session, image.read_bytes()), start(session))
    assert re.search(r'class="chip (ab)?normal"', html) and "abnormal from" in html
    assert html.count("data:image/jpeg") == 4, "input, overlay, map and the colours' scale"
    bare = session.judged("Brain", NONE, upload(session, image.read_bytes()), start(session))
    assert "no threshold: no checkpoint" in bare and 'class="chip' not in bare and "resembles" not in bare


def test_regions_of_an_abnormal_upload_are_told(session, lab):
    image = next((lab.data / "Brain_AD" / "test" / "Ungood" / "img").iterdir())
    own = session.lab("Brain", FILE)
    known, names = own.own[1], ("zero", "few", "fused")
    low, high, pixel = (dict.fromkeys(names, value) for value in (-9.0, 9.0, 0.3))
    own.own = (own.own[0], replace(known, image=low, pixel=pixel))
    html = session.judged("Brain", FILE, upload(session, image.read_bytes()), start(session))
    assert "% of the score" in html and "resembles: " in html and "no diagnosis" in html
    assert any(finding in html for finding in prompt.findings("Brain"))
    result = own.judge(image, own.start)
    width, height = image_size(image)
    assert all(one.box[2] <= width and one.box[3] <= height for one in result.findings)
    assert sum(one.share for one in result.findings) == pytest.approx(1)
    own.own = (own.own[0], replace(known, image=high, pixel=pixel))
    html = session.judged("Brain", FILE, upload(session, image.read_bytes()), start(session))
    assert "normal" in html and "% of the score" not in html


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "picture.png can't be read as an image"),
        (b"", "picture.png can't be read as an image"),
        (claimed(20_000, 20_000), "picture.png (can't be read as an image|has 20000x20000 pixels)"),
        (claimed(9_000, 9_000), "picture.png has 9000x9000 pixels; at most 50 million"),
        (b"0" * 40_000_000, "picture.png has 38.1 MB; at most 32 MB"),
    ],
)
def test_faulty_uploads_are_refused_in_clear_words(session, content, message):
    path = upload(session, content)
    with pytest.raises(InputError, match=f"^{message}") as caught:
        session.judged("Brain", FILE, path, start(session))
    assert str(session.folder) not in str(caught.value)


def test_an_upload_is_never_opened_whole_when_it_is_too_large(session, monkeypatch):
    monkeypatch.setattr(lab_session, "MOST_PIXELS", 99)
    texts, path = start(session), session.folder / "ten.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (10, 10)).save(path)
    monkeypatch.setattr("dataset.images._decoded", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match="10x10 pixels"):
        session.judged("Brain", FILE, str(path), texts)


def test_files_elsewhere_are_no_uploads(session, lab):
    image = next((lab.data / "Brain_AD" / "test" / "good" / "img").iterdir())
    inside = session.folder / "link.png"
    inside.parent.mkdir(exist_ok=True)
    inside.symlink_to(image)
    for path in (image, inside, Path("/etc/passwd"), session.folder / ".." / image.name):
        with pytest.raises(InputError, match="not uploaded here"):
            session.judged("Brain", FILE, str(path), start(session))


def test_nothing_uploaded_nothing_said(session):
    assert session.judged("Brain", FILE, None, start(session)) == ""


def test_sets_of_two_visitors_are_two_files(session):
    paths = [session.saved("Brain", FILE, (text, "bad", "", "", ""), "A") for text in ("one", "other")]
    assert [prompt.read_json(path, "Brain")[0] for path in paths] == [["one"], ["other"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--obj", "Brian"), "unknown object Brian"),
        (("--obj", "Chest"), "no folder .*Chest_AD"),
        (("--data_path", "nowhere"), "nowhere"),
        (("--ckpt", "none.pth"), "no checkpoint none.pth"),
        (("--device", "tpu"), "--device tpu"),
    ],
)
def test_what_nothing_can_be_shown_of_does_not_start(lab, tmp_path, flags, message):
    lab.medical()
    LabSession(asked(lab), tmp_path).check()
    with pytest.raises(InputError, match=message):
        LabSession(asked(lab, *flags), tmp_path).check()
