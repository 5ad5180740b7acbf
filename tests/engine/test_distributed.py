"""Two processes, started by torchrun, do the work of one."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from helpers.lab import ROOT, Lab


def start(lab: Lab, processes: int, script: str, *flags: object) -> str:
    """Run a script as `processes` processes of one thread each; what they print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", processes, "--master_port", port]
    command = [*torchrun, ROOT / f"{script}.py", *lab.flags(script), *flags]
    done = subprocess.run(
        list(map(str, command)),
        **{"capture_output": True, "text": True, "cwd": lab.root, "env": os.environ | {"OMP_NUM_THREADS": "1"}},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_zero_shot_training_and_testing(lab):
    """Gradients averaged over two processes train as one does, to rounding; testing gives the very same figures."""
    lab.medical(test=(3, 2))
    lab.others()
    out = start(lab, 2, "train_zero", "--batch_size", 3)
    assert out.count("Brain AUC :") == 2  # last and best, of one process
    trained = {2: lab.checkpoint("Brain")}
    start(lab, 1, "test_zero")
    alone = lab.results("test_zero/Brain")
    start(lab, 2, "test_zero")
    assert lab.results("test_zero/Brain")["results"] == alone["results"]
    assert lab.results("train_zero/Brain")["results"] == alone["results"]
    start(lab, 1, "train_zero", "--batch_size", 3)
    trained[1] = lab.checkpoint("Brain")
    for head, weights in trained[1].last.adapters.items():
        one, other = (
            torch.cat([found.last.adapters[head][name].flatten() for name in weights]) for found in trained.values()
        )
        # Training moves them by about 6e-3 of their norm; Adam makes a whole step of what is rounding alone.
        assert (one - other).norm() < 2e-4 * one.norm()


@pytest.mark.slow
def test_few_shot_testing(lab):
    lab.medical(test=(2, 3))
    lab.done("train_few")
    start(lab, 2, "test_few", "--shot", 1)
    together = lab.results("test_few/Brain_1-shot")
    start(lab, 1, "test_few", "--shot", 1)
    assert lab.results("test_few/Brain_1-shot")["results"] == together["results"]
