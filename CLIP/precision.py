"""Which precision of the linear layers is the fastest on a device."""

from collections.abc import Callable
from functools import partial

import torch

from CLIP import int8
from CLIP.half import HALVES
from runtime.linear import TRIED, Packed, library, linear, packs
from runtime.trial import remembered

CHOOSES = {"auto": ("fp32", "bf16"), "fast": ("fp32", "bf16", "fp16", "int8")}  # word -> what it chooses among
MARGIN = 1.2  # how many times faster than float32 another one must be


def choose(precision: str, device: torch.device) -> str:
    """The precision that a word of `CHOOSES` comes to on a device; any other precision is itself.

    On a CPU a trial of one product says it, once a machine. On CUDA it is what the card has units for, whose gain is in
    batches. MPS stays with float32, for nobody has tried it there.
    """
    if precision not in CHOOSES:
        return precision
    if device.type == "cuda":
        units = {"bf16": (8, 0), "fp16": (7, 0)}
        there = [one for one, least in units.items() if torch.cuda.get_device_capability(device) >= least]
        return next((one for one in there if one in CHOOSES[precision]), "fp32")
    if device.type != "cpu":
        return "fp32"
    seconds = {name: taken for name, taken in _trial().items() if name in CHOOSES[precision]}
    fastest = min(seconds, key=seconds.get)
    return fastest if seconds["fp32"] > MARGIN * seconds[fastest] else "fp32"


@torch.inference_mode()
def _trial() -> dict[str, float]:
    """Seconds of one core that a product takes in each precision that this CPU has units for."""
    tokens, inner, outer = TRIED
    like = {"dtype": torch.float32, "device": "cpu"}
    x, weight, bias = (torch.ones(*shape, **like) for shape in ((tokens, inner), (outer, inner), (outer,)))
    calls: dict[str, Callable[[], object]] = {"fp32": partial(linear, x, weight, bias)}
    for name, dtype in HALVES.items():
        if packs(dtype):
            calls[name] = partial(linear, x, Packed(weight.to(dtype), tokens), bias)
    int8.slow()  # a trial of its own
    calls["int8"] = partial(int8.linear, x, *int8.quantise_weight(weight), bias)
    return remembered(f"precisions of {', '.join(calls)} by {library()}", calls)
