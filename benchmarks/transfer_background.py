"""Why maps of transfer invert on the demo's Liver: what they hold where the picture is black, the organ, the lesion.

    python -m benchmarks.transfer_background

Transfer to Liver as in `benchmarks.tables demo`, over the same seeds, with both adapters. A picture's regions: black
(below 2 % of white), lesion (the mask), the rest of the body. Each row is a mean ± sample deviation over seeds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import SEEDS, TABLES, TRANSFER, flags_of
from dataset import demo, load_image
from engine import TransferSpec, train_transfer
from engine.open_checkpoint import open_checkpoint
from engine.options import parse
from engine.spec import TransferTestSpec
from runtime.environment import environment
from runtime.errors import exit_code
from runtime.files import atomic_write
from scoring import metrics
from scoring.maps import map_scale
from scoring.raw_scores import full_maps

OBJECT, BLACK = "Liver", 0.02
ADAPTERS = ("mvfa", "madff")
OUT = Path(__file__).with_name("transfer_background.md")


def regions(seed: int, adapter: str, data_path: Path) -> dict[str, float]:
    """Mean map value by region, and pixel AUROC over all pixels and over those that are not black."""
    with tempfile.TemporaryDirectory() as scratch:
        asked = parse(TransferSpec, flags_of(TABLES["demo"], TRANSFER)) | {"obj": OBJECT, "seed": seed}
        folders = {"save_path": f"{scratch}/ckpt", "log_dir": f"{scratch}/runs", "results_path": f"{scratch}/results"}
        train_transfer(TransferSpec.of(asked, adapter=adapter, data_path=data_path, **folders))
        opened = open_checkpoint(Path(scratch, "ckpt", f"{OBJECT}.pth"), TransferTestSpec, {}, purpose="transfer test")
        opened.load_adapters()
        run = opened.run
        seen = run.score_test()
    size = run.system.size
    maps = full_maps(seen.map_patches, map_scale(seen.map_patches, size), size, "zero")
    lesion = run.truth[1][:]
    black = np.stack([load_image(sample.image, size).mean(dim=0).numpy() < BLACK for sample in run.test]) & ~lesion
    body = ~black & ~lesion
    return {
        "black background": maps[black].mean(),
        "body": maps[body].mean(),
        "lesion": maps[lesion].mean(),
        "pixel AUROC": metrics.pixel_metrics(maps, lesion)["auroc"],
        "pixel AUROC, black left out": metrics.image_metrics(maps[~black], lesion[~black].astype(int))["auroc"],
    }


def main() -> None:
    """Train, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", type=Path, default=Path("data/demo"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    started, place = time.time(), environment()
    demo.ensure(args.data_path)
    found = {kind: [regions(seed, kind, args.data_path) for seed in SEEDS] for kind in ADAPTERS}
    lines = [
        f"`python -m benchmarks.transfer_background`: seeds {', '.join(map(str, SEEDS))}, last epoch; "
        f"maps scaled to 0 to 1 over the test set; {place['cpu']}, threads: {args.threads}, {place['products']}, "
        f"torch {place['torch']}, commit {place['commit']}; {(time.time() - started) / 60:.0f} minutes.",
        "",
        f"| {OBJECT}, zero-shot transfer | {' | '.join(ADAPTERS)} |",
        "|---" * (1 + len(ADAPTERS)) + "|",
    ]
    for name in found[ADAPTERS[0]][0]:
        values = [[run[name] for run in found[kind]] for kind in ADAPTERS]
        cells = [f"{statistics.mean(column):.3f} ± {statistics.stdev(column):.3f}" for column in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    with atomic_write(OUT) as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(exit_code(main))
