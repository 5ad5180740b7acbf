"""Faults that a user can cause are one line; those of the program keep their traceback."""

import pytest
import torch

from runtime.errors import exit_code


def test_an_operation_without_a_deterministic_kernel(capsys):
    def main() -> None:
        torch.use_deterministic_algorithms(True)
        try:
            torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))  # which has none on the CPU either
        finally:
            torch.use_deterministic_algorithms(False)

    assert exit_code(main) == 2
    assert capsys.readouterr().err == (
        "error: put_ does not have a deterministic implementation on this device; "
        "leave --deterministic out, or use --device cpu\n"
    )


def test_other_runtime_errors_are_not_hidden():
    def main() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        exit_code(main)
