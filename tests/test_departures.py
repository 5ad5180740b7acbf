"""The list of departures in docs/method.md is the contract's: every row, and no other."""

from helpers.goldens import GOLDEN
from helpers.lab import ROOT


def rows(text: str) -> list[tuple[str, ...]]:
    """Cells of every row of Markdown tables, headings and rules left out."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [tuple(line) for line in lines]


def test_every_departure_is_told_and_no_other():
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    told = page.split("## Departures")[1].split("\n## ")[0]
    contract = rows((GOLDEN / "departures.md").read_text(encoding="utf-8"))
    assert len(contract) == 1 + 13 and rows(told) == contract  # headings, and the contract's thirteen
