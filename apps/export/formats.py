"""The kinds of file that a graph is written as, ONNX and OpenVINO's, and how each is run on the CPU."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np

from runtime.errors import InputError

Scorer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # images (B, 3, S, S) -> maps (B, S, S), scores (B,)
SECTION = "clipmpcad"  # of an OpenVINO file's rt_info: where the facts are


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file.

    name: of its flag. suffix: of the file's name. second: from its name to that of the file its weights may lie in.
    needed: packages, the one that runs it last; extra: the file that names them. opened: from a file to its scorer.
    """

    name: str
    suffix: str
    second: Callable[[Path], Path]
    needed: tuple[str, ...]
    extra: str
    opened: Callable[[Path], Scorer]

    def check(self, file: Path) -> None:
        """InputError for what would otherwise show only after the work; the file's folder is made."""
        missing = [name for name in self.needed if find_spec(name) is None]
        if missing:
            raise InputError(f"the package {missing[0]} is missing: pip install -r {self.extra}")
        if file.suffix != self.suffix:
            raise InputError(f"--{self.name} {file}: give the file a name that ends in {self.suffix}")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise InputError(f"--{self.name} {file} is a folder; give the name of a file")
        second = self.second(file)
        if second.exists() and not file.exists():
            raise InputError(f"{second} is there without {file.name}: move it away, since weights would take its place")


def opened_onnx(file: Path, threads: int = 0) -> Scorer:
    """The file in ONNX Runtime; threads 0: as many as it takes by itself."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(["map", "score"], {"images": images}))


def opened_openvino(file: Path, threads: int = 0, precision: str = "f32") -> Scorer:
    """The file in OpenVINO; threads 0: as many as it takes by itself.

    precision: "f32" or "bf16". OpenVINO's own choice is bf16 on a processor that has it.
    """
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino().Core().compile_model(file, "CPU", settings)

    def scored(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled({"images": images})
        return found["map"], found["score"]

    return scored


def convert(onnx: Path, file: Path, facts: Mapping[str, str]) -> None:
    """Write an ONNX file as OpenVINO's, in float32, with the facts in its rt_info.

    Weights in 16 bits, its usual way, would move maps by 1e-3 (`TOLERANCE`).
    """
    package = openvino()
    model = package.Core().read_model(onnx)
    for name, value in facts.items():
        model.set_rt_info(value, [SECTION, name])
    package.save_model(model, file, compress_to_fp16=False)


def openvino() -> ModuleType:
    """The package, without the telemetry by which it would tell its makers of every import."""
    sys.modules.setdefault("openvino_telemetry", None)  # as if not installed, which it is prepared for
    import openvino

    return openvino


ONNX = Format(
    name="onnx",
    suffix=".onnx",
    second=lambda file: file.with_name(f"{file.name}.data"),
    needed=("onnx", "onnxscript", "onnxruntime"),
    extra="requirements/onnx.txt",
    opened=opened_onnx,
)
OPENVINO = Format(  # made from an ONNX file, and the name of the second file is its library's
    name="openvino",
    suffix=".xml",
    second=lambda file: file.with_suffix(".bin"),
    needed=("onnx", "onnxscript", "openvino"),
    extra="requirements/openvino.txt",
    opened=opened_openvino,
)
