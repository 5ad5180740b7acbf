"""Settings of the prompt lab for tests of it and of its page."""

from typing import Any

from helpers.lab import SIZE, Lab

from apps.promptlab.open_lab import LabSpec
from engine.options import parse


def asked(lab: Lab, *more: object) -> dict[str, Any]:
    """What a command line of app.py that fits the test's folder asks for."""
    flags = ["--device", "cpu", "--save_path", lab.root / "ckpt", "--cache_path", lab.root / "cache"]
    flags += ["--model_name", lab.config, "--clip_path", lab.weights, "--img_size", SIZE, "--data_path", lab.data]
    return parse(LabSpec, [*map(str, [*flags, "--prompts", lab.words, "--shot", 1, "--iterate", -1, *more])])
