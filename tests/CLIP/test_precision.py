"""Which precision "auto" and "fast" come to."""

import pytest
import torch

from CLIP import precision
from CLIP.precision import choose
from engine.spec import FewShotTestSpec
from runtime.errors import InputError

CPU = torch.device("cpu")
SECONDS = {"fp32": 1.0, "bf16": 0.3, "fp16": 0.9, "int8": 0.2}


@pytest.mark.parametrize(
    ("seconds", "auto", "fast"),
    [
        (SECONDS, "bf16", "int8"),
        (SECONDS | {"int8": 0.4}, "bf16", "bf16"),
        (SECONDS | {"bf16": 0.9, "int8": 0.9}, "fp32", "fp32"),  # no clear difference
        ({"fp32": 1.0, "int8": 0.5}, "fp32", "int8"),  # a CPU without units for 16 bits
        ({"fp32": 1.0, "bf16": 2.0, "int8": 2.0}, "fp32", "fp32"),
    ],
)
def test_by_a_trial_on_a_cpu(monkeypatch, seconds, auto, fast):
    monkeypatch.setattr(precision, "_trial", lambda: seconds)
    assert (choose("auto", CPU), choose("fast", CPU)) == (auto, fast)


def test_the_trial_is_of_what_the_machine_has():
    seconds = precision._trial()
    assert {"fp32", "int8"} <= seconds.keys() <= {"fp32", "bf16", "fp16", "int8"}
    assert choose("auto", CPU) in ("fp32", "bf16") and choose("fast", CPU) in seconds


@pytest.mark.parametrize(
    ("version", "auto", "fast"), [((9, 0), "bf16", "bf16"), ((7, 5), "fp32", "fp16"), ((6, 1), "fp32", "fp32")]
)
def test_by_the_card_on_cuda(monkeypatch, version, auto, fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: version)
    assert [choose(word, torch.device("cuda:1")) for word in ("auto", "fast", "int8")] == [auto, fast, "int8"]


def test_never_tried_on_mps():
    assert choose("fast", torch.device("mps")) == "fp32"


def test_a_spec_holds_what_was_chosen(monkeypatch):
    monkeypatch.setattr(precision, "_trial", lambda: SECONDS)
    assert FewShotTestSpec.of({"precision": "fast", "device": "cpu"}).plain()["precision"] == "int8"
    assert FewShotTestSpec.of({"precision": "bf16"}).precision == "bf16"
    with pytest.raises(InputError, match="--device tpu is no device"):
        FewShotTestSpec.of({"precision": "auto", "device": "tpu"})
