"""What all pages are made of: their policy, JSON that is no markup, texts that are escaped."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from report import page

TEMPLATE = (
    '<meta http-equiv="Content-Security-Policy" content="{{ policy }}"><style>{{ style }}</style>'
    "<p>{{ words }}</p><script>{{ script }}</script>"
)


def made(folder: Path, **content: object) -> str:
    for name, text in (
        ("page.html", TEMPLATE),
        ("a.css", "p { color: red }"),
        ("b.css", "a > b {}"),
        ("c.js", "1 < 2;"),
    ):
        (folder / name).write_text(text)
    return page.render(folder / "page.html", [folder / "a.css", folder / "b.css"], [folder / "c.js"], content)


def test_the_policy_lets_run_what_is_there_and_nothing_else(tmp_path):
    text = made(tmp_path, words="x")
    (policy,) = re.findall('content="(.*?)"', text)
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy or f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src" in policy and "unsafe" not in policy and "http" not in policy
    assert "p { color: red }\na > b {}" in text and "1 < 2;" in text


def test_texts_are_escaped_and_unknown_names_are_faults(tmp_path):
    assert "<p>&lt;b&gt; &amp;</p>" in made(tmp_path, words="<b> &")
    with pytest.raises(UndefinedError):
        made(tmp_path)


def test_json_is_no_markup_and_reads_back():
    content = {"</script><script>": ["<!--", "&amp;", "\u2028", 1.5, None]}
    text = page.json_text(content)
    assert not set("<>&") & set(text) and json.loads(text) == content
    with pytest.raises(ValueError, match="JSON compliant"):
        page.json_text([float("nan")])
