"""Score one image with a file that `python -m apps.export` wrote. Needs numpy, pillow, and onnxruntime for .onnx or
openvino for .xml; no PyTorch, and of ClipMPCAD nothing but this file.

python apps/export/without_torch.py Brain.onnx image.png map.png
python apps/export/without_torch.py Brain.xml image.png map.png
python apps/export/without_torch.py Brain.xml image.png map.png --precision bf16
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Opened = tuple[dict[str, str], Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]  # facts; images -> maps, scores


def opened_onnx(model: str) -> Opened:
    """An .onnx file. Raises ValueError for one that can't be read."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf as fault:
        raise ValueError(fault) from None
    facts = session.get_modelmeta().custom_metadata_map
    return facts, lambda images: tuple(session.run(["map", "score"], {"images": images}))


def opened_openvino(model: str, precision: str) -> Opened:
    """An .xml file and the .bin beside it. Raises ValueError for what can't be read."""
    sys.modules.setdefault("openvino_telemetry", None)  # else openvino tells its makers of every import
    import openvino

    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}  # else bf16 where there is bf16
    try:
        read = core.read_model(model)
        facts = read.get_rt_info(["clipmpcad"]).value
    except RuntimeError as fault:  # several lines, the cause last
        raise ValueError(str(fault).strip().splitlines()[-1]) from None
    compiled = core.compile_model(read, "CPU", settings)

    def scored(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled({"images": images})
        return found["map"], found["score"]

    return facts, scored


def read_image(path: str, size: int) -> np.ndarray:
    """An 8-bit image file -> float32 (1, 3, size, size), RGB in [0, 1]."""
    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise SystemExit(f"{path} has more than 8 bits a pixel; save it with 8")
        small = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(small, np.float32).transpose(2, 0, 1)[None] / 255


def write_map(path: str, values: np.ndarray, like: str) -> None:
    """A map (S, S) as a grey PNG at the size of the image `like`: 0 is black, 1 (the support's highest) is white."""
    with Image.open(like) as image:
        size = image.size
    grey = Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))
    grey.resize(size, Image.Resampling.BILINEAR).save(path, "PNG")


def arguments() -> tuple[str, str, str, str]:
    """Model, image, map and precision, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the .onnx or .xml file")
    parser.add_argument("image", help="the image to score, 8 bits a channel")
    parser.add_argument("map", help="the PNG to write")
    parser.add_argument("--precision", choices=("f32", "bf16"), help="of an .xml file's products (f32)")
    given = parser.parse_args()
    if given.precision and not given.model.endswith(".xml"):
        parser.error("--precision is for .xml files")
    if not Path(given.model).is_file():
        raise SystemExit(f"no file {given.model}; write it with python -m apps.export")
    return given.model, given.image, given.map, given.precision or "f32"


def main() -> None:
    model, image, output, precision = arguments()
    try:
        facts, run = opened_openvino(model, precision) if model.endswith(".xml") else opened_onnx(model)
        maps, scores = run(read_image(image, int(facts["size"])))
    except ImportError as fault:
        raise SystemExit(f"the package {fault.name} is missing: pip install {fault.name}") from None
    except (OSError, KeyError, ValueError) as fault:
        raise SystemExit(f"{model} or {image} can't be read: {fault}") from None
    score = float(scores[0])
    print(f"object    : {facts['object']} ({facts['classname']})")
    print(f"score     : {score:.4f}")
    if "image_threshold" in facts:  # unknown after transfer to an object that it was not calibrated for
        threshold = float(facts["image_threshold"])
        print(f"threshold : {threshold:.4f}")
        print(f"verdict   : {'abnormal' if score >= threshold else 'normal'}")
    if "pixel_threshold" in facts:
        marked = float((maps[0] >= float(facts["pixel_threshold"])).mean())
        print(f"marked    : {marked:.1%} of the image")
    write_map(output, maps[0], image)
    print(f"map       : {output}")


if __name__ == "__main__":
    main()
