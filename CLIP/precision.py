"""Which precision of the linear layers is the fastest on a device."""

from collections.abc import Callable
from functools import partial

import torch

from CLIP import int8
from CLIP.half import HALVES
from runtime.linear import TRIED, Packed, linear, packs
from runtime.trial import remembered

CHOOSES = {"auto": ("fp32", "bf16"), "fast": ("fp32", "bf16", "fp16", "int8")}  # word -> what it chooses among
MARGIN = 1.2  # how many times faster than float32 another one must be


def choose(precision: str, device: torch.device) -> str:
    """The precision that a word of `CHOOSES` comes to on a device; any other precision is itself.

    On a CPU a trial of one product says it, once a machine. On CUDA it is what the card has units for. MPS stays with
    float32, for nobody has tried it there.
    """
    if precision not in CHOOSES:
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else _older_card(precision)
    if device.type != "cpu":
        return "fp32"
    seconds = {name: taken for name, taken in _trial().items() if name in CHOOSES[precision]}
    fastest = min(seconds, key=seconds.get)
    return fastest if seconds["fp32"] > MARGIN * seconds[fastest] else "fp32"


def _older_card(precision: str) -> str:
    """Of a card without units for bfloat16; from Volta on it has some for float16."""
    return "fp16" if "fp16" in CHOOSES[precision] else "fp32"


@torch.inference_mode()
def _trial() -> dict[str, float]:
    """Seconds of one core that a product takes in each precision that this CPU has units for."""
    tokens, inner, outer = TRIED
    x, weight, bias = torch.ones(tokens, inner), torch.ones(outer, inner), torch.ones(outer)
    calls: dict[str, Callable[[], object]] = {"fp32": partial(linear, x, weight, bias)}
    for name, dtype in HALVES.items():
        if packs(dtype):
            calls[name] = partial(linear, x, Packed(weight.to(dtype), tokens), bias)
    calls["int8"] = partial(int8.linear, x, *int8.quantise_weight(weight), bias)
    return remembered("precisions", calls)
