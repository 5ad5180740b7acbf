"""The rule for parts of a recipe, by hand."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.recipe_rule import judged, lines, main, runs_of
from runtime.errors import InputError

SCORES = {  # by method and object, of three seeds
    "paper": {"Brain": (0.50, 0.60, 0.70), "Liver": (0.80, 0.80, 0.80)},
    "better": {"Brain": (0.55, 0.66, 0.76), "Liver": (0.79, 0.79, 0.79)},
    "costly": {"Brain": (0.70, 0.80, 0.90), "Liver": (0.77, 0.77, 0.77)},
    "by chance": {"Brain": (0.50, 0.60, 0.76), "Liver": (0.80, 0.80, 0.80)},
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    rows = []
    for method, objects in SCORES.items():
        for obj, scores in objects.items():
            for seed, score in enumerate(scores):
                folder = tmp_path / f"{method}-{obj}-{seed}"
                folder.mkdir()
                branches = {"fused": {"balanced_accuracy_max": 0.8}}
                (folder / "results.json").write_text(json.dumps({"results": [{"branches": branches}]}))
                row = {"obj": obj, "seed": seed, "method": method, "image_auroc": score, "folder": folder.name}
                row |= {"sensitivity": 0.6, "specificity": 0.8, "branch": "fused", "selected": "last"}
                rows += [row | {"main": True}, row | {"main": False, "branch": "zero", "image_auroc": 0.0}]
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    return tmp_path


def test_a_gain_beyond_its_error_that_costs_no_object(study):
    found = judged(runs_of(study))
    assert dict(found.keeps[1:]) == {"better": True, "costly": False, "by chance": False}
    assert found.gain["better"] == pytest.approx((5 + 6 + 6) / 6 - 0.5)
    assert found.error["better"] == pytest.approx(0.5 / 3)  # of 2, 2.5, 2.5
    assert (found.least["costly"], found.on["costly"]) == (pytest.approx(-3), "Liver")
    assert found.sd["paper"] == pytest.approx(5) and found.short["paper"] == pytest.approx(10)
    assert lines(found)[2:4] == [
        "| paper | 70.0 | 5.0 |  |  |  | 10.0 |",
        "| better | 72.3 | 5.3 | +2.3 ± 0.2 | -1.0 Liver | yes | 10.0 |",
    ]


def test_what_is_no_such_study(study, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"there is no .*runs.csv; run study.py first"):
        runs_of(tmp_path / "none")
    monkeypatch.setattr("sys.argv", ["recipe_rule", str(study), str(study)])
    with pytest.raises(InputError, match="runs of the same object, seed and method"):
        main()
    with pytest.raises(InputError, match="no study has a finished run of paper"):
        judged(runs_of(study).query("method != 'paper'"))
    (study / "paper-Liver-1" / "results.json").write_text('{"results": [{"branches": {"fused": {}}}]}')
    with pytest.raises(InputError, match=r"paper-Liver-1 says nothing of the best threshold"):
        runs_of(study)
