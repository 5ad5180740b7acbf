"""Scores of your own images: with trained adapters, or with no training at all.

python predict.py --ckpt ckpt/few-shot/Brain_4-shot.pth --input scans --output results/scans
python predict.py --normal good --classname "solar cell" --input cells --output results/cells
python predict.py --ckpt ckpt/few-shot/Brain_4-shot.pth --input archive --output results/archive --on ray
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from apps.predict import on_ray, score_files
from apps.predict.spec import ScaleSpec, check_scale
from engine.options import parse

FAILED = 1  # exit code when some files could not be read


def main() -> None:
    """Score what --input names. Exits with 1 if some of it could not be read."""
    asked = parse(ScaleSpec)
    check_scale(asked)
    where = on_ray if "on" in asked else score_files
    if not where.predict_files(asked):
        sys.exit(FAILED)


if __name__ == "__main__":
    sys.exit(exit_code(main))
