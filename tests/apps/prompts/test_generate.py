import email.utils
import json
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.chat_server import Reply, drips, raw, says, serving

import prompt
from apps.prompts import chat, command
from runtime.errors import InputError

KEY = "sk-very-secret-0123456789"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    """Every run has a key, waits for nothing, and is followed by the rule: the key is in no output."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(chat, "PAUSE", 0.05)


def lists(normal: int = 4, abnormal: int = 6) -> tuple[list[str], list[str]]:
    """Sentences as a model might write them."""
    signs = ["symmetric hemispheres", "clear sulci", "a straight midline", "even white matter", "a thin cortex"]
    findings = ["a small tumour", "a large cyst", "faint oedema"]
    places = ["in the left lobe", "in the right lobe", "near the midline"]
    return (
        [f"a {{classname}} slice with {sign}." for sign in signs][:normal],
        [f"a {{classname}} slice showing {finding} {place}." for place in places for finding in findings][:abnormal],
    )


def content(normal: list[str] | None = None, abnormal: list[str] | None = None) -> str:
    """A model's answer; a list that is not given is a good one."""
    good = lists()
    return prompt.to_json(good[0] if normal is None else normal, good[1] if abnormal is None else abnormal)


def generate(api: str, *flags: object) -> int:
    """Run the command with few sentences asked for."""
    common = ["--obj", "Brain", "--modality", "brain MRI", "--model", "tiny", "--normal", 4, "--abnormal", 6]
    return command.run(["generate", "--api", api, *map(str, [*common, *flags])])


def refused(capsys, reply: Reply, *says_so: str, flags: tuple = (), folder: Path) -> str:
    """The run ends with 2 and one line with these words; no file, no key and no control character came out."""
    with serving(reply) as server:
        assert generate(server.api, "--output", folder / "p.json", *flags) == 2
    out, err = capsys.readouterr()
    line = err.split("\r")[-1].strip()
    assert line.startswith("error: ") and "\n" not in line, err
    assert all(words in line for words in says_so), line
    assert len(line) < 600
    assert KEY not in out + err and "\x1b[31m" not in out + err
    assert not list(folder.iterdir())
    return out


# What goes well


def test_an_answer_becomes_a_prompt_file(capsys, tmp_path):
    path = tmp_path / "brain.json"
    with serving(says(content())) as server:
        assert generate(server.api, "--output", path) == 0
    assert prompt.written(path) == lists()
    assert prompt.sentences("Brain", path)[0][0] == "a Brain slice with symmetric hemispheres."
    out, err = capsys.readouterr()
    assert "--- prompt.py, Brain\n" in out and '+      "a {classname} slice with clear sulci.",' in out
    assert any(line.startswith("-") and "MRI slice" in line for line in out.splitlines())
    assert "4 normal + 6 abnormal" in out and not err and KEY not in out
    assert [file.name for file in tmp_path.iterdir()] == ["brain.json"]


def test_what_the_model_is_told():
    with serving(says(content())) as server:
        assert generate(server.api + "/") == 0
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["headers"]["Authorization"] == f"Bearer {KEY}"
    body = json.loads(asked["body"])
    system, user = body["messages"]
    assert body["model"] == "tiny" and (system["role"], user["role"]) == ("system", "user")
    assert "a radiologist" in system["content"]
    assert "brain MRI" in user["content"] and "finding x severity x location" in user["content"]
    assert '{"normal": {"prompts": [' in user["content"] and "{classname}" in user["content"]
    assert "4 captions of NORMAL" in user["content"] and "6 captions of ABNORMAL" in user["content"]


@pytest.mark.parametrize(
    ("modality", "role"),
    [
        ("H&E-stained tissue", "a pathologist"),
        ("dermoscopy", "a dermatologist"),
        ("OCT B-scan", "an ophthalmologist"),
        ("chest X-ray", "a radiologist"),
        ("photograph of stainless steel", "a quality inspector"),
    ],
)
def test_who_speaks(modality, role):
    with serving(says(content())) as server:
        assert generate(server.api, "--modality", modality, "--obj", "thing") == 0
    assert role in json.loads(server.asked[0]["body"])["messages"][0]["content"]


def test_no_key_no_header(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(says(content())) as server:
        assert generate(server.api) == 0
    assert "Authorization" not in server.asked[0]["headers"]


def test_a_key_of_another_name(monkeypatch):
    monkeypatch.setenv("MY_KEY", "other-key-of-mine\n")
    with serving(says(content())) as server:
        assert generate(server.api, "--key_env", "MY_KEY") == 0
    assert server.asked[0]["headers"]["Authorization"] == "Bearer other-key-of-mine"


def test_no_proxy_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(says(content())) as server:
        assert generate(server.api) == 0


@pytest.mark.parametrize(
    "around",
    ["```json\n{}\n```", "```\n{}```", "Here you are:\n```json\n{}\n```\nGood luck!", "<think>hm {{</think>\n{}"],
)
def test_a_fence_and_thoughts_are_taken_off(around, tmp_path):
    path = tmp_path / "p.json"
    with serving(says(around.replace("{}", content()).replace("{{", "{"))) as server:
        assert generate(server.api, "--output", path) == 0
    assert prompt.written(path) == lists()


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("wait", [None, "0.01", "nonsense", "-4", "nan"])
def test_a_busy_server_is_asked_once_more(status, wait):
    headers = {} if wait is None else {"Retry_After": wait}
    with serving(raw(status, b"busy", **headers), says(content())) as server:
        assert generate(server.api) == 0
    assert len(server.asked) == 2


def test_the_pause_is_the_servers():
    with serving(raw(429, b"", Retry_After="0.5"), says(content())) as server:
        started = time.monotonic()
        assert generate(server.api) == 0
        assert 0.5 <= time.monotonic() - started < 5


def test_pause_by_date():
    later = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 28 <= chat._pause(later) <= 30
    assert chat._pause(email.utils.formatdate(0, usegmt=True)) == 0
    assert chat._pause(None) == chat.PAUSE


# What is there already


def test_an_existing_file_is_kept_unless_forced(capsys, tmp_path):
    path = tmp_path / "p.json"
    prompt.write_json(path, ["old normal."], ["old tumour."])
    before = path.read_bytes()
    with serving(says(content())) as server:
        assert generate(server.api, "--output", path) == 2
        assert not server.asked  # and nobody is paid for it
        assert path.read_bytes() == before and "--force" in capsys.readouterr().err
        assert generate(server.api, "--output", path, "--force") == 0
    assert prompt.written(path) == lists()
    assert '-      "old tumour."' in capsys.readouterr().out


def test_a_file_that_appears_meanwhile_is_kept(capsys, tmp_path):
    path = tmp_path / "p.json"

    def meanwhile(handler) -> None:
        prompt.write_json(path, ["mine"], ["my tumour"])
        says(content())(handler)

    with serving(meanwhile) as server:
        assert generate(server.api, "--output", path) == 2
    assert prompt.written(path) == (["mine"], ["my tumour"])
    assert "--force" in capsys.readouterr().err


def test_the_same_again_is_no_difference(capsys, tmp_path):
    path = tmp_path / "p.json"
    prompt.write_json(path, *lists())
    with serving(says(content())) as server:
        assert generate(server.api, "--output", path, "--force") == 0
    assert "no difference" in capsys.readouterr().out


# Answers that are refused

DEEP = b"[" * 100_000
NOT_CHAT = {
    "no JSON": raw(200, b"<html>It works!</html>"),
    "empty": raw(200, b""),
    "no object": raw(200, b"[]"),
    "no choices": raw(200, b'{"choices": []}'),
    "choices of another shape": raw(200, b'{"choices": ["text"]}'),
    "message is null": raw(200, b'{"choices": [{"message": null}]}'),
    "too deep": raw(200, DEEP),
    "no UTF-8": raw(200, b"\xff\xfe\xfd"),
    "a stream of events": raw(200, b'data: {"choices": []}\n\n'),
    "gzip": raw(200, b"\x1f\x8b\x08\x00", Content_Encoding="gzip"),
}


@pytest.mark.parametrize("kind", NOT_CHAT)
def test_what_is_no_chat_endpoint(capsys, tmp_path, kind):
    refused(capsys, NOT_CHAT[kind], "does not answer like a chat endpoint", "--api", folder=tmp_path)


CONTENT = {
    "prose": ("I'm sorry, I can't do that.", "is not JSON"),
    "half": (content()[:200], "is not JSON"),
    "fence without an end": ("```json\n" + content()[:-9], "is not JSON"),
    "too deep": ("[" * 100_000, "is not JSON"),
    "huge number": ("1" * 5000, "not JSON"),
    "two fences": ("```json\n{}\n```\n```json\n{}\n```", "is not JSON"),
    "list": ('["a"]', 'no list of prompts under "normal"'),
    "flat": ('{"normal": ["a"], "abnormal": ["b"]}', 'no list of prompts under "normal"'),
    "numbers": ('{"normal": {"prompts": [1]}, "abnormal": {"prompts": ["b"]}}', 'prompt 1 of "normal"'),
    "null": ('{"normal": {"prompts": null}, "abnormal": {"prompts": ["b"]}}', "no list of prompts"),
    "half a character": (
        '{"normal": {"prompts": ["\\ud800"]}, "abnormal": {"prompts": ["b"]}}',
        'prompt 1 of "normal"',
    ),
    "empty": ("  ", "empty answer"),
    "no text": (None, "empty answer"),
    "parts": ([{"type": "text", "text": "x"}], "empty answer"),
    "too few": (content(normal=["a slice."]), "1 usable normal sentences, not 2 to 8"),
    "too many": (content(abnormal=[f"tumour {n}." for n in range(99)]), "99 usable abnormal sentences, not 3 to 12"),
    "far too many, all faulty": (content(normal=["{x}"] * 9999), "9999 usable normal sentences"),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_content_of_the_wrong_shape(capsys, tmp_path, kind):
    answer, words = CONTENT[kind]
    refused(capsys, says(answer), words, folder=tmp_path)


SENTENCES = {  # a sentence that spoils a list: what is found
    "a slice \x1b[31mred\x1b[0m.": "control",
    "a slice\nwith a break.": "control",
    "a slice \u202eesrever.": "control",
    "a {0.__class__} slice.": "place-holder",
    "a {classname!r} slice.": "place-holder",
    "a {} slice.": "place-holder",
    "a {{classname}} slice.": "place-holder",
    " ".join(["word"] * 90): "overlong",
    " ".join(["word"] * 1000): "overlong",
    "": "empty",
    "a {classname} slice with clear sulci.": "duplicate",
    "A {classname} slice, with clear sulci!": "near",
    "a {classname} slice showing a small tumour in the left lobe.": "both",
    "a {classname} slice with a tumour.": "contradiction",
}


@pytest.mark.parametrize("text", SENTENCES)
def test_a_sentence_with_a_slip_is_named_and_nothing_written(capsys, tmp_path, text):
    out = refused(
        capsys, says(content(normal=[*lists()[0], text])), "findings in the model's answer", "--drop", folder=tmp_path
    )
    assert f"{SENTENCES[text]}: normal 5" in out
    assert all(character.isprintable() or character == "\n" for character in out)


@pytest.mark.parametrize("text", SENTENCES)
def test_drop_leaves_it_out(capsys, tmp_path, text):
    path = tmp_path / "p.json"
    with serving(says(content(normal=[*lists()[0], text]))) as server:
        assert generate(server.api, "--output", path, "--drop") == 0
    normal, abnormal = prompt.written(path)
    assert normal == lists()[0]
    assert abnormal == [one for one in lists()[1] if one != text]  # one in both lists goes from both
    assert "left out: " in capsys.readouterr().out
    assert command.run(["check", "--prompts", str(path)]) == 0


def test_drop_leaves_enough(capsys, tmp_path):
    faulty = ["a {x} slice.", "a {y} slice.", "a {z} slice.", "a good slice."]
    refused(capsys, says(content(normal=faulty)), "1 usable normal sentences", flags=("--drop",), folder=tmp_path)


# Servers that misbehave


def test_a_long_answer_is_not_read_on(capsys, tmp_path):
    refused(capsys, raw(200, b" " * (10 << 20)), "more than 1 MB", folder=tmp_path)
    refused(capsys, drips(HEAD + b"\r\n", b"x" * 65536, 0), "more than 1 MB", folder=tmp_path)


@pytest.mark.parametrize(
    "reply",
    [
        drips(HEAD + b"\r\n{", b" ", 0.05),  # a body without an end
        drips(HEAD, b"X-Wait: 1\r\n", 0.05),  # headers without an end
        drips(b"", b"H", 0.05),  # not even a status
        drips(b"", b"", 1),  # silence
    ],
)
def test_a_slow_answer_ends_at_the_timeout(capsys, tmp_path, reply):
    started = time.monotonic()
    refused(capsys, reply, "within 1 s", "--timeout", flags=("--timeout", 1), folder=tmp_path)
    assert time.monotonic() - started < 5


def test_nothing_reads_on_after_the_timeout():
    with serving(drips(HEAD + b"\r\n{", b" ", 0.05)) as server:
        assert generate(server.api, "--timeout", 1) == 2
        time.sleep(0.5)  # by then the server has found that nobody listens
        assert not [thread for thread in threading.enumerate() if "process_request" in thread.name]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (raw(401, b'{"error": {"message": "Incorrect API key provided: sk-ve****789"}}'), "Incorrect API key"),
        (raw(401, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()), "bad key [key]"),
        (raw(403, b"\x1b[31mno\x07"), "\\x1b[31mno\\x07"),
        (raw(401, b""), "no reason given"),
    ],
)
def test_a_refused_key(capsys, tmp_path, reply, words):
    refused(capsys, reply, "refuses the key", words, "--key_env", folder=tmp_path)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (raw(404, b'{"error": {"message": "model not found"}}'), "status 404: model not found"),
        (raw(400, b"x" * 100_000), "status 400"),
        (raw(500, b'{"error": "' + KEY.encode() + b'"}'), "status 500"),
        (raw(204, b""), "status 204"),
        (raw(429, b"", Retry_After="86400"), "asks to wait 86400 s"),
        (raw(503, b"", Retry_After="inf"), "asks to wait inf s"),
        (drips(b"nonsense\r\n\r\n", b"", 9), "can't be asked"),
        (lambda handler: handler.connection.close(), "can't be asked"),
    ],
)
def test_other_faults_of_a_server(capsys, tmp_path, reply, words):
    refused(capsys, reply, words, folder=tmp_path)


def test_a_second_refusal_is_final():
    with serving(raw(500, b"", Retry_After="0"), raw(500, b""), says(content())) as server:
        assert generate(server.api) == 2
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(capsys, tmp_path, status):
    with serving(says(content())) as other:
        reply = raw(status, b"", Location=f"http://localhost:{other.port}/v1/chat/completions")
        refused(capsys, reply, "redirects to http://localhost", "--api", folder=tmp_path)
    assert not other.asked


def test_without_httpx_one_line_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert generate("http://127.0.0.1:9/v1") == 2
    assert capsys.readouterr().err == "error: generate needs httpx: pip install -r requirements/prompts.txt\n"


def test_nobody_there(capsys, tmp_path):
    with serving(says(content())) as server:
        pass
    assert generate(server.api) == 2
    assert "can't be asked" in capsys.readouterr().err


def test_a_key_in_a_sentence_is_not_shown(capsys, tmp_path):
    spoilt = content(normal=[*lists()[0], f"a slice with {KEY}."])
    refused(capsys, says(spoilt), "puts your key into its answer", folder=tmp_path)


def test_a_cut_answer(capsys, tmp_path):
    refused(capsys, says(content()[:100], "length"), "cut the answer off", "--abnormal", folder=tmp_path)


# Options


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--api", "localhost:8000"), "--api localhost:8000 is no address"),
        (("--api", "file:///etc/passwd"), "is no address"),
        (("--api", "http://"), "is no address"),
        (("--api", "http://[::1"), "is no address"),
        (("--api", "http://host:99999"), "is no address"),
        (("--api", "http://ho st/v1"), "is no address"),
        (("--api", "http://127.0.0.1/v1?x=1"), "is no address"),
        (("--api", "http://me:secret-word@127.0.0.1/v1"), "--key_env"),
        (("--key_env", "NOT_SET_ANYWHERE"), "--key_env NOT_SET_ANYWHERE"),
        (("--output", "p.txt"), "name a .json file"),
        (("--modality", " "), "--modality"),
        (("--normal", "0"), "--normal"),
        (("--timeout", "nan"), "--timeout"),
        (("--obj", "_"), "--classname"),
    ],
)
def test_bad_options(capsys, flags, words):
    assert generate("http://127.0.0.1:9/v1", *flags) == 2
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and "secret-word" not in err and not out


@pytest.mark.parametrize("bad", ["a key\nof two lines", "schlüssel-schlüssel"])
def test_a_key_that_is_none_is_not_repeated(capsys, monkeypatch, bad):
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    assert generate("http://127.0.0.1:9/v1") == 2
    err = capsys.readouterr().err
    assert "OPENAI_API_KEY" in err and "lines" not in err and "schl" not in err


def test_a_key_over_http_is_said():
    assert chat.endpoint("http://gpu-server:8000/v1", "m", None, 1).exposes
    assert not chat.endpoint("https://gpu-server/v1", "m", None, 1).exposes
    assert not chat.endpoint("http://localhost:8000/v1", "m", None, 1).exposes
    with pytest.raises(InputError, match="no address"):
        chat.endpoint("ftp://host", "m", None, 1)
