"""A checkpoint as a file for ONNX Runtime or OpenVINO: image in, anomaly map and score out, prompts and bank inside.

python -m apps.export --ckpt ckpt/few-shot/Brain_4-shot.pth --onnx Brain.onnx
python -m apps.export --ckpt ckpt/few-shot/Brain_4-shot.pth --openvino Brain.xml
"""

from runtime.errors import exit_code  # first: Ctrl-C during the other imports is one line too

# isort: split
import sys

from apps.export.exporting import ExportSpec, export
from engine.options import parse


def main() -> None:
    """Export what --ckpt names."""
    export(parse(ExportSpec, prog="python -m apps.export"))


if __name__ == "__main__":
    sys.exit(exit_code(main))
