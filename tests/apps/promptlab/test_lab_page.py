"""The page of app.py: in a browser, on a small object; and what keeps it from being served."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from helpers.browser import chromium
from helpers.lab import ROOT
from helpers.promptlab import asked

from apps.promptlab import page as lab_page
from apps.promptlab.open_lab import LabSpec
from apps.promptlab.session import LabSession
from runtime.errors import InputError

TEXT = b"this is a text, not a picture\n"


@pytest.fixture
def served(lab, tmp_path, monkeypatch):
    """The address of a page over one small object and its checkpoint, and the folder it may write to."""
    pytest.importorskip("gradio", reason="needs gradio: pip install -r requirements/dev.txt")
    lab.medical()
    lab.done("train_few")
    folder = tmp_path / "page"
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    page = lab_page.serve(LabSession(asked(lab), folder), "127.0.0.1", 0, wait=False)
    yield page.blocks.local_url, folder
    page.blocks.close()


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "app.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=120)


def test_without_gradio_one_line_says_how_to_install_it(tmp_path):
    (tmp_path / "gradio.py").write_text("raise ImportError('no', name='gradio')")
    done = run("--demo", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "error: the page needs gradio: pip install -r requirements/app.txt\n"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_when_it_ends_its_folder_goes(tmp_path, by):
    pytest.importorskip("gradio", reason="needs gradio: pip install -r requirements/dev.txt")
    flags = [sys.executable, str(ROOT / "app.py"), "--demo", "--data_path", str(tmp_path), "--port", "0"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(flags, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as process:
        said = process.stdout.readline()
        assert said.startswith("page: http://127.0.0.1:") and list(tmp_path.glob("lab-*"))
        process.send_signal(by)
        process.wait(60)
    assert not list(tmp_path.glob("lab-*"))


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"no page at 127.0.0.1:{port} .* choose another --port"):
            lab_page._free("127.0.0.1", port)


def test_by_default_only_this_machine_is_let_in():
    assert LabSpec().host == "127.0.0.1"


@pytest.mark.slow
def test_the_page_in_a_browser(served, tmp_path):
    url, folder = served
    said, asked = [], set()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1250})
        page.set_default_timeout(60_000)
        page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda fault: said.append(str(fault)))
        page.on("request", lambda request: asked.add(request.url.split("/")[2]) if "://" in request.url else None)
        page.goto(url)
        page.wait_for_selector("#table table", timeout=60_000)
        assert page.locator("#figures tr[data-set]").count() == 2
        page.wait_for_timeout(1000)
        assert page.locator("[role=alert]").count() == 0
        _an_edit_changes_scores(page)
        _a_faulty_edit_is_said(page)
        _a_set_is_saved(page, folder)
        _images_are_chosen(page)
        _an_image_is_judged(page, tmp_path, served)
    assert said == []
    assert asked == {url.split("/")[2]}, "nothing leaves this machine"


def _scores(page, name: str) -> str:
    return " ".join(page.locator(f"#table td[data-set={name}] .score").all_inner_texts())


def _changed(page, name: str, before: str) -> None:
    script = """([name, before]) => before !==
        [...document.querySelectorAll(`#table td[data-set=${name}] .score`)].map(one => one.innerText).join(" ")"""
    page.wait_for_function(script, arg=[name, before], timeout=60_000)


def _an_edit_changes_scores(page) -> None:
    """Typed, and taken away with one key, which is another way into Gradio."""
    page.locator("#order label", has_text="name").click()
    page.wait_for_timeout(1000)
    before = {name: _scores(page, name) for name in "AB"}
    box = page.locator("#A-normal-sentences textarea")
    box.focus()
    page.keyboard.press("Control+End")
    box.press_sequentially("\na quiet place")
    _changed(page, "A", before["A"])
    assert _scores(page, "B") == before["B"]
    page.wait_for_timeout(500)
    edited = _scores(page, "A")
    box.fill(box.input_value().removesuffix("\na quiet place"))
    _changed(page, "A", edited)
    page.wait_for_timeout(500)
    assert _scores(page, "A") == before["A"]


def _images_are_chosen(page) -> None:
    """By name, one taken away; then none is left."""
    count = page.locator("#table tbody tr").count()
    page.click("text=test images by name")
    page.wait_for_timeout(1000)  # the list opens
    page.locator("#images .token-remove").first.click()
    fewer = "count => document.querySelectorAll('#table tbody tr').length == count"
    page.wait_for_function(fewer, arg=count - 1, timeout=60_000)
    page.locator("#images .remove-all").click()
    page.wait_for_selector("#said [role=alert]")
    assert "no test images chosen" in page.inner_text("#said")


def _a_faulty_edit_is_said(page) -> None:
    """The P-Prompts alone have no states, so without a sentence nothing is left."""
    page.click("#B-llm")
    page.wait_for_function("document.querySelector('#figures tr[data-set=B]').innerText.includes('48 + 120')")
    page.locator("#B-normal-sentences textarea").fill("")
    page.wait_for_selector("#said [role=alert]")
    assert "set B: no normal sentences" in page.inner_text("#said")
    page.click("#copy")
    page.wait_for_selector("#said [role=alert]", state="detached")


def _a_set_is_saved(page, folder: Path) -> None:
    page.click("#save-A")
    page.wait_for_selector("#saved a")
    with page.expect_download() as download:
        page.click("#saved a")
    assert '"a flawless Brain"' in Path(download.value.path()).read_text()
    page.click("#show-diff")
    page.wait_for_selector("#diff .cm-content")


def _an_image_is_judged(page, tmp_path: Path, served) -> None:
    page.get_by_role("tab", name="One image").click()
    chooser = page.locator("#upload input[type=file]")
    chooser.set_input_files({"name": "text.png", "mimeType": "image/png", "buffer": TEXT})
    page.wait_for_selector("#verdict [role=alert]")
    message = page.inner_text("#verdict")
    assert message.startswith("text.png can't be read as an image") and str(served[1]) not in message
    page.click("#upload button[aria-label]")
    page.wait_for_selector("#verdict [role=alert]", state="detached")
    assert list(served[1].rglob("text.png")) and not list(ROOT.glob("*.png")), "uploads stay in the page's folder"
    image = next((tmp_path / "data" / "Brain_AD" / "test" / "Ungood" / "img").iterdir())
    page.locator("#upload input[type=file]").set_input_files(image)
    page.wait_for_selector("#verdict .judged")
    assert "abnormal from" in page.inner_text("#verdict") and page.locator("#verdict .judged figure > img").count() == 3


def test_a_page_of_another_name_gets_nothing(served):
    url, _ = served
    for headers, code in (({}, 200), ({"Host": "evil.example"}, 403), ({"Origin": "http://evil.example"}, 403)):
        assert _code(f"{url}config", headers) == code
    assert _code(f"{url}gradio_api/upload", {"Host": "evil.example"}, b"x") == 403


def _code(address: str, headers: dict, content: bytes | None = None) -> int:
    """The status of an answer."""
    try:
        with urlopen(Request(address, content, headers), timeout=30) as answer:
            return answer.status
    except HTTPError as fault:
        return fault.code
