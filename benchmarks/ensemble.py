"""What a training step costs with an ensemble of adapters, beside one of each, at ViT-L's shape with random weights.

    python -m benchmarks.ensemble

Members read the same trunk, which is passed through once a step; medians of steps taken in turns.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

import CLIP
from benchmarks.speed import MODEL, SIZE
from benchmarks.timing import in_turns
from decoder import MDecoder
from engine.system import System
from engine.training import Trainer
from runtime.cache import Cache
from runtime.environment import environment
from runtime.errors import exit_code
from utils import pick_device

MEMBERS = (1, 4)
DEVICE = pick_device("cpu")


def step(clip: CLIP.CLIP, members: int, folder: Path) -> Callable[[], object]:
    """A training step of one image whose prefix is known."""
    torch.manual_seed(0)
    system = System(MDecoder(clip, ensemble=members), DEVICE, SIZE, cache=Cache(folder, 0))
    trainer, text = Trainer(system, 1e-3), torch.nn.functional.normalize(torch.randn(768, 2), dim=0)
    prefix, labels, masks = system.prefix(torch.rand(1, 3, SIZE, SIZE)), torch.ones(1), torch.zeros(1, 1, SIZE, SIZE)
    masks[..., 60:120, 60:120] = 1
    return lambda: trainer.step(prefix, labels, masks, text)


def main() -> None:
    """Print seconds a step, and how many times a single one's."""
    torch.manual_seed(0)
    clip = CLIP.load_clip(MODEL, None, SIZE, towers=("image",))
    with tempfile.TemporaryDirectory() as folder:
        seconds = in_turns({str(members): step(clip, members, Path(folder)) for members in MEMBERS})
    known = environment()
    print(f"{known['cpu']}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for members, taken in seconds.items():
        print(f"{members} of each adapter: {taken:.2f} s a step, {taken / seconds['1']:.2f} times one")


if __name__ == "__main__":
    sys.exit(exit_code(main))
