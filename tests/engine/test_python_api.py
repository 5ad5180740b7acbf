"""docs/python.md: its code runs as it stands, and the names it lists are those that `engine` offers."""

import re

import pytest
from helpers.lab import ROOT

import engine

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_public_names_are_a_dozen_and_all_told():
    assert len(engine.__all__) <= 12
    assert [name for name in engine.__all__ if f"`{name}" not in PAGE] == []


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    """On the demo, in a folder of its own: trains, scores, swaps the adapter."""
    monkeypatch.chdir(tmp_path)
    notebook, regions, modules = BLOCKS
    names: dict[str, object] = {}
    exec(compile(notebook, "docs/python.md", "exec"), names)
    found, batch = names["found"], names["batch"]
    assert found.anomaly_map.shape == (240, 240) and found.abnormal == (found.score >= found.threshold)
    assert len(batch) == 2 and batch[0].score == batch[1].score
    assert names["result"].selected == names["again"].selected == "last"
    assert names["again"].branches.keys() == {"zero"}
    exec(compile(regions, "docs/python.md", "exec"), names)
    exec(compile(modules, "docs/python.md", "exec"), {})
    assert capsys.readouterr().out.endswith("4 torch.Size([1, 226, 128])\n")
