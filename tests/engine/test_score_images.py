"""How many images are scored together, and where those that are scored again are held."""

import weakref
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import flops
from engine import score_images
from engine.held_images import HOST, HOST_BYTES, NOWHERE, PIXELS, TOKENS, place_for
from engine.score_images import fitting
from engine.system import System
from runtime import linear
from runtime.memory import UNKNOWN, free_bytes
from scoring.memory_bank import MemoryBank
from scoring.patch_scores import PatchScores, patch_scores

CPU = torch.device("cpu")


def test_images_are_held_where_they_have_room():
    free = 1000
    assert place_for(10, 50, 5, free) == TOKENS  # half of it
    assert place_for(10, 51, 5, free) == PIXELS
    assert place_for(10, 500, 50, free) == PIXELS
    assert place_for(10, 500, 51, free) == HOST
    assert place_for(1, 1, HOST_BYTES, 0) == HOST
    assert place_for(1, 1, HOST_BYTES + 1, 0) == NOWHERE


def test_as_many_images_as_memory_has_room_for_in_powers_of_two():
    assert [fitting(10, free) for free in (0, 39, 40, 79, 80, 160, 639, 640, 2559, 2560, 1 << 40)] == [
        *(1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 64),
    ]


class Live(TorchDispatchMode):
    """Bytes of tensors that are made meanwhile: `most` at once."""

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self.before = {id(one.untyped_storage()): one.untyped_storage() for one in before}
        self.known = {one._cdata for one in self.before.values()}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in flops.tensors((found,)):
            storage = one.untyped_storage()
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        return found

    def gone(self, number: int, size: int) -> None:
        self.known.remove(number)
        self.now -= size


@pytest.mark.parametrize("model", ["ViT-B-16", "ViT-L-14-336"])
def test_an_image_takes_no_more_than_is_reckoned(model):
    """All that lives at once while both heads are scored, and while prefix tokens are made; and not far less."""
    decoder, count = flops.model(model, 240), 4
    system = System(decoder, torch.device("meta"), 240)
    length, width = system.token_shape
    bank = MemoryBank([torch.empty(9 * length, decoder.token_width, device="meta") for _ in decoder.taps])
    text, images = torch.empty(decoder.token_width, 2, device="meta"), torch.empty(count, 3, 240, 240, device="meta")
    known = torch.empty(count, length, width, device="meta")

    def fused(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
        return flops.attention(q, k, v)

    def score() -> list[PatchScores]:
        decoded = decoder.decode(known, pooled=False)
        return [patch_scores(decoded.tokens(head), text, bank) for head in ("seg", "det")]

    attends, most = patch("torch.nn.functional.scaled_dot_product_attention", fused), []
    for work in (score, lambda: decoder.prefix(images)):
        with attends, linear.plain(), torch.no_grad(), Live([*decoder.parameters(), *bank.levels, known, text]) as live:
            work()
        most.append(live.most / count)
    assert 0.3 * system.scoring_bytes < max(most) < system.scoring_bytes


def test_batches_are_halved_where_memory_ends():
    """And stay so; one image alone must fit."""
    tried, room = [], 3

    def score(prefixes: Tensor) -> dict[str, PatchScores]:
        tried.append(len(prefixes))
        if len(prefixes) > room:
            raise torch.cuda.OutOfMemoryError("none left")
        return {"seg": PatchScores(prefixes, None)}

    batches = list(torch.arange(23.0).split(8))
    parts = list(score_images._in_pieces(score, batches))
    assert torch.cat([part["seg"].zero for part in parts]).tolist() == list(range(23))
    assert tried == [8, 4, *[2] * 8, *[2] * 3, 1]
    room = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(score_images._in_pieces(score, batches))


def test_what_a_device_has_left(monkeypatch):
    """What is free and what PyTorch keeps at hand; a guess where it does not say."""
    gpu = torch.device("cuda", 1)
    for name, value in {"mem_get_info": (700, 1000), "memory_reserved": 200, "memory_allocated": 150}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_bytes(gpu) == 750
    for most, expected in ((900, 300), (100, 0)):
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda most=most: most)
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 600)
        assert free_bytes(torch.device("mps")) == expected
    assert free_bytes(CPU) == UNKNOWN


def test_where_the_same_bits_are_wanted_batches_do_not_depend_on_what_is_free(monkeypatch):
    system = SimpleNamespace(device=torch.device("cuda"), scoring_bytes=1 << 20)
    monkeypatch.setattr(score_images.memory, "free_bytes", lambda device: 1 << 40)
    assert score_images.batch_that_fits(system) == score_images.MOST
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert score_images.batch_that_fits(system) == score_images.FIXED
