"""A checkpoint as one ONNX file: image in, anomaly map and score out, prompts and memory bank inside.

python -m apps.export --ckpt ckpt/few-shot/Brain_4-shot.pth --onnx Brain.onnx
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from apps.export.onnx_file import ExportSpec, export
from engine.options import parse


def main() -> None:
    """Export what --ckpt names."""
    export(parse(ExportSpec, prog="python -m apps.export"))


if __name__ == "__main__":
    sys.exit(exit_code(main))
