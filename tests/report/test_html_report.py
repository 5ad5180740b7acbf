"""The report page as a file: what it holds, that names stay names, its size, and what scripts put into it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest

from report import html_report
from report.colours import ColourScale
from report.html_report import Report, Row
from report.tables import DEMO_NOTE
from runtime.errors import InputError
from scoring import metrics

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">&amp;{{ 7*7 }}\u202egnp.\udcff'
RNG = np.random.default_rng(3)


def held(path: Path, name: str) -> dict:
    """The JSON that a page holds under an id."""
    (text,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', path.read_text())
    return json.loads(text)


def written(path: Path, rows: list[Row], threshold: float = 0.5, **rest: object) -> Path:
    """A page of rows."""
    scale = ColourScale(0, 1, rest.pop("pixel", nan), threshold)
    html_report.write(path, Report(**{"title": "Test", "settings": {}, "rows": rows, "scale": scale} | rest))
    return path


class Tags(HTMLParser):
    """All start tags of a page with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))


def test_scores_labels_and_threshold_are_kept_to_the_last_bit(tmp_path):
    rows = [Row("a", np.float32(0.1), 0), Row("b", 1 / 3, 1), Row("c", 0.7), Row("d", None, reason="damaged")]
    data = held(written(tmp_path / "report.html", rows, threshold=np.float32(0.3)), "scores")
    assert data["scores"] == [float(np.float32(0.1)), 1 / 3, 0.7, None]
    assert data["labels"] == [0, 1, None, None] and data["names"] == list("abcd")
    assert data["threshold"] == float(np.float32(0.3)) and data["reasons"] == {"3": "damaged"}
    assert held(written(tmp_path / "report.html", rows, threshold=nan), "scores")["threshold"] is None


def test_names_are_text_wherever_they_stand(tmp_path):
    rows = [Row(HOSTILE, 0.2, 1, reason=HOSTILE)]
    rest = {"title": HOSTILE, "notes": [HOSTILE], "origin": HOSTILE, "caption": HOSTILE}
    rest["figures"] = {"few": {"image_auroc": 0.5}}
    rest["settings"] = {"obj": HOSTILE, "script": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}}
    text = written(tmp_path / "report.html", rows, **rest).read_text()
    tags = Tags(text).found
    assert [attributes.get("type") for tag, attributes in tags if tag == "script"] == ["application/json"] * 2 + [None]
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert "window.hacked=1</script>" not in text and "49" not in re.findall("<h1>.*</h1>", text)[0]
    assert held(tmp_path / "report.html", "scores")["names"] == [HOSTILE]


def test_nothing_runs_but_the_pages_own_script_and_nothing_is_fetched(tmp_path):
    text = written(tmp_path / "report.html", [Row("a", 0.5)]).read_text()
    (policy,) = (a["content"] for _, a in Tags(text).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        (own,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    links = [a[name] for _, a in Tags(text).found for name in ("src", "href") if name in a]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not any("style" in attributes for _, attributes in Tags(text).found)


def test_figures_are_in_percent_and_missing_ones_are_left_out(tmp_path):
    figures = {"zero": {"image_auroc": 0.5, "image_ap": nan}, "fused": {"image_auroc": 0.87654, "pixel_aupro": 0.25}}
    text = written(tmp_path / "report.html", [Row("a", 0.5, 1)], figures=figures, caption="Brain, last").read_text()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    assert "Brain, last; in percent" in words
    assert "zero fused AUROC 50.00 87.65" in words and "AUPRO n/a 25.00" in words
    assert "specificity" not in words.split("Scores and threshold")[0]
    assert "image AUROC 87.65 %" in words and "AUPRO 25.00 %" in words


def test_settings_notes_and_origin_are_told(tmp_path):
    settings = {"obj": "Brain", "masks": True, "options": {"shot": 4, "madff": ["sca", "fab"], "clip_path": None}}
    settings["counts"] = {"test": {"normal": 3, "abnormal": 2}}
    rest = {"settings": settings, "notes": [DEMO_NOTE], "origin": "From the support."}
    text = written(tmp_path / "report.html", [Row("a", 0.5, 1)], **rest).read_text()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    for said in ("shot 4", "madff sca, fab", "clip_path none", "masks yes", "test normal 3, abnormal 2"):
        assert said in words
    assert DEMO_NOTE in words and "From the support." in words


def test_the_summary_comes_first_and_files_beside_the_page_are_linked(tmp_path):
    rows = [Row("a", 0.2), Row("b", 0.5), Row("c", 0.7, uncertain=True), Row("d", None, reason="damaged")]
    rest = {"reliability": [HOSTILE, "On the support: AUROC 0.8."], "beside": ["scores.csv", 'a "b" #1.csv']}
    text = written(tmp_path / "report.html", rows, **rest).read_text()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    assert "3 images: 2 called abnormal, 1 normal; 1 of these verdicts is uncertain; 1 not scored." in words
    assert words.index("3 images: ") < words.index("On the support: AUROC 0.8.") < words.index("Scores and threshold")
    links = [attributes["href"] for tag, attributes in Tags(text).found if tag == "a"]
    assert links == ["#gallery", "scores.csv", "a%20%22b%22%20%231.csv"]
    assert "window.hacked=1</script>" not in text
    one = written(tmp_path / "report.html", [Row("a", 0.2)]).read_text()
    assert "uncertain" not in one.split("<script")[0].split("</style>")[1] and "1 image:" in one
    assert 'class="verdicts"' not in written(tmp_path / "report.html", rows, threshold=nan).read_text()


def test_the_file_stays_within_its_limit_and_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "LIMIT", 400_000)
    labels = [place % 2 for place in range(60)]
    scores = RNG.random(60)
    rows = [
        Row(f"{place}", scores[place], labels[place], image=RNG.integers(0, 256, (120, 120, 3), np.uint8))
        for place in range(60)
    ]
    path = written(tmp_path / "report.html", rows)
    shown = sorted(map(int, held(path, "pictures")))
    assert path.stat().st_size < 400_000 and 5 < len(shown) < 60
    assert f"it holds pictures of {len(shown)} of 60 images, the largest errors first" in path.read_text()
    errors = np.where(labels, 0.5 - scores, scores - 0.5)
    assert shown == sorted(np.argsort(-errors)[: len(shown)].tolist())


def test_without_labels_the_highest_scores_keep_their_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "LIMIT", 250_000)
    rows = [Row(f"{place}", place, image=RNG.integers(0, 256, (120, 120, 3), np.uint8)) for place in range(40)]
    path = written(tmp_path / "report.html", [Row("bad", None), *rows])
    shown = sorted(map(int, held(path, "pictures")))
    assert 1 < len(shown) < 40 and shown == list(range(41 - len(shown), 41))
    assert "highest scores first" in path.read_text()


def test_a_picture_that_cannot_be_read_leaves_no_page(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        written(tmp_path / "out" / "report.html", [Row("a", 0.5, image=tmp_path / "broken.png")])
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("kind", ["few", "zero"])
def test_scripts_write_the_page_of_their_results(lab, kind):
    """Sensitivity and specificity on the page are those of results.json; of one branch alone AUROC and AP are too."""
    lab.medical(test=(5, 5))
    lab.others()
    lab.done(f"train_{kind}")
    name, branches = ("Brain_1-shot", ["--branches", "few"]) if kind == "few" else ("Brain", [])
    lab.done(f"test_{kind}", *branches)
    path = lab.root / "results" / f"test_{kind}" / name / "report.html"
    data = held(path, "scores")
    (figures,) = lab.results(f"test_{kind}/{name}")["results"][0]["branches"].values()
    scores, labels = np.float32(data["scores"]), np.array(data["labels"])
    at = metrics.at_threshold(scores, labels, data["threshold"])
    assert at == {way: figures[way] for way in ("sensitivity", "specificity")}
    assert metrics.image_metrics(scores, labels)["auroc"] == pytest.approx(figures["image_auroc"], abs=1e-6)
    pictures = held(path, "pictures")
    assert len(pictures) == len(labels) == 10
    assert all({"image", "map"} <= one.keys() for one in pictures.values())
    assert {bool(labels[int(place)]) for place, one in pictures.items() if "truth" in one} == {True}
    assert "calibrated on" in path.read_text() and DEMO_NOTE not in path.read_text()


def test_the_page_of_the_fused_branch(lab):
    lab.medical(test=(5, 5))
    lab.done("train_few")
    lab.done("test_few")
    data = held(lab.root / "results" / "test_few" / "Brain_1-shot" / "report.html", "scores")
    figures = lab.results("test_few/Brain_1-shot")["results"][0]["branches"]["fused"]
    at = metrics.at_threshold(np.float32(data["scores"]), np.array(data["labels"]), data["threshold"])
    assert at == {way: figures[way] for way in ("sensitivity", "specificity")}
    assert not isnan(at["sensitivity"])
    assert all(name.split("/")[0] in ("good", "Ungood") for name in data["names"])
