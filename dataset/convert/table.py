"""Tables in csv files, read row by row: whatever is wrong with one is a line that names the file and the row."""

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from runtime.errors import InputError

DELIMITERS = ",;\t"


def read_table(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, {column: value}) of every row; of `optional` columns those that there are, others are passed over.

    Comma, semicolon or tab, as the first line has it; column names in any case; UTF-8. Blank lines are passed over,
    white space around values is dropped. Raises InputError naming the line of a fault.
    """
    if not path.is_file():
        raise InputError(f"no file {path}: name the table, a csv file")
    with path.open("rb") as file:
        lines = _decoded(file, path)
        first = next(lines, "")
        delimiter = max(DELIMITERS, key=first.count)
        try:
            reader = csv.reader(chain([first], lines), delimiter=delimiter, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(reader, [])]
            places = _columns(path, header, needed, optional)
            for row in reader:
                if not any(value.strip() for value in row):
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num} has {len(row)} values for {len(header)} columns: mend the row "
                        "(values with a comma go in quotes)"
                    )
                yield reader.line_num, {name: row[place].strip() for name, place in places.items()}
        except csv.Error as fault:
            raise InputError(f"{path}, line {reader.line_num} is no csv ({fault}): mend the row") from fault


def _decoded(file: Iterator[bytes], path: Path) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as fault:
            raise InputError(f"{path}, line {number} is not UTF-8: save the table with that encoding") from fault


def _columns(path: Path, header: list[str], needed: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """Where the columns stand that are asked for."""
    lower = [name.lower() for name in header]
    places = {}
    for name in (*needed, *optional):
        if lower.count(name.lower()) > 1:
            raise InputError(f"{path} has two columns {name}: rename one")
        if name.lower() in lower:
            places[name] = lower.index(name.lower())
    if missing := [name for name in needed if name not in places]:
        raise InputError(f"{path} has no column {missing[0]}: its first line must name {', '.join(needed)}")
    return places
