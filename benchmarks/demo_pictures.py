"""The readme's picture: one abnormal test image each of three demo objects, as `--save_images` writes them.

python -m benchmarks.demo_pictures
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from engine import FewShotSpec, train_few_shot
from report.panels import PAPER
from runtime.errors import exit_code
from runtime.files import atomic_write

SHOWN = ("Brain", "Liver", "Retina_RESC")
OUT = Path(__file__).with_name("demo_pictures.png")
WIDTH = 1200  # pixels


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


def contact_sheet(panels: list[Path], path: Path) -> None:
    """Write a PNG of WIDTH pixels with the panels below each other."""
    pictures = [scaled(panel) for panel in panels]
    sheet, top = Image.new("RGB", (WIDTH, sum(picture.height for picture in pictures)), PAPER), 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    with atomic_write(path) as draft:
        sheet.save(draft, format="PNG", optimize=True)


def scaled(panel: Path) -> Image.Image:
    """A panel at the sheet's width."""
    with Image.open(panel) as picture:
        height = max(1, round(picture.height * WIDTH / picture.width))
        return picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    sys.exit(exit_code(main))
