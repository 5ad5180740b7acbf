"""The readme's picture: one abnormal test image each of three demo objects, as `--save_images` writes them.

python -m benchmarks.demo_pictures
"""

import sys
import tempfile
from pathlib import Path

from engine import FewShotSpec, train_few_shot
from report.panels import contact_sheet
from runtime.errors import exit_code

SHOWN = ("Brain", "Liver", "Retina_RESC")
OUT = Path(__file__).with_name("demo_pictures.png")


def main() -> None:
    """Train on every shown object, and put its first abnormal panel on one sheet."""
    with tempfile.TemporaryDirectory() as scratch:
        panels = []
        folders = {"results_path": f"{scratch}/results", "log_dir": f"{scratch}/runs", "save_images": f"{scratch}/maps"}
        for obj in SHOWN:
            train_few_shot(FewShotSpec.of(demo=True, obj=obj, eval_every=0, save_model=0, **folders))
            panels.append(sorted(Path(scratch, "maps").glob(f"{obj}_*/*Ungood*"))[0])
        contact_sheet(panels, OUT)
    print(OUT)


if __name__ == "__main__":
    sys.exit(exit_code(main))
