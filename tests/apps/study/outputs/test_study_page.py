"""study.html in headless Chromium: table, marks, filters, runs behind a cell, charts, maps, keyboard, phone."""

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import study_rows
from helpers.browser import chromium

from apps.study.outputs.files import PAGE, write_outputs
from apps.study.outputs.maps import keep_maps
from report.tables import DEMO_NOTE

HOSTILE = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">&amp;{{ 7*7 }}\'\u202egnp' + "x" * 90
)
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
METHODS = ("MADFF", "MVFA", "memory bank", "PatchCore")
SHOTS = (2, 4, 8)
NAMES = [f"img/{number}.png" for number in range(10)]


def keep(folder: Path, row: dict[str, Any]) -> None:
    """What a run leaves: a report, scores, maps."""
    run = folder / row["folder"]
    run.mkdir(parents=True)
    (run / "report.html").write_text("<!doctype html><html lang=en><title>run</title>the run's report")
    rng = np.random.default_rng(row["seed"])
    scores, labels = rng.random(10).round(3).tolist(), [0, 1] * 5
    image = rng.integers(0, 255, (30, 40, 3), np.uint8)
    keep_maps(run / "maps.json", NAMES, labels, scores, [image] * 10, [rng.random((6, 8), np.float32)] * 10)
    lines = [f"{name},{label},last,{score},0.5,0" for name, label, score in zip(NAMES, labels, scores, strict=True)]
    (run / "scores.csv").write_text("\n".join(["image,label,selected,fused,threshold,abnormal", *lines]))
    row["maps"] = f"{row['folder']}/maps.json"


def whole() -> list[dict[str, Any]]:
    """Three shots, both selections, a prompt ablation, hostile names, failed and missing runs."""
    rows = study_rows.rows(
        objects=("Brain", "Liver", "Chest"), methods=METHODS, shots=SHOTS, selections=("last", "best")
    )
    rows = [row for row in rows if (row["obj"], row["method"]) != ("Liver", "PatchCore")]
    rows = [row for row in rows if (row["obj"], row["method"], row["seed"]) != ("Chest", "MVFA", 333)]
    rows += [
        study_rows.failed("Liver", "PatchCore", seed, shot, reason=HOSTILE) for seed in (111, 222) for shot in SHOTS
    ]
    rows += [study_rows.failed(HOSTILE, "MADFF", 111, 2, "missing data", "no such folder; get it")]
    return rows + study_rows.rows(objects=("Brain",), methods=("base", HOSTILE), group="prompts")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Studies: whole, of one seed, of one object, without any figure, and on the demo."""
    root = tmp_path_factory.mktemp("studies")
    made = {
        "whole": (whole(), study_rows.study(title=HOSTILE, methods=METHODS, shots=SHOTS)),
        "one seed": (study_rows.rows(seeds=(111,)), study_rows.study(seeds=(111,))),
        "one object": (study_rows.rows(objects=("Brain",)), study_rows.study(objects=("Brain",))),
        "failed": ([study_rows.failed("Brain", name, 111) for name in METHODS], study_rows.study(methods=METHODS)),
        "nothing": ([], study_rows.study()),
        "waiting": ([study_rows.failed("Brain", name, 111, 4, "waiting", "") for name in METHODS], study_rows.study()),
        "demo": (study_rows.rows(), study_rows.study(demo=True)),
    }
    for name, (rows, study) in made.items():
        for row in rows if name == "whole" else []:
            if row["main"] and row["selected"] == "last" and row["shot"] == 2:
                keep(root / name, row)
        write_outputs(root / name, study, rows)
    return {name: root / name / PAGE for name in made}


@dataclass
class Tab:
    """An open page, and what it complained of and asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def table(self) -> dict[str, list[str]]:
        """The live table's cells by object."""
        rows = "rows => rows.map(row => [...row.children].map(cell => cell.innerText.trim()))"
        return {name: cells for name, *cells in self.page.eval_on_selector_all("#live-table tbody tr", rows)}

    def cell(self, row: int, column: int) -> Any:
        return self.page.locator(f'.cell[data-row="{row}"][data-column="{column}"]')

    def says(self) -> str:
        return self.page.inner_text("#viewer")


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Opens a page; at the end nothing may have been complained of, and nothing but files fetched."""
    tabs, contexts = [], []

    def opened(path: Path, viewport: dict = DESK, scheme: str = "light", script: bool = True) -> Tab:
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme, java_script_enabled=script))
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


def figures(obj: str, method: str, metric: str = "image_auroc", **wanted: object) -> list[float]:
    """By hand, in percent."""
    wanted = {"obj": obj, "method": method, "shot": 2, "selected": "last", "main": True} | wanted
    return [100 * row[metric] for row in whole() if wanted.items() <= row.items()]


def words(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def test_the_table_is_that_of_the_rows(open_page, pages):
    tab = open_page(pages["whole"])
    table = tab.table()
    assert list(table)[:3] == ["Brain", "Liver", "Chest"]
    for place, method in enumerate(METHODS[:3]):
        assert words(figures("Liver", method)) in table["Liver"][place]
    assert table["Liver"][3] == "failed" and table["Chest"][1].endswith("(4)") and table["Brain"][4] == "91.55"
    mean = next(cells for name, cells in table.items() if name.startswith("mean"))
    assert "over 2 of 4 objects" in tab.page.inner_text("#live-table .mean th") and mean[0]


@pytest.mark.parametrize(
    ("metric", "branch", "selected"),
    [("pixel AUROC", "zero", "best"), ("image AP", "few", "last"), ("pixel AUPRO", "main", "best")],
)
def test_metric_branch_and_selection_change_every_figure(open_page, pages, metric, branch, selected):
    tab = open_page(pages["whole"])
    tab.page.select_option("#metric", label=metric)
    tab.page.click(f"label[for=branch-{branch}]")
    tab.page.click(f"label[for=selected-{selected}]")
    name = metric.lower().replace(" ", "_").replace("-", "_")
    wanted = {"main": True} if branch == "main" else {"branch": branch, "main": False}
    expected = figures("Brain", "memory bank", name, selected=selected, **wanted)
    assert words(expected) in tab.table()["Brain"][2]
    said = tab.page.inner_text("#table-words")
    assert metric in said and ("chosen on the test set" in said) == (selected == "best")
    if "pixel" in metric:
        assert tab.table()["Chest"][0] == "n/a"


def test_shots_and_groups_are_tables_of_their_own(open_page, pages):
    tab = open_page(pages["whole"])
    tab.page.select_option("#block", label="8-shot")
    assert words(figures("Brain", "MADFF", shot=8)) in tab.table()["Brain"][0]
    tab.page.select_option("#block", label="prompts, 4-shot")
    assert list(tab.table()) == ["Brain"] and len(tab.table()["Brain"]) == 2
    assert "reference" in tab.page.inner_text("#live-table thead")


def test_marks_are_the_tests_alone_and_explained(open_page, pages):
    tab = open_page(pages["whole"])
    assert "▲" in tab.cell(0, 0).inner_text() and "▼" in tab.cell(0, 2).inner_text()
    assert tab.page.locator("#live-table .better").count() and tab.page.locator("#live-table .worse").count()
    assert not any(
        sign in cell for cells in tab.table().values() for sign in "▲▼" for cell in cells[1:2]
    )  # the reference
    assert "higher than MVFA" in tab.cell(0, 0).get_attribute("aria-label")
    key = tab.page.inner_text(".key")
    for part in ("studentised bootstrap", "level 0.05", "Holm", "3,125 resamples"):
        assert part in key


def test_one_seed_is_said_to_make_no_test(open_page, pages):
    tab = open_page(pages["one seed"])
    assert "With one seed no test can be made" in tab.page.inner_text(".key")
    assert tab.page.locator("td.better, td.worse").count() == 0 and "±" not in tab.page.inner_text("#live-table")
    tab.cell(0, 0).click()
    assert "1 pair; no test can be made" in tab.says()


def test_objects_are_filtered(open_page, pages):
    tab = open_page(pages["whole"])
    tab.page.fill("#find", "CHES")
    assert next(iter(tab.table())) == "Chest" and len(tab.table()) == 2  # and the mean
    assert "1 of 4 objects" in tab.page.inner_text("#table-words")
    assert tab.page.locator("#strips figure").count() == 1
    tab.page.fill("#find", "no such name")
    assert len(tab.table()) == 1 and "No run" in tab.page.inner_text("#strips")


def test_a_cell_opens_its_runs_by_keyboard_and_escape_closes(open_page, pages):
    tab = open_page(pages["whole"])
    tab.cell(0, 0).focus()
    tab.page.keyboard.press("Enter")
    assert tab.page.locator("#viewer").is_visible()
    runs = tab.page.locator("#viewer-runs tbody tr").all_inner_texts()
    values = figures("Brain", "MADFF")
    assert len(runs) == 5 and all(f"{value:.2f}" in run for value, run in zip(values, runs, strict=True))
    assert re.search(r"Less MVFA.* \+\d\.\d\d points over 5 pairs, 95 % interval \+.* p 0\.0", tab.says())
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("#viewer").is_visible()
    assert tab.page.evaluate("document.activeElement.dataset.row + document.activeElement.dataset.column") == "00"


def test_runs_link_to_their_reports(open_page, pages):
    tab = open_page(pages["whole"])
    tab.cell(0, 0).click()
    links = tab.page.eval_on_selector_all("#viewer-runs a", "all => all.map(node => node.getAttribute('href'))")
    assert len(links) == 5 and all((pages["whole"].parent / link).is_file() for link in links)
    tab.page.keyboard.press("Escape")
    tab.page.select_option("#block", label="8-shot")  # whose runs have no report on the disk
    tab.cell(0, 0).click()
    assert tab.page.locator("#viewer-runs a").count() == 0


def test_failed_runs_and_the_reference_tell_what_they_are(open_page, pages):
    tab = open_page(pages["whole"])
    tab.cell(1, 3).click()
    assert "failed: </script>" in tab.says()
    tab.page.keyboard.press("Escape")
    tab.cell(0, 1).click()
    assert "This is the reference." in tab.says()
    problems = tab.page.inner_text("section:has(.problems)")
    assert "PatchCore, 2-shot, seeds 111, 222" in problems and "no such folder; get it" in problems


def test_runs_that_wait_are_counted_and_not_listed(open_page, pages):
    tab = open_page(pages["waiting"])
    assert "4 waiting" in tab.page.inner_text(".tiles") and tab.page.locator(".problems").count() == 0
    assert tab.table()["Brain"][:3] == ["waiting"] * 3


def test_names_are_text_wherever_they_stand(open_page, pages):
    tab = open_page(pages["whole"])
    tab.page.select_option("#block", label="prompts, 4-shot")
    tab.cell(0, 1).click()
    assert tab.page.evaluate("window.hacked") is None and HOSTILE[:40] in tab.says()
    assert tab.page.locator("img[src=x]").count() == 0


def test_charts_draw_every_seed_the_shots_the_cost_and_the_selection(open_page, pages):
    tab = open_page(pages["whole"])
    assert tab.page.locator('#strips svg[data-object="0"] .seed').count() == 4 * 5
    assert tab.page.locator('#strips svg[data-object="2"] .seed').count() == 4 * 5 - 1
    assert tab.page.locator("#shots .method-line").count() == tab.page.locator("#shots .band").count() == 4
    assert tab.page.locator("#shots .point").count() == 4 * 3 and tab.page.locator("#cost .point").count() == 4
    assert tab.page.locator("#flatter .ring").count() == 4
    gain = [b - a for a, b in zip(figures("Brain", "MADFF"), figures("Brain", "MADFF", selected="best"), strict=True)]
    tab.page.select_option("#object", label="Brain")
    told = tab.page.locator("#flatter title").first.text_content()
    assert words(figures("Brain", "MADFF")) in told and statistics.mean(gain) > 0.5
    tab.page.select_option("#object", label="Liver")
    assert tab.page.locator("#cost .point").count() == 3  # PatchCore failed


def test_charts_that_have_nothing_to_show_are_not_there(open_page, pages):
    tab = open_page(pages["one object"])
    assert not tab.page.locator("#shots-figure").is_visible() and not tab.page.locator("#flatter-figure").is_visible()
    assert not tab.page.locator("#trade-controls").is_visible() and not tab.page.locator("#block-label").is_visible()
    assert tab.page.locator("#maps-part").count() == 0


def test_maps_stand_side_by_side(open_page, pages):
    tab = open_page(pages["whole"])
    heads = tab.page.locator(".map-table").first.locator("thead th").all_inner_texts()
    assert heads == ["image", *METHODS]
    assert tab.page.locator(".map-table").count() == 2 and tab.page.locator(".map-table td img").count() >= 16
    sizes = tab.page.evaluate("Promise.all([...document.images].map(n => n.decode().then(() => n.naturalWidth)))")
    assert min(sizes) > 0
    worst = tab.page.locator(".map-table").first.inner_text()
    assert "wrong by" in worst and "labelled" in worst
    tab.page.select_option("#maps-object", label="Liver")
    assert tab.page.locator(".map-table").first.locator("thead th").count() == 4


def test_without_javascript_the_tables_and_problems_are_there(open_page, pages):
    tab = open_page(pages["whole"], script=False)
    text = tab.page.inner_text("main")
    assert words(figures("Brain", "MADFF")) in text and words(figures("Brain", "MVFA", shot=8)) in text
    assert "pixel AUROC, 4-shot" in text and "need JavaScript" in text and "PatchCore, 2-shot, seeds 111, 222" in text
    assert not tab.page.locator("#controls").is_visible() and not tab.page.locator("#seeds-part").is_visible()
    assert tab.page.locator("td.better").count() and tab.page.locator("td.worse").count()


def test_what_is_static_is_what_the_script_draws(open_page, pages):
    still, live = open_page(pages["whole"], script=False), open_page(pages["whole"])
    rows = "rows => rows.map(row => [...row.children].map(cell => cell.innerText.replace(/\\s+/g, ' ').trim()))"
    found = still.page.locator("#static-tables table").first.locator("tbody tr").evaluate_all(rows)
    drawn = live.page.locator("#live-table tbody tr").evaluate_all(rows)
    assert found == drawn and len(found) == 5


@pytest.mark.parametrize("name", ["failed", "nothing", "waiting", "one seed", "one object", "demo"])
def test_pages_with_little_on_them_work(open_page, pages, name):
    tab = open_page(pages[name])
    text = tab.page.inner_text("body")
    assert not re.search(r"NaN|Infinity|undefined|null|None\b", text)
    assert (DEMO_NOTE in tab.page.inner_text(".top")) == (name == "demo")
    if tab.page.locator(".cell").count():
        tab.page.locator(".cell").last.click()
        assert not re.search(r"NaN|Infinity|undefined|null", tab.says())


@pytest.mark.parametrize("name", ["whole", "failed", "one seed"])
def test_a_phone_needs_no_scrolling_sideways(open_page, pages, name):
    tab = open_page(pages[name], PHONE)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.page.locator(".cell").first.click()
    assert tab.page.evaluate("viewer.scrollWidth <= viewer.clientWidth")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    heads = "all => all.map(node => node.getBoundingClientRect().width)"
    assert max(tab.page.eval_on_selector_all("#live-table th:first-child", heads)) < 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "viewport"), [("whole", DESK), ("whole", PHONE), ("failed", DESK)])
def test_axe_finds_no_violation(open_page, pages, scheme, name, viewport):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    tab = open_page(pages[name], viewport, scheme)
    found = {"page": axe.run(tab.page).response}
    tab.page.locator(".cell").first.click()
    found["viewer"] = axe.run(tab.page).response
    for part, response in found.items():
        assert len(response["passes"]) > 15
        violations = [(one["id"], one["nodes"][0]["html"][:160]) for one in response["violations"]]
        assert violations == [], part


def test_axe_finds_no_violation_without_javascript_content(open_page, pages):
    """The static tables, laid bare by taking the live one away."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    tab = open_page(pages["whole"])
    tab.page.evaluate("document.getElementById('live-table').replaceChildren()")
    assert tab.page.locator("#static-tables table").first.is_visible()
    assert [one["id"] for one in axe.run(tab.page).response["violations"]] == []


@pytest.mark.slow
def test_forty_objects_ten_methods(open_page, tmp_path):
    """Under 30 MB, written in seconds, and quick to use; no mark is possible, which the page says."""
    objects = tuple(f"mvtec/object_{number:02d}" for number in range(40))
    methods = tuple(f"method {number}" for number in range(10))
    rows = study_rows.rows(objects, methods, selections=("last", "best"))
    study = study_rows.study(objects=objects, methods=methods, reference=methods[2])
    started = time.perf_counter()
    write_outputs(tmp_path, study, rows)
    assert time.perf_counter() - started < 90 and (tmp_path / PAGE).stat().st_size < 30_000_000
    started = time.perf_counter()
    tab = open_page(tmp_path / PAGE)
    assert len(tab.table()) == 41 and "none can be marked" in tab.page.inner_text(".key")
    tab.page.select_option("#metric", label="pixel AUROC")
    tab.page.click("#all-strips")
    assert tab.page.locator("#strips figure").count() == 40
    assert time.perf_counter() - started < 20


def test_json_in_the_page_is_whole(pages):
    text = pages["whole"].read_text(encoding="utf-8")
    for name in ("data", "maps"):
        (found,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', text)
        assert json.loads(found)
