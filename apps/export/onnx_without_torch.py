"""Score one image with a file that `python -m apps.export` wrote. Needs onnxruntime, numpy and pillow; no PyTorch, and
of ClipMPCAD nothing but this file.

python apps/export/onnx_without_torch.py Brain.onnx image.png map.png
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


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


def main() -> None:
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    model, image, output = sys.argv[1:]
    if not Path(model).is_file():
        raise SystemExit(f"no file {model}; write it with python -m apps.export")
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
        maps, scores = session.run(["map", "score"], {"images": read_image(image, int(facts["size"]))})
    except (OSError, KeyError, onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf) as fault:
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
