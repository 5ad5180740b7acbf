"""The readme's picture: one abnormal test image each of three demo objects, as `--save_images` writes them.

python -m benchmarks.demo_pictures
"""

import sys
import tempfile
from pathlib import Path

from engine.objects import objects

import train_few
from engine import options
from report.panels import contact_sheet
from runtime.errors import exit_code

SHOWN = ("Brain", "Liver", "Retina_RESC")
OUT = Path(__file__).with_name("demo_pictures.png")


def main() -> None:
    """Train on every shown object, and put its first abnormal panel on one sheet."""
    with tempfile.TemporaryDirectory() as scratch:
        panels = []
        for obj in SHOWN:
            argv = [
                "--demo",
                "--obj",
                obj,
                "--eval_every",
                "0",
                "--save_model",
                "0",
                "--save_images",
                f"{scratch}/maps",
            ]
            args = options.train_few([*argv, "--results_path", f"{scratch}/results", "--log_dir", f"{scratch}/runs"])
            objects(args)
            train_few.train_object(args, obj)
            panels.append(sorted(Path(scratch, "maps", f"{obj}_{args.shot}-shot").glob("*Ungood*"))[0])
        contact_sheet(panels, OUT)
    print(OUT)


if __name__ == "__main__":
    sys.exit(exit_code(main))
