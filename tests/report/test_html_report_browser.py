"""The report page at work in headless Chromium: figures, filters, viewer, keyboard, phones, axe-core, 5,000 images."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.browser import chromium, listening

from report import html_report
from report.colours import OPACITY, ColourScale
from report.html_report import Report, Row
from report.tables import DEMO_NOTE
from scoring import metrics

RNG = np.random.default_rng(7)
HOSTILE = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">\u202egnp.' + "long_" * 30 + "\udcff"
)
THRESHOLD = 0.5
MANY = 5000
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}


def picture(bright: float) -> np.ndarray:
    """A small picture (48, 64, 3)."""
    return (RNG.random((48, 64, 3)) * 90 + 150 * bright).astype(np.uint8)


def drawn() -> list[Row]:
    """Sixty labelled rows with ties, among them a hostile name and a file that could not be read."""
    rows = []
    mask = np.zeros((48, 64), bool)
    mask[10:30, 10:40] = True
    for place in range(60):
        label = int(RNG.random() < 0.4)
        score = np.float32(round(0.28 + 0.25 * label + 0.35 * RNG.random(), 2))  # two decimals: ties
        anomaly = np.where(mask, score, 0.1).astype(np.float32)
        truth = mask if label else None
        rows.append(Row(f"img_{place:03d}.png", score, label, image=picture(score), truth=truth, map=anomaly))
    region = {"area": 600, "area_mm2": 21.5, "share": 0.75, "place": "upper left"}
    region["resembles"] = [{"finding": HOSTILE, "margin": 1.25}, {"finding": "a mass", "margin": -0.5}]
    rows[5] = replace(rows[5], name=HOSTILE, reason=HOSTILE, findings=[region] * 7)
    return [*rows, Row("damaged.png", None, 1, "damaged.png can't be read as an image")]


ROWS = drawn()
SCORED = [place for place, row in enumerate(ROWS) if row.score is not None]
SCORES = np.array([ROWS[place].score for place in SCORED], np.float32)
LABELS = np.array([ROWS[place].label for place in SCORED])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages: labelled, without labels, and with next to nothing."""
    folder = tmp_path_factory.mktemp("pages")
    scale = ColourScale(0, 1, 0.45, THRESHOLD)
    figures = {"zero": {"image_auroc": 0.5, "sensitivity": 0.5}, "fused": {"image_auroc": 0.75, "pixel_aupro": 0.2}}
    record = {"script": "test_few.py", "obj": "Brain", "options": {"shot": 4, "data_path": "data/" + "long/" * 40}}
    whole = {
        "title": f"Brain {HOSTILE}",
        "settings": record,
        "figures": figures,
        "notes": [DEMO_NOTE],
        "origin": "Here.",
    }
    bare = [replace(row, label=None, truth=None) for row in ROWS]
    unsure = [
        replace(row, confidence=0.51 if n < 7 else 0.9 if n < 30 else 1, uncertain=n < 7) for n, row in enumerate(ROWS)
    ]
    pages = {
        "labelled": Report(rows=ROWS, scale=scale, **whole),
        "unlabelled": Report("Folder", {}, bare, scale),
        "no threshold": Report("Folder", {}, ROWS, ColourScale(0, 1)),
        "nothing known": Report("Folder", {}, bare, ColourScale(0, 1)),
        "uncertain": Report(
            "Unsure", {}, unsure, scale, reliability=["On the support: AUROC 0.81 (0.62 to 0.93)."], beside=["a b.csv"]
        ),
        "one image": Report("One", {}, [Row("only.png", 0.25)], ColourScale(0, 1, nan, 0.25)),
        "one class": Report("One class", {}, [Row(f"{n}", n / 9, 0) for n in range(5)], scale),
        "no score": Report("None", {}, [Row("bad.png", None, reason="damaged")], scale),
        "no image": Report("Empty", {}, [], scale),
        "equal scores": Report("Equal", {}, [Row("a", 1e-9, 0), Row("b", 1e-9, 1)], ColourScale(0, 1, nan, 1e-9)),
    }
    for name, report in pages.items():
        html_report.write(folder / f"{name}.html", report)
    return {name: folder / f"{name}.html" for name in pages}


@dataclass
class Tab:
    """An open page, and what it complained of and asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def number(self, name: str) -> float:
        """The whole number behind an output."""
        return float(self.page.locator(f"#{name}").get_attribute("data-value"))

    def cards(self) -> list[int]:
        """The rows that the gallery shows, in order."""
        return [int(place) for place in self.page.eval_on_selector_all(".card", "all => all.map(n => n.dataset.place)")]

    def listed(self) -> list[int]:
        """The rows on all pages of the gallery, in order."""
        self.page.select_option("#size", "96")
        return self.cards()

    def pick(self, name: str) -> None:
        """Choose a filter."""
        self.page.click(f"label[for=filter-{name}]")

    def focused(self) -> str:
        return self.page.evaluate("document.activeElement.id || document.activeElement.className")


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Opens a page; at the end nothing may have been complained of, and nothing fetched."""
    tabs, contexts = [], []

    def opened(path: Path, viewport: dict = DESK, scheme: str = "light") -> Tab:
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme))
        tab = Tab(contexts[-1].new_page())
        tab.page.on("console", lambda message: tab.complaints.append(message.text))
        tab.page.on("pageerror", lambda fault: tab.complaints.append(str(fault)))
        tab.page.on("request", lambda request: tab.requests.append(request.url))
        tab.page.goto(path.as_uri())
        tabs.append(tab)
        return tab

    yield opened
    asked = [url for tab in tabs for url in tab.requests if not url.startswith("data:")]
    complaints = [line for tab in tabs for line in tab.complaints]
    for context in contexts:
        context.close()
    assert complaints == [] and len(asked) == len(tabs) and all(url.startswith("file:") for url in asked)


def wrong(threshold: float) -> dict[str, list[int]]:
    """Rows by outcome at a threshold."""
    called = np.float32(threshold) <= SCORES
    sides = {"tp": called & (LABELS == 1), "fn": ~called & (LABELS == 1), "fp": called & (LABELS == 0)}
    sides |= {"tn": ~called & (LABELS == 0), "errors": called != (LABELS == 1)}
    return {name: [SCORED[place] for place in np.flatnonzero(chosen)] for name, chosen in sides.items()}


def check_figures(tab: Tab) -> None:
    """What the page says at its threshold is what metrics.py says."""
    threshold = tab.number("exact")
    at = metrics.at_threshold(SCORES, LABELS, threshold)
    count = {name: len(places) for name, places in wrong(threshold).items()}
    assert tab.number("sensitivity") == pytest.approx(at["sensitivity"], abs=1e-12)
    assert tab.number("specificity") == pytest.approx(at["specificity"], abs=1e-12)
    f1 = 2 * count["tp"] / (2 * count["tp"] + count["fp"] + count["fn"])
    assert tab.number("f1") == pytest.approx(f1, abs=1e-12)
    assert tab.number("called") == count["tp"] + count["fp"]
    assert tab.page.inner_text("#sensitivity") == f"{100 * at['sensitivity']:.2f} %"
    for name, number in count.items():
        assert tab.page.inner_text(f"#count-{name}") == str(number)


def test_the_curves_figures_are_those_of_metrics(open_page, files):
    tab = open_page(files["no threshold"])
    expected = metrics.image_metrics(SCORES, LABELS)
    assert tab.number("auroc") == pytest.approx(expected["auroc"], abs=1e-6)
    assert tab.number("ap") == pytest.approx(expected["ap"], abs=1e-6)
    assert tab.page.inner_text("#auroc") == f"{100 * expected['auroc']:.2f} %"
    for name in ("#roc .curve", "#pr .curve", "#roc .dot", "#histogram .bars.normal", "#histogram .threshold-line"):
        assert tab.page.locator(name).count()


def test_a_page_with_figures_has_one_auroc(open_page, files):
    """That of the figures, and beside it how their scores are scaled."""
    tab = open_page(files["labelled"])
    assert tab.page.locator("#auroc, #ap").count() == 0 and tab.page.locator("#roc .curve").count() == 1
    words = tab.page.inner_text("main").replace("\n", " ")
    assert "image AUROC 75.00 % scores scaled over these images" in words


def test_uncertain_verdicts_are_counted_shown_and_filtered(open_page, files):
    tab = open_page(files["uncertain"])
    assert "60 images: " in tab.page.inner_text(".verdicts") and "7 of these verdicts" in tab.page.inner_text(
        ".verdicts"
    )
    assert tab.page.inner_text(".reliability") == "On the support: AUROC 0.81 (0.62 to 0.93)."
    tab.pick("uncertain")
    assert sorted(tab.listed()) == list(range(7)) and tab.page.inner_text("#count-uncertain") == "7"
    badges = tab.page.locator(".card[data-place='0'] .badge").all_inner_texts()
    assert "uncertain, confidence 51 %" in badges
    tab.pick("all")
    assert "confidence 90 %" in tab.page.locator(".card[data-place='20'] .badge").all_inner_texts()
    assert "confidence over 99 %" in tab.page.locator(".card[data-place='30'] .badge").all_inner_texts()


def test_pictures_stand_side_by_side_on_a_phone(open_page, files):
    tab = open_page(files["unlabelled"], PHONE)
    tops = tab.page.eval_on_selector_all(
        ".card:first-child .view", "all => all.map(n => n.getBoundingClientRect().top)"
    )
    assert len(tops) == 3 and len(set(tops)) == 1


@pytest.mark.parametrize("kind", ["apart", "mixed", "ties", "two values", "upside down", "large"])
def test_the_pages_metrics_agree_on_any_scores(open_page, files, kind):
    labels = (RNG.random(4000 if kind == "large" else 200) < 0.3).astype(int)
    noise = RNG.normal(size=labels.size)
    scores = {
        "apart": labels * 10 + noise,
        "mixed": labels + noise,
        "ties": np.round(labels + noise, 1),
        "two values": (labels + noise > 0.5).astype(float),
        "upside down": -labels * 10 + noise,
        "large": labels + noise,
    }[kind].astype(np.float32)
    expected = metrics.image_metrics(scores, labels)
    tab = open_page(files["one image"])
    found = tab.page.evaluate("([s, l]) => sweep(s, l)", [scores.astype(float).tolist(), labels.tolist()])
    for ours, theirs in (("auroc", "auroc"), ("ap", "ap"), ("f1", "f1_max"), ("threshold", "threshold")):
        assert found[ours] == pytest.approx(expected[theirs], abs=1e-6), ours
    roc = np.array(found["roc"])
    assert np.trapezoid(roc[:, 1], roc[:, 0]) == pytest.approx(expected["auroc"], abs=1e-6)
    pr = np.array(found["pr"])
    assert np.trapezoid(pr[:, 1], pr[:, 0]) == pytest.approx(expected["ap"], abs=1e-6)


def test_the_slider_moves_the_figures_the_curves_dots_and_the_verdicts(open_page, files):
    tab = open_page(files["labelled"])
    assert tab.number("exact") == THRESHOLD
    check_figures(tab)
    before = [tab.page.locator(f"#{name} .dot").get_attribute("cx") for name in ("roc", "pr")]
    line = tab.page.locator("#histogram .threshold-line").get_attribute("x1")
    tab.page.focus("#slider")
    for key in ("ArrowRight", "PageDown", "PageDown", "ArrowLeft", "PageDown"):
        last = tab.number("exact")
        tab.page.keyboard.press(key)
        assert tab.number("exact") != last
        check_figures(tab)
    assert [tab.page.locator(f"#{name} .dot").get_attribute("cx") for name in ("roc", "pr")] != before
    assert tab.page.locator("#histogram .threshold-line").get_attribute("x1") != line
    assert "Moved" in tab.page.inner_text("#whence")
    tab.page.keyboard.press("Home")
    check_figures(tab)
    assert tab.number("sensitivity") == 1 and tab.number("specificity") == 0
    assert tab.page.locator(".badge.abnormal").count() == 24
    tab.page.keyboard.press("End")
    check_figures(tab)
    tab.page.click("#stored")
    assert tab.number("exact") == THRESHOLD and "stored threshold" in tab.page.inner_text("#whence")
    check_figures(tab)


def test_the_slider_stands_below_the_histograms_line(open_page, files):
    for viewport in (DESK, PHONE):
        tab = open_page(files["labelled"], viewport)
        for share in (0, 250, 1000):
            tab.page.evaluate("v => { slider.value = v; slider.dispatchEvent(new Event('input')); }", share)
            track = tab.page.locator("#slider").bounding_box()
            thumb = track["x"] + 10 + (track["width"] - 20) * share / 1000
            line = tab.page.locator("#histogram .threshold-line").bounding_box()
            assert line["x"] == pytest.approx(thumb, abs=2)


def test_a_score_at_the_threshold_counts_as_abnormal(open_page, files):
    tab = open_page(files["labelled"])
    for score in np.unique(SCORES)[[3, 10, -1]]:
        tab.page.fill("#exact", repr(float(score)))
        assert tab.number("exact") == float(score)
        check_figures(tab)


def test_the_button_finds_the_largest_f1(open_page, files):
    tab = open_page(files["labelled"])
    tab.page.click("#best")
    expected = metrics.image_metrics(SCORES, LABELS)
    assert tab.number("exact") == float(np.float32(expected["threshold"]))
    assert tab.number("f1") == pytest.approx(expected["f1_max"], abs=1e-12)
    check_figures(tab)


@pytest.mark.parametrize("threshold", [THRESHOLD, 0.6])
def test_filters_let_through_what_they_say(open_page, files, threshold):
    tab = open_page(files["labelled"])
    tab.page.fill("#exact", str(threshold))
    expected = wrong(threshold) | {"unscored": [len(ROWS) - 1], "all": list(range(len(ROWS)))}
    for name, places in expected.items():
        tab.pick(name)
        assert sorted(tab.listed()) == sorted(places), name
    tab.pick("fp")
    texts = tab.page.locator(".card .words").all_inner_texts()
    assert texts and all("false positive" in text and "labelled normal" in text for text in texts)
    tab.pick("unscored")
    assert "no score" in tab.page.inner_text(".card") and "can't be read as an image" in tab.page.inner_text(".card")


def test_orders(open_page, files):
    tab = open_page(files["labelled"])
    values = {place: float(score) for place, score in zip(SCORED, SCORES, strict=True)}
    errors = {p: THRESHOLD - s if ROWS[p].label else s - THRESHOLD for p, s in values.items()}
    keys = {
        "high": lambda p: -values[p],
        "low": lambda p: values[p],
        "error": lambda p: -errors[p],
        "near": lambda p: abs(values[p] - THRESHOLD),
    }
    for name, key in keys.items():
        tab.page.select_option("#sort", name)
        assert tab.listed() == [*sorted(SCORED, key=key), len(ROWS) - 1], name
    tab.page.select_option("#sort", "name")
    names = [place for place in tab.listed() if ROWS[place].name.startswith("img_")]
    assert names == sorted(names) and len(names) == 59


def test_names_are_found_and_pages_turned(open_page, files):
    tab = open_page(files["labelled"])
    first = tab.cards()
    assert len(first) == 24 and "1–24 of 61" in tab.page.inner_text("#where")
    assert tab.page.locator(".previous").first.is_disabled()
    tab.page.locator(".next").first.click()
    tab.page.locator(".next").last.click()
    assert "49–61 of 61" in tab.page.inner_text("#where") and not set(first) & set(tab.cards())
    assert tab.page.locator(".next").first.is_disabled()
    tab.page.fill("#find", "IMG_01")
    assert sorted(tab.cards()) == list(range(10, 20))
    tab.page.fill("#find", "no such name")
    assert tab.cards() == [] and "no image" in tab.page.inner_text("#where")


def test_a_card_shows_input_truth_map_and_overlay(open_page, files):
    tab = open_page(files["labelled"])
    abnormal, normal = (next(p for p in SCORED if ROWS[p].label == label and p != 5) for label in (1, 0))
    tab.page.select_option("#size", "96")
    for place, images in ((abnormal, 5), (normal, 4)):
        card = tab.page.locator(f'.card[data-place="{place}"]')
        assert card.locator(".title").all_inner_texts() == ["input", "ground truth", "anomaly map", "overlay"]
        assert card.locator("img").count() == images  # the overlay is two
    assert "nothing marked" in tab.page.inner_text(f'.card[data-place="{normal}"]')
    sizes = tab.page.evaluate("Promise.all([...document.images].map(n => n.decode().then(() => n.naturalWidth)))")
    assert min(sizes) > 0
    assert tab.page.locator(f'.card[data-place="{abnormal}"] .outline path').count() == 1
    tab.page.uncheck("#outline")
    assert not tab.page.locator(f'.card[data-place="{abnormal}"] .outline').is_visible()


def test_the_slider_changes_the_maps_opacity(open_page, files):
    tab = open_page(files["labelled"])

    def opacity() -> float:
        return float(tab.page.eval_on_selector(".over", "n => getComputedStyle(n).opacity"))

    assert opacity() == pytest.approx(OPACITY)
    tab.page.focus("#opacity")
    tab.page.keyboard.press("Home")
    assert opacity() == 0
    tab.page.keyboard.press("End")
    assert opacity() == 1
    tab.page.locator(".card .open").first.click()
    tab.page.focus("#viewer-opacity")
    name = tab.page.inner_text("#viewer-name")
    tab.page.keyboard.press("ArrowLeft")
    assert opacity() == pytest.approx(0.99) and tab.page.inner_text("#viewer-name") == name
    assert tab.page.input_value("#opacity") == "99"


def test_enlarging_with_the_mouse(open_page, files):
    tab = open_page(files["labelled"])
    tab.page.select_option("#sort", "low")
    small = tab.page.locator(".card .frame").first.bounding_box()["width"]
    places = tab.cards()
    tab.page.locator(".card .open").nth(1).click()
    assert tab.page.locator("#viewer").is_visible()
    assert tab.page.inner_text("#viewer-name") == ROWS[places[1]].name
    assert tab.page.locator("#viewer .frame").first.bounding_box()["width"] > 1.5 * small
    tab.page.click("#viewer-next")
    assert tab.page.inner_text("#viewer-name") == ROWS[places[2]].name
    tab.page.click("#viewer-close")
    assert not tab.page.locator("#viewer").is_visible()


def test_regions_are_told_of_the_picture_that_is_open(open_page, files):
    tab = open_page(files["labelled"])
    tab.page.fill("#find", "hacked")
    tab.page.locator(".card .open").first.click()
    told = tab.page.locator("#viewer-findings")
    assert told.locator("li").count() == 5
    first = told.locator("li").first.inner_text()
    assert first.startswith("upper left, 600 pixels (21.5 mm²), 75 % of the score") and "a mass (-0.5)" in first
    assert "2 more in scores.csv" in told.inner_text() and "no diagnosis" in told.inner_text()
    assert tab.page.evaluate("window.hacked") is None
    for place in (7, int(np.argmax(SCORES))):  # one called normal if any is, and one called abnormal
        tab.page.click("#viewer-close")
        tab.page.fill("#find", f"img_{SCORED[place]:03d}")
        tab.page.locator(".card .open").first.click()
        assert told.is_visible() == bool(SCORES[place] >= THRESHOLD)
        assert not told.is_visible() or "none of the map reaches the pixel threshold" in told.inner_text()


def test_the_keyboard_is_enough(open_page, files):
    tab = open_page(files["labelled"])
    tab.page.keyboard.press("Tab")
    assert tab.focused() == "skip"
    tab.page.keyboard.press("Enter")
    for _ in range(30):
        tab.page.keyboard.press("Tab")
        if tab.focused() == "open":
            break
    places = tab.cards()
    tab.page.keyboard.press("Enter")
    for key, place in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("ArrowUp", 0), ("ArrowLeft", 0)):
        tab.page.keyboard.press(key)
        assert tab.page.inner_text("#viewer-name") == ROWS[places[place]].name
    for _ in range(30):
        tab.page.keyboard.press("ArrowRight")
    assert tab.page.inner_text("#viewer-place") == "31 of 61"
    tab.page.keyboard.press("Escape")
    tab.page.locator("#where", has_text="25–48 of 61").wait_for()  # the page that the last image is on
    assert not tab.page.locator("#viewer").is_visible()
    assert tab.page.evaluate("Number(document.activeElement.closest('.card').dataset.place)") == tab.cards()[30 - 24]
    tab.page.focus("#filter-all")
    tab.page.keyboard.press("ArrowRight")
    assert sorted(tab.listed()) == sorted(wrong(THRESHOLD)["errors"])


def test_hostile_names_are_only_shown(open_page, files):
    tab = open_page(files["labelled"])
    tab.page.fill("#find", "script")
    shown = HOSTILE.replace("\udcff", "\ufffd")
    assert tab.cards() == [5]
    assert tab.page.text_content(".card .name") in (HOSTILE, shown)
    assert tab.page.text_content(".card .reason") in (HOSTILE, shown)
    tab.page.locator(".card .open").click()
    assert tab.page.text_content("#viewer-name") in (HOSTILE, shown)
    assert tab.page.evaluate("[typeof window.hacked, document.querySelectorAll('img[src=x]').length]") == [
        "undefined",
        0,
    ]
    assert tab.page.text_content("h1").startswith("Brain </script><script>window.hacked=1</script><img src=x")


def test_no_request_leaves_the_page_even_if_a_script_tried(browser, files):
    with listening() as (address, asked):
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(files["labelled"].as_uri())
        tried = """async (address) => {
            for (const [tag, name] of [["img", "src"], ["script", "src"], ["iframe", "src"], ["link", "href"]]) {
                const node = document.createElement(tag);
                if (tag === "link") node.rel = "stylesheet";
                node[name] = `${address}/${tag}`;
                document.body.append(node);
            }
            navigator.sendBeacon(`${address}/beacon`, "x");
            return fetch(`${address}/fetch`).then(() => "sent", () => "refused");
        }"""
        assert tab.evaluate(tried, address) == "refused"
        tab.evaluate(
            "() => { const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s); }"
        )
        tab.wait_for_timeout(300)
        assert tab.evaluate("typeof window.ran") == "undefined"
        context.close()
        assert asked == []


def test_without_labels_there_are_scores_and_verdicts_only(open_page, files):
    tab = open_page(files["unlabelled"])
    for name in ("#curves", "#sensitivity", "#best", "#filter-fp"):
        assert not tab.page.locator(name).count() or not tab.page.locator(name).is_visible()
    called = [place for place, score in zip(SCORED, SCORES, strict=True) if score >= np.float32(THRESHOLD)]
    tab.pick("called")
    assert sorted(tab.listed()) == called and tab.number("called") == len(called)
    tab.pick("passed")
    assert sorted(tab.listed()) == sorted(set(SCORED) - set(called))
    assert tab.page.locator("#histogram .bars.images").count()
    assert tab.page.locator(".card .title").all_inner_texts()[:3] == ["input", "anomaly map", "overlay"]


def test_without_a_threshold_the_page_says_where_its_own_comes_from(open_page, files):
    tab = open_page(files["no threshold"])
    assert "No threshold is stored" in tab.page.inner_text("#whence")
    check_figures(tab)
    assert tab.page.locator("#stored").is_disabled()
    tab = open_page(files["nothing known"])
    assert tab.number("called") == np.count_nonzero(SCORES.max() == SCORES)


@pytest.mark.parametrize("name", ["one image", "one class", "no score", "no image", "equal scores"])
def test_pages_with_little_on_them_work(open_page, files, name):
    tab = open_page(files[name])
    tab.page.focus("#slider")
    tab.page.keyboard.press("ArrowRight")
    tab.page.select_option("#sort", "near")
    text = tab.page.inner_text("main")
    assert "NaN" not in text and "Infinity" not in text and "undefined" not in text
    if tab.cards():
        tab.page.locator(".card .open").first.click()
        assert "no picture in this file" in tab.page.inner_text("#viewer")


@pytest.mark.parametrize("name", ["labelled", "unlabelled", "one image"])
def test_a_phone_needs_no_scrolling_sideways(open_page, files, name):
    tab = open_page(files[name], PHONE)
    tab.page.locator("details").last.click() if tab.page.locator("details").count() else None
    wide = "() => [...document.querySelectorAll('body *')].filter(n => n.getBoundingClientRect().right > innerWidth + 1"
    wide += " && getComputedStyle(n).position !== 'absolute' && !n.closest('.name')).map(n => n.outerHTML.slice(0, 80))"
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert tab.page.evaluate(wide) == []
    tab.page.locator(".card .open").nth(0).click()
    assert tab.page.evaluate("viewer.scrollWidth <= viewer.clientWidth") and tab.page.evaluate(wide) == []
    sizes = tab.page.evaluate(
        "[...document.querySelectorAll('main svg text')].map(n => n.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 11


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "viewport"), [("labelled", DESK), ("labelled", PHONE), ("unlabelled", DESK)])
def test_axe_finds_no_violation(open_page, files, scheme, name, viewport):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    tab = open_page(files[name], viewport, scheme)
    for details in tab.page.locator("details:not([open]) summary").all():
        details.click()
    found = {"page": axe.run(tab.page).response}
    tab.page.locator(".card .open").first.click()
    found["viewer"] = axe.run(tab.page).response
    for part, response in found.items():
        assert len(response["passes"]) > 15
        violations = [(one["id"], one["nodes"][0]["html"][:120]) for one in response["violations"]]
        assert violations == [], part


@pytest.mark.slow
def test_five_thousand_images(open_page, tmp_path):
    """All pictures in under 30 MB, loaded within seconds, and only a page of them in the document."""
    octaves = [
        cv2.resize(RNG.normal(size=(2**k, 2**k, 3)), (400, 400), interpolation=cv2.INTER_CUBIC) for k in range(9)
    ]
    texture = sum(octave / 2**k for k, octave in enumerate(octaves))  # as rough as photographs are
    texture = np.clip(128 + 50 * texture, 0, 255).astype(np.uint8)

    def image(place: int) -> Callable[[], np.ndarray]:
        return lambda: texture[place % 160 : place % 160 + 240, place % 150 : place % 150 + 240]

    def anomaly(place: int) -> Callable[[], np.ndarray]:
        return lambda: np.random.default_rng(place).random((6, 6), np.float32)

    scores = RNG.random(MANY)
    rows = [
        Row(f"{p:05d}.png", scores[p], p % 2, image=image(p), truth=texture[:240, :240, 0] > 200, map=anomaly(p))
        for p in range(MANY)
    ]
    path = tmp_path / "report.html"
    html_report.write(path, Report("Many", {}, rows, ColourScale(0, 1, 0.6, 0.5)))
    assert path.stat().st_size < 30_000_000
    (pictures,) = re.findall(r'id="pictures">(.*?)</script>', path.read_text())
    assert len(json.loads(pictures)) == MANY
    started = time.perf_counter()
    tab = open_page(path)
    assert len(tab.cards()) == 24
    assert time.perf_counter() - started < 5
    started = time.perf_counter()
    tab.page.focus("#slider")
    tab.page.keyboard.press("PageUp")
    tab.page.select_option("#sort", "error")
    tab.pick("fn")
    threshold = tab.number("exact")
    expected = sum(label == 1 and score < threshold for score, label in zip(scores, np.arange(MANY) % 2, strict=True))
    assert tab.page.inner_text("#where").endswith(f"of {expected:,}")
    assert time.perf_counter() - started < 3
    assert tab.page.locator("img").count() < 24 * 6
