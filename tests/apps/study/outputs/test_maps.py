"""Maps that runs keep: which, how they are read again, and how the page lays them side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import study_rows

from apps.study.outputs.maps import KEPT, keep_maps, read_maps
from apps.study.outputs.side_by_side import side_by_side
from apps.study.outputs.summary import blocks_of
from runtime.errors import InputError

NAMES = [f"img/{number}.png" for number in range(12)]
LABELS = [0, 1] * 6
SCORES = [0.9, 0.1, 0.8, 0.2, 0.05, 0.95, 0.1, 0.9, 0.45, 0.55, 0.6, 0.5]  # errors 0.4, 0.4, 0.3, 0.3, -0.45, ...


def write(path: Path, scores: list[float] = SCORES) -> None:
    image = np.full((40, 60, 3), 90, np.uint8)
    keep_maps(path, NAMES, LABELS, scores, [image] * 12, [lambda: np.ones((10, 15), np.float32)] * 12)


def test_the_largest_and_the_smallest_errors_are_kept(tmp_path):
    write(tmp_path / "maps.json")
    kept = read_maps(tmp_path / "maps.json")
    assert {one.name for one in kept[:KEPT]} == {f"img/{number}.png" for number in range(4)}
    assert {one.name for one in kept[KEPT:]} == {f"img/{number}.png" for number in range(4, 8)}
    assert [one.error for one in kept] == pytest.approx([0.4, 0.4, 0.3, 0.3, -0.4, -0.4, -0.45, -0.45])
    assert all(one.label == LABELS[NAMES.index(one.name)] for one in kept)
    assert (tmp_path / "maps.json").stat().st_size < 20_000


def test_few_images_are_all_kept_once(tmp_path):
    image, anomaly = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4), np.float32)
    keep_maps(tmp_path / "maps.json", ["a", "b"], [0, 1], [0.1, 0.2], [image] * 2, [anomaly] * 2, threshold=0.15)
    assert [(one.name, one.error) for one in read_maps(tmp_path / "maps.json")] == [
        ("a", pytest.approx(-0.05)),
        ("b", pytest.approx(-0.05)),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3},
        {"label": 2},
        {"label": True},
        {"score": "0.5"},
        {"score": None},
        {"image": "png;base64,AAAA"},
        {"image": 'webp;base64,AAAA" onerror="x'},
        {"map": "webp;base64,UklGRg=="},
        {"map": None},
        {"extra": 1},
    ],
)
def test_damaged_entries_are_one_line(tmp_path, change):
    path = tmp_path / "maps.json"
    write(path)
    content = json.loads(path.read_text())
    content["kept"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"maps\.json is missing or damaged"):
        read_maps(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kept": {}}', '{"kept": [1]}', "[" * 100_000, '{"kept": [NaN]}'])
def test_damaged_files_are_one_line(tmp_path, text):
    (tmp_path / "maps.json").write_text(text)
    for path in (tmp_path / "maps.json", tmp_path / "missing.json"):
        with pytest.raises(InputError, match="missing or damaged"):
            read_maps(path)


def laid(folder: Path, scores: dict[str, list[float]]) -> tuple[dict | None, list[dict]]:
    """What the page shows of Brain, whose methods have these scores at seed 111."""
    rows = study_rows.rows(objects=("Brain",), methods=tuple(scores))
    for row in rows:
        if row["seed"] == 111:
            path = folder / row["folder"] / "maps.json"
            write(path, scores[row["method"]])
            row["maps"] = path.relative_to(folder).as_posix()
            lines = [
                f"{n},{label},last,{s},0.5,0" for n, label, s in zip(NAMES, LABELS, scores[row["method"]], strict=True)
            ]
            (path.parent / "scores.csv").write_text(
                "\n".join(["image,label,selected,fused,threshold,abnormal", *lines])
            )
    (block,) = blocks_of(rows, study_rows.study())
    return side_by_side(folder, block, "Brain"), rows


def test_images_that_most_methods_get_wrong_come_first_with_every_methods_map(tmp_path):
    other = [0.1, 0.1, 0.8, 0.2, 0.9, 0.95, 0.1, 0.9, 0.45, 0.55, 0.6, 0.5]
    found, _ = laid(tmp_path, {"MADFF": SCORES, "MVFA": other})
    assert found["seed"] == 111 and {image["name"] for image in found["worst"][:3]} == {NAMES[1], NAMES[2], NAMES[3]}
    first = found["worst"][0]
    assert first["name"] == NAMES[1] and first["methods"]["MVFA"]["error"] == pytest.approx(0.4)
    assert all(image["methods"].keys() == {"MADFF", "MVFA"} for image in found["worst"] + found["best"])
    assert not {image["name"] for image in found["worst"]} & {image["name"] for image in found["best"]}
    missing = [one for image in found["worst"] for one in image["methods"].values() if one["map"] is None]
    assert all(np.isfinite(one["score"]) for one in missing)


def test_what_is_damaged_is_left_out_and_nothing_at_all_is_none(tmp_path):
    found, rows = laid(tmp_path, {"MADFF": SCORES, "MVFA": SCORES})
    broken = next(row for row in rows if row["method"] == "MVFA" and row["seed"] == 111)
    (tmp_path / broken["maps"]).write_text("{")
    (block,) = blocks_of(rows, study_rows.study())
    left = side_by_side(tmp_path, block, "Brain")
    assert found["worst"][0]["methods"].keys() == {"MADFF", "MVFA"} and left["worst"][0]["methods"].keys() == {"MADFF"}
    kept = next(row for row in rows if row["method"] == "MADFF" and row["seed"] == 111)
    (tmp_path / kept["folder"] / "scores.csv").write_text("nothing,of,use\n1,2,3\n")
    assert side_by_side(tmp_path, block, "Brain")["worst"][0]["methods"]["MADFF"]["score"] in SCORES
    (tmp_path / kept["maps"]).unlink()
    assert side_by_side(tmp_path, block, "Brain") is None
