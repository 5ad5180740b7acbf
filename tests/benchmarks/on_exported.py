"""The table of exported scorers, of a tiny CLIP."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers.lab import SIZE

import CLIP
from benchmarks import exported, speed


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino: pip install -r requirements/dev.txt")
def test_all_ways_are_timed_and_compared(tiny: tuple[Path, Path], tmp_path, monkeypatch, capsys):
    def trunk(device: torch.device):
        model, image = CLIP.load_clip(*tiny).to(device), torch.rand(1, 3, SIZE, SIZE)
        return lambda: model.encode_image(image)

    for name, value in {"MODEL": tiny[0], "SIZE": SIZE, "trunk": trunk, "SHOT": 1, "REPEATS": 2}.items():
        monkeypatch.setattr(speed, name, value)
    monkeypatch.setattr(exported, "OUT", tmp_path / "exported.md")
    exported.main()
    assert [path.name for path in tmp_path.iterdir()] == ["exported.md"]
    written = (tmp_path / "exported.md").read_text()
    assert written == capsys.readouterr().out and f", {torch.get_num_threads()} threads, torch " in written
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in written.splitlines()[4:]]
    assert [row[0] for row in rows] == [
        exported.UNIT,
        exported.OURS,
        "ours, --precision bf16",
        "ONNX Runtime, fp32",
        "OpenVINO, fp32",
        "OpenVINO, bf16",
    ]
    assert rows[0][2:] == ["1", "", ""] and rows[1][3:] == ["", ""] and all(float(row[1]) > 0 for row in rows)
    for name, *_, maps, scores in rows[2:]:
        assert float(maps) < (0.1 if "bf16" in name else 1e-4) and float(scores) < (0.1 if "bf16" in name else 1e-4)
