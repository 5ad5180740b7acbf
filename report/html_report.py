"""The report page: one HTML file that opens from the disk and needs no network.

It holds the scores, from which plain JavaScript draws curves, histogram and figures, and pictures of as many images
as fit. Its Content-Security-Policy lets run nothing but the page's own script, and fetch nothing at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite, nan
from pathlib import Path
from typing import Any

from markupsafe import Markup

from report import findings, page, thumbnails
from report.colours import COLOURS, OPACITY, ColourScale
from report.page import LIMIT, TEMPLATES, json_text
from report.tables import COLUMNS
from report.thumbnails import Pictures
from runtime.files import atomic_write
from scoring.patch_scores import BRANCHES

STYLES = (TEMPLATES / "report.css",)
# In the order in which they run, as one.
SCRIPTS = tuple(TEMPLATES / f"{name}.js" for name in ("drawing", "figures", "charts", "findings", "gallery", "report"))
HEAD = ("script", "obj", "checkpoint", "device", "seconds")  # of the record, before all else


@dataclass(frozen=True)
class Row(Pictures):
    """One image with its pictures. score: None where there is none (an unreadable file), and then `reason` says why.

    label: 0 normal, 1 abnormal, None where nobody knows. reason: a sentence that the page shows with the image.
    findings: the regions of an abnormal image, as `engine.findings.plain` has them.
    confidence: of the verdict at the stored threshold, 0 to 1, None where nothing tells. uncertain: whether that
    verdict is too close to call.
    """

    name: str
    score: float | None
    label: int | None = None
    reason: str = ""
    findings: Sequence[Mapping[str, Any]] = ()
    confidence: float | None = None
    uncertain: bool = False


@dataclass(frozen=True)
class Report:
    """What a page tells.

    settings: the record, as for results.json. scale: what colours the maps, and the two thresholds; an image is
    called abnormal where `score >= scale.score_threshold`, nan where no threshold is known. figures: by branch,
    named as in `report.COLUMNS`, in [0, 1]. caption: the figures'. notes: sentences at
    the top. origin: where scores and threshold come from. reliability: sentences on how far verdicts can be trusted.
    beside: names of files in the page's folder that it links to.
    """

    title: str
    settings: Mapping[str, Any]
    rows: Sequence[Row]
    scale: ColourScale
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    caption: str = "Figures by branch"
    origin: str = ""
    reliability: Sequence[str] = ()
    beside: Sequence[str] = ()


def write(path: str | Path, report: Report) -> None:
    """Write the page, whole or not at all. Raises InputError for a picture that can't be read."""
    scores = json_text(_scores(report))
    frame = len(_render(report, scores, json_text({}), "").encode("utf-8", "backslashreplace"))
    order = _by_interest(report)
    made, edge = thumbnails.within([report.rows[place] for place in order], report.scale, LIMIT - frame - 1000)
    pictures = {order[place]: one for place, one in made.items() if one}
    html = _render(report, scores, json_text(pictures), _shown(report, len(pictures), edge))
    with atomic_write(path) as draft:
        draft.write_text(html, encoding="utf-8", errors="backslashreplace", newline="\n")


def _render(report: Report, scores: Markup, pictures: Markup, shown: str) -> str:
    """The page; texts are escaped by the template, JSON by `json_text`."""
    labels = [row.label for row in report.rows]
    figures = {branch: report.figures[branch] for branch in BRANCHES if branch in report.figures}
    main = list(figures.values())[-1] if figures else {}  # the branch that stands for the run
    content = {
        "report": report,
        "scores": scores,
        "pictures": pictures,
        "shown": shown,
        "written": datetime.now().astimezone(),
        "counts": {"normal": labels.count(0), "abnormal": labels.count(1), "unlabelled": labels.count(None)},
        "unscored": sum(row.score is None for row in report.rows),
        "verdicts": _verdicts(report),
        "table": _table(list(figures.values())),
        "branches": list(figures),
        "main": {name: value for name, value in main.items() if isfinite(value)},
        "sections": _sections(report.settings),
        "bar": Markup("data:image/" + thumbnails.webp(COLOURS[None].repeat(8, axis=0))),
        "has_outline": isfinite(report.scale.pixel_threshold),
    }
    return page.render(TEMPLATES / "report.html", STYLES, SCRIPTS, content)


def _verdicts(report: Report) -> dict[str, int]:
    """How many images are called what at the stored threshold; nothing where none is known.

    uncertain: of these, how many are too close to call; only where that is known of some image.
    """
    if not isfinite(report.scale.score_threshold):
        return {}
    called = [row.score >= report.scale.score_threshold for row in report.rows if row.score is not None]
    found = {"abnormal": sum(called), "normal": len(called) - sum(called)}
    known = any(row.uncertain or row.confidence is not None for row in report.rows)
    return found | ({"uncertain": sum(row.uncertain for row in report.rows)} if known else {})


def _scores(report: Report) -> dict:
    """What the page's script reads beside the pictures."""
    threshold = report.scale.score_threshold
    return {
        "names": [row.name for row in report.rows],
        "scores": [None if row.score is None else float(row.score) for row in report.rows],
        "labels": [None if row.label is None else int(row.label) for row in report.rows],
        "confidences": {
            place: float(row.confidence) for place, row in enumerate(report.rows) if row.confidence is not None
        },
        "uncertain": [place for place, row in enumerate(report.rows) if row.uncertain],
        "reasons": {place: row.reason for place, row in enumerate(report.rows) if row.reason},
        "threshold": float(threshold) if isfinite(threshold) else None,
        "findings": findings.within((place, report.rows[place].findings) for place in _by_interest(report)),
        "regions_sought": any(row.findings for row in report.rows),
        "no_diagnosis": f"{findings.NO_DIAGNOSIS[0].upper()}{findings.NO_DIAGNOSIS[1:]}.",
        "truth": any(row.truth is not None for row in report.rows),
        "opacity": OPACITY,
    }


def _by_interest(report: Report) -> list[int]:
    """Places of rows: the largest errors first, then what was nearly one; without labels the highest scores."""
    threshold = report.scale.score_threshold

    def key(place: int) -> tuple[bool, float]:
        row = report.rows[place]
        if row.score is None:
            return True, 0.0
        if row.label is None or not isfinite(threshold):
            return False, -row.score
        return False, row.score - threshold if row.label else threshold - row.score

    return sorted(range(len(report.rows)), key=key)


def _shown(report: Report, count: int, edge: int) -> str:
    """How much of the pictures is in the file."""
    able = sum(any(one is not None for one in (row.image, row.map)) for row in report.rows)
    if not able:
        return "No pictures were given."
    if count == able:
        return f"Pictures are thumbnails, {edge} pixels at most on the longer side."
    which = "the largest errors first" if any(row.label is not None for row in report.rows) else "highest scores first"
    return (
        f"To keep this file under 30 MB it holds pictures of {count:,} of {able:,} images, {which}, "
        f"{edge} pixels at most on the longer side."
    )


def _table(rows: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[str, list[str]]]]:
    """By group of metrics: heading, and a cell in percent for every branch's row; without what no branch has."""
    table: dict[str, list[tuple[str, list[str]]]] = {}
    for name, (group, heading) in COLUMNS.items():
        values = [row.get(name, nan) for row in rows]
        if any(map(isfinite, values)):
            cells = [f"{100 * value:.2f}" if isfinite(value) else "n/a" for value in values]
            table.setdefault(group, []).append((heading, cells))
    return table


def _sections(settings: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The record as headed lists of names and words: what is not nested first, then a section a group."""
    plain = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    first = {name: plain.pop(name) for name in HEAD if name in plain} | plain
    nested = [(name, value) for name, value in settings.items() if isinstance(value, Mapping)]
    groups = [("run", first), *nested]
    return [(name, [(str(key), _said(value)) for key, value in group.items()]) for name, group in groups if group]


def _said(value: Any) -> str:
    """A setting in words; of an absolute path the name, since pages are handed on."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(_said, value)) or "none"
    return (
        Path(value).name or str(value) if isinstance(value, (str, Path)) and Path(value).is_absolute() else str(value)
    )
