"""What a run ran on, and by which code."""

import pytest
import torch

from runtime import environment


def test_the_codes_hash_is_of_what_decides_figures(tmp_path):
    for place in environment.DECIDING:
        path = tmp_path / place if place.endswith(".py") else tmp_path / place / "inner" / "a.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    before = environment.code_sha256(tmp_path)
    (tmp_path / "prompt.py").write_text("2\n")
    assert environment.code_sha256(tmp_path) == before
    seen = {before}
    for path in [*tmp_path.glob("*.py"), *tmp_path.rglob("inner/a.py")]:
        if path.name != "prompt.py":
            path.write_text("3\n")
            seen.add(environment.code_sha256(tmp_path))
    assert len(seen) == 1 + len(environment.DECIDING)


@pytest.mark.parametrize(
    ("device", "chosen", "kernels"),
    [("cpu", False, ""), ("cuda", True, ""), ("cuda", False, "not "), ("mps", True, "not ")],
)
def test_whether_the_same_command_gives_the_same_bits(monkeypatch, device, chosen, kernels):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: chosen)
    assert environment.environment(device)["kernels"] == f"{kernels}deterministic"
