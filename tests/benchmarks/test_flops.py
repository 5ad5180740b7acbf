"""Counts on paper: of products known by hand, and the same whoever counts them."""

import pytest
import torch
from helpers.lab import SIZE, Lab
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops
from benchmarks.flops import Device, Kernel

PATCH, WIDTH, JOINT, LAYERS = 16, 32, 16, 4  # of the tiny CLIP
TOKENS = 1 + (SIZE // PATCH) ** 2


@pytest.fixture
def decoder(lab: Lab):
    return flops.model(lab.config, SIZE)


def test_the_first_blocks_are_as_many_products_as_by_hand(decoder):
    """One block before the first tap: the patches' convolution, qkv, attention, its projection, the MLP."""
    kernels = [one for one in flops.prefix(decoder, 2) if one.name in ("convolution", "addmm", "attention", "mm")]
    patches = 2 * (TOKENS - 1) * 3 * PATCH**2 * WIDTH
    block = 2 * TOKENS * WIDTH * (3 + 1 + 4 + 4) * WIDTH + 4 * TOKENS**2 * WIDTH
    assert sum(one.flops for one in kernels) == 2 * (patches + block)
    assert all(one.half for one in kernels if one.name != "convolution")


def test_pytorchs_own_counter_agrees(decoder):
    """On real numbers, but for what it has no formula for."""
    real = decoder.to_empty(device="cpu")
    known = torch.zeros(3, TOKENS, WIDTH)
    with FlopCounterMode(display=False) as counter, flops.linear.plain():
        real.decode(known, ("seg",), pooled=False)
    ours = [one for one in flops.bank(real.to("meta")) if one.name in ("addmm", "mm", "bmm", "convolution")]
    assert sum(one.flops for one in ours) * 3 == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_a_batch_costs_its_images_and_a_step_more_than_scoring(decoder):
    one, three = (sum(part.flops for part in flops.scored(decoder, count, 2)) for count in (1, 3))
    assert three == pytest.approx(3 * one, rel=0.01)
    step = flops.step(decoder, 1)
    assert sum(part.flops for part in step) > 1.5 * one
    trained = sum(part.numel() for part in decoder.parameters() if part.requires_grad)
    assert step[-1] == Kernel("fused Adam", 12 * trained, 28 * trained)
    assert len(flops.step(decoder, 1)) == len(step)


def test_bytes_are_what_is_read_and_written():
    with flops.counted() as counter:
        first = torch.empty(2, 3, device="meta") + torch.empty(2, 3, device="meta")
        first.view(3, 2)
    assert counter.kernels == [Kernel("add", 6, 3 * 24)]


def test_a_kernel_takes_the_slower_of_computing_and_moving():
    device = Device("a", fp32=1e12, bf16=4e12, memory=1e9)
    computing, moving = Kernel("a", 7e11, 0, half=True), Kernel("b", 0, 4e8)
    assert device.seconds([computing]) == pytest.approx(1) and device.seconds([moving]) == pytest.approx(0.5)
    assert device.seconds([computing, moving], "bf16") == pytest.approx(0.35 + 0.5)
    many = [Kernel("c", 1, 1)] * 1000
    assert device.seconds(many) == pytest.approx(1000 * flops.LAUNCH)
    assert device.seconds([*many, Kernel(flops.ADAM, 1, 1)]) == flops.LAUNCH  # a step is recorded


def test_budgets_add_up(decoder):
    lines = flops.budget_table(decoder, flops.DEVICES[0])
    columns = list(zip(*(map(str.strip, line.strip("|").split("|")) for line in lines[2:]), strict=True))
    for column in columns[1:]:
        seconds = [float(cell.removesuffix(" s").replace(",", "")) for cell in column]
        assert sum(seconds[:-1]) == pytest.approx(seconds[-1], abs=len(seconds))
    assert columns[0][-1] == "in all" and "185,750 images scored" in columns[0]
    rows = flops.table({"training step": (flops.step(decoder, 1), 1)})
    assert rows[-1].count("–") == 2 and rows[0].count("|") == rows[-1].count("|")
