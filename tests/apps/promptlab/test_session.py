"""What the events of the lab's page answer: pieces of HTML, files, and clear words for what can't be."""

import re
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from test_promptlab import arguments

import prompt
from apps.promptlab import session as desk_module
from apps.promptlab.session import NONE, LabSession
from runtime.errors import InputError

FILE = "Brain_1-shot.pth"


@pytest.fixture
def desk(lab, tmp_path) -> LabSession:
    """A desk over one object and its checkpoint."""
    lab.medical()
    lab.done("train_few")
    return LabSession(arguments(lab), tmp_path / "page")


def start(desk: LabSession) -> tuple[str, ...]:
    return desk.start(desk.lab("Brain", FILE))


def scores(html: str, name: str) -> list[str]:
    return re.findall(rf'data-set="{name}">.*?class="score">([^<]+)<', html, flags=re.DOTALL)


def upload(desk: LabSession, content: bytes, name: str = "picture.png") -> str:
    path = desk.folder / "gradio" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def claimed(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    parts = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_an_edit_changes_its_own_set_alone(desk):
    names = desk.chosen(desk.lab("Brain", FILE), 2)
    before = desk.answer("Brain", FILE, names, "name", start(desk) * 2)
    edited = (start(desk)[0] + "\na quiet {classname}", *start(desk)[1:])
    after = desk.answer("Brain", FILE, names, "name", start(desk) + edited)
    assert len(scores(before.images, "A")) == len(names) == 4
    assert scores(before.images, "A") == scores(before.images, "B") == scores(after.images, "A")
    assert scores(after.images, "B") != scores(after.images, "A")
    assert "3 + 2" in after.figures and "image AUROC" in after.figures


@pytest.mark.parametrize("order", ["score of A", "A less B"])
def test_rows_are_in_the_order_asked_for(desk, order):
    names = desk.chosen(desk.lab("Brain", FILE), 4)
    other = ("good\nfine", "bad", "", "", "")
    html = desk.answer("Brain", FILE, names, order, start(desk) + other).images
    a, b = ([float(score) for score in scores(html, name)] for name in "AB")
    shown = a if order == "score of A" else [round(abs(x - y), 3) for x, y in zip(a, b, strict=True)]
    assert shown == sorted(shown, reverse=True) and len(set(shown)) > 1


def test_words_are_shown_and_never_run(desk):
    nasty = "<img src=x onerror=alert(1)> ${alert(2)} {{ 7 * 7 }}"
    names, texts = desk.chosen(desk.lab("Brain", FILE), 1), (nasty + "\nfine", "bad\nworse", "", "", "")
    html = desk.answer("Brain", FILE, names, "name", texts * 2).images
    assert "&lt;img src=x onerror=alert(1)&gt; ${alert(2)} {{ 7 * 7 }}" in html and "<img src=x" not in html


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("", "bad", "", "", ""), "set A: no normal sentences"),
        (("good", "bad", "a state", "", ""), "set A: normal states, line 1"),
    ],
)
def test_faulty_sets_are_named(desk, texts, message):
    with pytest.raises(InputError, match=message):
        desk.answer("Brain", FILE, desk.chosen(desk.lab("Brain", FILE), 1), "name", texts + start(desk))


def test_no_images_no_answer(desk):
    with pytest.raises(InputError, match="choose at least one"):
        desk.answer("Brain", FILE, ["../../etc/passwd"], "name", start(desk) * 2)


@pytest.mark.parametrize(("obj", "name"), [("Liver", NONE), ("Brain", "../ckpt/Brain_1-shot.pth"), ("/etc", NONE)])
def test_only_what_is_offered_is_opened(desk, obj, name):
    with pytest.raises(InputError, match=r"not one of the objects|no checkpoint"):
        desk.lab(obj, name)


def test_a_lab_is_opened_once(desk):
    assert desk.lab("Brain", FILE) is desk.lab("Brain", FILE) is not desk.lab("Brain", NONE)


def test_a_saved_set_is_what_prompts_reads(desk):
    path = desk.saved("Brain", FILE, ("a good {classname}", "a bad one", "", "", ""), "A")
    assert path.is_relative_to(desk.folder)
    assert prompt.read_json(path, "Brain") == (["a good Brain"], ["a bad one"])


def test_the_diff_names_the_edit(desk):
    texts = desk.start(desk.lab("Brain", FILE), "all")
    assert "no edit" in desk.diff("Brain", FILE, texts)
    edited = desk.diff("Brain", FILE, (*texts[:2], texts[2] + "\nnew {}", *texts[3:]))
    assert '+    "new {}",' in edited and "+++ b/prompt.py" in edited


def test_an_upload_is_judged(desk, lab):
    image = next((lab.data / "Brain_AD" / "test" / "Ungood" / "img").iterdir())
    html = desk.judged("Brain", FILE, upload(desk, image.read_bytes()), start(desk))
    assert re.search(r'class="chip (ab)?normal"', html) and "abnormal from" in html
    assert html.count("data:image/jpeg") == 4, "input, overlay, map and the colours' scale"
    bare = desk.judged("Brain", NONE, upload(desk, image.read_bytes()), start(desk))
    assert "no threshold: no checkpoint" in bare and 'class="chip' not in bare


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
def test_faulty_uploads_are_refused_in_clear_words(desk, content, message):
    path = upload(desk, content)
    with pytest.raises(InputError, match=f"^{message}") as caught:
        desk.judged("Brain", FILE, path, start(desk))
    assert str(desk.folder) not in str(caught.value)


def test_an_upload_is_never_opened_whole_when_it_is_too_large(desk, monkeypatch):
    monkeypatch.setattr(desk_module, "MOST_PIXELS", 99)
    texts, path = start(desk), desk.folder / "ten.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (10, 10)).save(path)
    monkeypatch.setattr("dataset.images._decoded", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match="10x10 pixels"):
        desk.judged("Brain", FILE, str(path), texts)


def test_files_elsewhere_are_no_uploads(desk, lab):
    image = next((lab.data / "Brain_AD" / "test" / "good" / "img").iterdir())
    inside = desk.folder / "link.png"
    inside.parent.mkdir(exist_ok=True)
    inside.symlink_to(image)
    for path in (image, inside, Path("/etc/passwd"), desk.folder / ".." / image.name):
        with pytest.raises(InputError, match="not uploaded here"):
            desk.judged("Brain", FILE, str(path), start(desk))


def test_nothing_uploaded_nothing_said(desk):
    assert desk.judged("Brain", FILE, None, start(desk)) == ""
