"""study.html: a study in one file that opens from the disk, fetches nothing and reads without JavaScript too."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from apps.study.outputs.rows import AUROC, MAIN, METRICS, SELECTIONS, Row, StudyInfo, machines, shot_words
from apps.study.outputs.side_by_side import side_by_side
from apps.study.outputs.statistics import EXACT, LEVEL, RESAMPLES, TEST, least_p
from apps.study.outputs.summary import (
    MEAN,
    Block,
    Cell,
    Difference,
    View,
    blocks_of,
    cells_of,
    differences_of,
    means_of,
    ranks,
)
from apps.study.outputs.tables import Table, has, metric_words, table_of
from report import page
from report.page import json_text
from report.tables import DEMO_NOTE
from scoring.patch_scores import BRANCHES

TEMPLATES = Path(__file__).with_name("templates")
STYLES = (page.TEMPLATES / "report.css", TEMPLATES / "study.css")
SCRIPTS = (page.TEMPLATES / "drawing.js", *(TEMPLATES / f"study_{name}.js" for name in ("charts", "maps", "page")))
REPORT = "report.html"
DIGITS = 5  # behind the point, of percent, in the page's data
DONE, WAITING = "finished", "waiting"


def page_of(folder: Path, study: StudyInfo, rows: Sequence[Row]) -> str:
    """The page's text; `folder` is where it will lie, from which links and maps are found."""
    blocks = blocks_of(rows, study)
    data = _data(folder, study, rows, blocks)
    content = {
        "study": study,
        "notes": [DEMO_NOTE] * study.demo + list(study.notes),
        "written": datetime.now().astimezone(),
        "level": LEVEL,
        "tiles": _tiles(study, rows),
        "machines": machines(rows),
        "statics": [_static(data, number, block) for number, block in enumerate(blocks)],
        "problems": _problems(rows),
        "test": _test_words(study, blocks),
        "words": {metric: metric_words(metric) for metric in METRICS},
    }
    frame = len(_render(content, data, {}).encode("utf-8", "backslashreplace"))
    return _render(content, data, _maps_within(folder, blocks, page.LIMIT - frame))


def _render(content: Mapping[str, Any], data: Mapping[str, Any], maps: Mapping[str, Any]) -> str:
    whole = {**content, "data": json_text(data), "maps": json_text(maps), "has_maps": bool(maps.get("objects"))}
    return page.render(TEMPLATES / "study.html", STYLES, SCRIPTS, whole)


def _data(folder: Path, study: StudyInfo, rows: Sequence[Row], blocks: Sequence[Block]) -> dict[str, Any]:
    """What the page's script reads: figures by view and block, runs, published figures."""
    metrics = [metric for metric in METRICS if has(rows, metric)] or list(METRICS[:1])
    branches = [MAIN, *(branch for branch in BRANCHES if any(row["branch"] == branch for row in rows))]
    selections = [name for name in SELECTIONS if any(row["selected"] == name for row in rows)] or ["last"]
    views = [View(metric, branch, name) for metric in metrics for branch in branches for name in selections]
    return {
        "metrics": {metric: metric_words(metric) for metric in metrics},
        "branches": branches,
        "selections": selections,
        "level": LEVEL,
        "seeds": len(study.seeds),
        "blocks": [_block(folder, study, block, metrics) for block in blocks],
        "views": {
            f"{view.metric} {view.branch} {view.selected}": [_view(block, view) for block in blocks] for view in views
        },
    }


def _view(block: Block, view: View) -> dict[str, Any]:
    """The cells of a block's objects, then of the mean where there are several, by method; and how many it is over."""
    cells = cells_of(block, view)
    common, means = means_of(block, cells)
    differences = differences_of(block, cells, means)
    names = [*block.objects, MEAN] if len(block.objects) > 1 else list(block.objects)
    rows = []
    for name in names:
        row = {method: means[method] if name == MEAN else cells[name, method] for method in block.methods}
        rows.append(_cells(row, {method: differences.get((name, method)) for method in block.methods}))
    return {"cells": rows, "common": len(common)}


def _cells(row: Mapping[str, Cell], differences: Mapping[str, Difference | None]) -> list[Any]:
    """Each [mean, deviation, seeds, rank, difference], or why there is none."""
    placed = ranks({method: cell.mean for method, cell in row.items() if cell.values})
    return [
        [
            _short(cell.mean),
            _short(cell.deviation),
            len(cell.values),
            placed.get(name, 0),
            _difference(differences[name]),
        ]
        if cell.values
        else cell.state
        for name, cell in row.items()
    ]


def _difference(found: Difference | None) -> list[float | None] | None:
    """[pairs, mean, low, high, p, adjusted p]."""
    if found is None:
        return None
    return [found.pairs, *(_short(value) for value in (found.mean, found.low, found.high, found.p, found.adjusted))]


def _short(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else round(value, DIGITS)


def _block(folder: Path, study: StudyInfo, block: Block, metrics: Sequence[str]) -> dict[str, Any]:
    tables = [table_of(block, metric, study) for metric in metrics if metric in AUROC]
    sources = {source: way for table in tables for source, way in table.sources.items()}
    return {
        "title": block.title,
        "group": block.group,
        "shot": block.shot,
        "objects": block.objects,
        "methods": block.methods,
        "reference": block.methods.index(block.reference),
        "sources": [[source, way] for source, way in sources.items()],
        "published": {table.metric: _published(table, list(sources)) for table in tables},
        "runs": _runs(folder, block, metrics),
    }


def _published(table: Table, sources: Sequence[str]) -> dict[str, list[str]]:
    """By the place of the row, for those that have any."""
    columns = len(table.block.methods)
    own = list(table.sources)
    found = {}
    for place, figures in enumerate(table.rows.values()):
        words = dict(zip(own, (figure.text for figure in figures[columns:]), strict=True))
        if any(words.values()):
            found[str(place)] = [words.get(source, "") for source in sources]
    return found


def _runs(folder: Path, block: Block, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Every job once, with its figures by "branch selection"."""
    jobs: dict[tuple[int, int, str], dict[str, Any]] = {}
    for (obj, method), rows in block.rows.items():
        for row in rows:
            key = (block.objects.index(obj), block.methods.index(method), row["job"])
            job = jobs.setdefault(key, _job(folder, key, row))
            if row["selected"]:
                figures = [_short(None if row.get(name) is None else 100 * row[name]) for name in metrics]
                job["figures"][f"{row['branch']} {row['selected']}"] = figures
                if row["main"]:
                    job["main"] = row["branch"]
    return list(jobs.values())


def _job(folder: Path, key: tuple[int, int, str], row: Row) -> dict[str, Any]:
    return {
        "object": key[0],
        "method": key[1],
        "job": row["job"],
        "seed": row["seed"],
        "state": row["state"],
        "reason": row["reason"] or "",
        "seconds": _short(row.get("seconds")),
        "memory": _short(row.get("peak_memory_mb")),
        "link": _link(folder, row),
        "main": None,
        "figures": {},
    }


def _link(folder: Path, row: Row) -> str | None:
    """The run's report seen from the page, if it is there."""
    if not row.get("folder") or PurePosixPath(row["folder"]).is_absolute():
        return None
    return quote(f"{row['folder']}/{REPORT}") if (folder / row["folder"] / REPORT).is_file() else None


def _maps_within(folder: Path, blocks: Sequence[Block], budget: int) -> dict[str, Any]:
    """Maps of the first block that has any, of as many objects as `budget` bytes hold."""
    for number, block in enumerate(blocks):
        found, left = {}, 0
        for obj in block.objects:
            one = side_by_side(folder, block, obj)
            size = len(json_text(one)) if one else 0
            if one and size <= budget:
                found[obj] = one
                budget -= size
            left += bool(one and obj not in found)
        if found:
            return {"block": number, "objects": found, "left": left}
    return {}


def _tiles(study: StudyInfo, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Heading, number, small words."""
    states = {row["job"]: row["state"] for row in rows}
    count = {state: list(states.values()).count(state) for state in dict.fromkeys(states.values())}
    others = ", ".join(f"{number:,} {state}" for state, number in count.items() if state != DONE)
    hours = sum({row["job"]: row.get("seconds") or 0.0 for row in rows}.values()) / 3600
    objects, methods = ({row[name] for row in rows} for name in ("obj", "method"))
    return [
        ("runs finished", f"{count.get(DONE, 0):,}", others or "all of them"),
        ("objects", f"{len(objects):,}", ", ".join(map(shot_words, study.shots))),
        ("methods", f"{len(methods):,}", f"compared with {study.reference}"),
        ("seeds", f"{len(study.seeds):,}", ", ".join(map(str, study.seeds[:6])) + " …" * (len(study.seeds) > 6)),
        ("hours of runs", f"{hours:,.1f}", "added up over processes"),
    ]


def _static(data: Mapping[str, Any], number: int, block: Block) -> dict[str, Any]:
    """The tables of a block that stand in the page's text: image and pixel AUROC of the main branch, last epoch."""
    names = [*block.objects, MEAN] if len(block.objects) > 1 else list(block.objects)
    tables = []
    for metric in [name for name in AUROC if name in data["metrics"]] or list(data["metrics"]):
        view = data["views"][f"{metric} {MAIN} last"][number]
        beside = data["blocks"][number]["published"].get(metric, {})
        if metric == "image_auroc" or any(not isinstance(cell, str) for row in view["cells"] for cell in row):
            rows = zip(names, view["cells"], (beside.get(str(place)) for place in range(len(names))), strict=True)
            tables.append({"metric": metric, "rows": list(rows), "common": view["common"]})
    return {"block": data["blocks"][number], "tables": tables, "several": len(block.objects)}


def _problems(rows: Sequence[Row]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Runs that gave nothing, by state, those of one reason together; those that wait are counted only."""
    found: dict[str, dict[tuple, dict[str, Any]]] = {}
    for row in rows:
        if row["state"] not in (DONE, WAITING):
            key = (row["obj"], row["method"], row["group"], row["shot"], row["reason"])
            one = found.setdefault(row["state"], {}).setdefault(key, {"row": row, "seeds": []})
            one["seeds"].append(row["seed"])
    return [(state, list(ones.values())) for state, ones in found.items()]


def _test_words(study: StudyInfo, blocks: Sequence[Block]) -> str:
    """Which test marks a cell, in sentences."""
    seeds = len(study.seeds)
    if seeds < 2:
        return "With one seed no test can be made, and nothing is marked."
    how = f"all {seeds**seeds:,} resamples" if seeds <= EXACT else f"{RESAMPLES:,} seeded resamples"
    objects = max((len(block.objects) for block in blocks), default=1)
    words = (
        f"Test: {TEST} over seeds ({how}), two-sided, level {LEVEL:g}, Holm's correction over the objects of a method; "
        f"the mean over objects is one test of its own."
    )
    if least_p(seeds) * objects > LEVEL:
        words += (
            f" With {seeds} seeds no p is below {least_p(seeds):.2g}, so that of {objects} objects none can be marked "
            f"after the correction: absence of marks says nothing here."
        )
    return words
