"""The rule by which a part is in the robust recipe, applied to a finished study (docs/recipe.md).

    python study.py recipe --demo
    python -m benchmarks.recipe_rule results/studies/recipe-demo

A part stays if its mean gain in image AUROC over objects, each seed beside the same seed of the published method, is
above twice its standard error over seeds, and no object loses more than 2 points on average over seeds.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from engine.recipe import PAPER
from runtime.errors import InputError, exit_code
from runtime.flags import path

BEST = "balanced_accuracy_max"
ERRORS, LOSS = 2, 2.0  # standard errors that a gain must surpass, points that an object may lose


def runs_of(study: Path) -> pd.DataFrame:
    """Every run's main branch at its last epoch: obj, seed, method, image AUROC, balanced accuracy at the stored and at
    the best threshold, all in percent."""
    table = study / "runs.csv"
    if not table.is_file():
        raise InputError(f"there is no {table}; run study.py first")
    rows = pd.read_csv(table)
    rows = rows[rows.main & (rows.selected == "last")]
    found = rows[["obj", "seed", "method"]].assign(auroc=100 * rows.image_auroc)
    found["balanced"] = 50 * (rows.sensitivity + rows.specificity)
    best = []
    for folder, branch in zip(rows.folder, rows.branch, strict=True):
        record = json.loads((study / folder / "results.json").read_text(encoding="utf-8"))
        figures = record["results"][0]["branches"][branch]
        if BEST not in figures:
            raise InputError(f"{study / folder} says nothing of the best threshold; run the study again")
        best.append(100 * figures[BEST])
    return found.assign(best=best).drop_duplicates(["obj", "seed", "method"])


def judged(runs: pd.DataFrame) -> pd.DataFrame:
    """By method, in the order of the runs: mean AUROC, its deviation over seeds (mean over objects), gain over the
    published method with its standard error, the object that gains least, whether the rule keeps it, and how far
    balanced accuracy lies below that of the best threshold."""
    if PAPER not in set(runs.method):
        raise InputError(f"no study has a finished run of {PAPER}, which others are compared with; name one that has")
    wide = runs.pivot_table(index=["obj", "seed"], columns="method", values="auroc", sort=False)
    short = (runs.best - runs.balanced).groupby(runs.method).mean()
    rows = []
    for method in wide:
        gain = (wide[method] - wide[PAPER]).dropna()
        by_seed, by_object = gain.groupby("seed").mean(), gain.groupby("obj").mean()
        error = by_seed.std(ddof=1) / np.sqrt(len(by_seed))
        keeps = by_seed.mean() > ERRORS * error and by_object.min() >= -LOSS
        spread = wide[method].groupby("obj").std(ddof=1).mean()
        least = (by_object.min(), by_object.idxmin())
        rows.append((method, wide[method].mean(), spread, by_seed.mean(), error, *least, keeps, short[method]))
    names = ["method", "auroc", "sd", "gain", "error", "least", "on", "keeps", "short"]
    return pd.DataFrame(rows, columns=names).set_index("method")


def lines(found: pd.DataFrame) -> list[str]:
    """The table in Markdown."""
    made = [
        "| | image AUROC | sd | gain ± SE | gains least | kept by the rule | below the best threshold |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, row in found.iterrows():
        gain, least, kept = f"{row.gain:+.1f} ± {row.error:.1f}", f"{row.least:+.1f} {row.on}", "no"
        if method == PAPER:
            gain, least, kept = "", "", ""
        elif row.keeps:
            kept = "yes"
        made.append(f"| {method} | {row.auroc:.1f} | {row.sd:.1f} | {gain} | {least} | {kept} | {row.short:.1f} |")
    return made


def main() -> None:
    """Print the table of a study, or of several as if they were one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("studies", nargs="+", type=path, help="folders in results/studies")
    args = parser.parse_args()
    runs = pd.concat([runs_of(study) for study in args.studies])
    if runs.duplicated(["obj", "seed", "method"]).any():
        raise InputError("the studies have runs of the same object, seed and method; name one of them")
    print(*lines(judged(runs)), sep="\n")


if __name__ == "__main__":
    sys.exit(exit_code(main))
