"""table.md and table.tex: objects x methods, mean ± sample deviation over seeds, with published figures beside."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apps.study.outputs.rows import AUROC, MAIN, METRICS, SELECTION, Row, StudyInfo, machines
from apps.study.outputs.summary import MEAN, Block, Cell, View, blocks_of, cells_of, means_of, ranks
from report.published import SELECTED_ON_TEST, protocol, published
from report.tables import COLUMNS, DEMO_NOTE, group_of

MARKS = {SELECTED_ON_TEST: "†"}  # others are marked ‡
RULE = "main branch at the last epoch, which no test set chooses"


@dataclass(frozen=True)
class Figure:
    """What stands in a cell. rank: 1 best, 2 second, else 0. seeds: how many, where they are fewer than planned."""

    text: str
    deviation: str = ""
    rank: int = 0
    seeds: int | None = None


@dataclass(frozen=True)
class Table:
    """One metric of one block. sources: published ones with how they came about; common: objects of the mean."""

    block: Block
    metric: str
    sources: Mapping[str, str]
    common: tuple[str, ...]
    rows: Mapping[str, tuple[Figure, ...]]  # by object, and MEAN; methods, then sources

    @property
    def title(self) -> str:
        """The metric and the block in words."""
        return f"{metric_words(self.metric)}, {self.block.title}"

    @property
    def means(self) -> str:
        """Over how many objects the mean is, where not over all."""
        if MEAN not in self.rows or len(self.common) == len(self.block.objects):
            return ""
        return f"mean: over the {len(self.common)} of {len(self.block.objects)} objects that all columns have"


def metric_words(metric: str) -> str:
    """image AUROC."""
    return " ".join(COLUMNS[metric])


def has(rows: Sequence[Row], metric: str) -> bool:
    """Whether any run has the metric."""
    return any(row.get(metric) is not None for row in rows)


def tables_of(rows: Sequence[Row], study: StudyInfo, metrics: Sequence[str]) -> list[Table]:
    """A table for every block and every metric that one of its runs has; without any figure those of image AUROC."""
    blocks = blocks_of(rows, study)
    wanted = [metric for metric in metrics if has(rows, metric)] or list(metrics[:1])
    made = [table_of(block, metric, study) for block in blocks for metric in wanted]
    return [table for table in made if table.metric == wanted[0] or _any_figure(table)]


def _any_figure(table: Table) -> bool:
    return any(figure.deviation or figure.text[:1].isdigit() for row in table.rows.values() for figure in row)


def table_of(block: Block, metric: str, study: StudyInfo) -> Table:
    """One metric of one block."""
    cells = cells_of(block, View(metric))
    common, means = means_of(block, cells)
    known = {obj: _published(block, obj, metric, study) for obj in block.objects}
    several = len(block.objects) > 1 and common
    if several:
        known[MEAN] = _published(block, group_of(common), metric, study)
    sources = {source: protocol(source) for figures in known.values() for source in figures}
    by_row = {obj: {method: cells[obj, method] for method in block.methods} for obj in block.objects}
    by_row |= {MEAN: means} if several else {}
    rows = {
        name: (*_figures(row, len(study.seeds)), *(Figure(known[name].get(source, "")) for source in sources))
        for name, row in by_row.items()
    }
    return Table(block, metric, sources, common, rows)


def _published(block: Block, obj: str, metric: str, study: StudyInfo) -> dict[str, str]:
    """By source, as printed there; nothing beside demo data and beside ablations."""
    if study.demo or block.group not in (MAIN, SELECTION):
        return {}
    found = published(obj, "zero" if block.shot is None else block.shot)
    return {source: f"{figures[metric]:.2f}" for source, figures in found.items() if metric in figures}


def _figures(row: Mapping[str, Cell], planned: int) -> list[Figure]:
    placed = ranks({method: cell.mean for method, cell in row.items() if cell.values})
    return [figure_of(cell, placed.get(method, 0), planned) for method, cell in row.items()]


def figure_of(cell: Cell, rank: int, planned: int) -> Figure:
    """A cell in words."""
    if not cell.values:
        return Figure(cell.state)
    deviation = "" if cell.deviation is None else f"{cell.deviation:.1f}"
    return Figure(f"{cell.mean:.1f}", deviation, rank, len(cell.values) if len(cell.values) < planned else None)


def caption(rows: Sequence[Row], study: StudyInfo) -> str:
    """How the figures came about, in sentences without markup, but for the command."""
    seeds = ", ".join(map(str, study.seeds))
    spread = "mean ± sample deviation over seeds" if len(study.seeds) > 1 else "one run a cell, of seed"
    return (
        f"{spread} {seeds}, in percent; {RULE}. Best bold, second underlined, ties alike; a number in parentheses "
        f"counts the seeds where some are missing. {machines(rows)}."
    )


def footnotes(tables: Sequence[Table]) -> list[str]:
    """What the marks of published figures mean."""
    ways = dict.fromkeys(way for table in tables for way in table.sources.values())
    return [f"{_mark(way)} {way}" for way in ways]


def _mark(way: str) -> str:
    return MARKS.get(way, "‡")


def markdown(rows: Sequence[Row], study: StudyInfo) -> str:
    """table.md: image and pixel AUROC of every block, then the other metrics."""
    tables = tables_of(rows, study, [*AUROC, *(metric for metric in METRICS if metric not in AUROC)])
    tables.sort(key=lambda table: table.metric not in AUROC)
    lines = [f"# {words_of(study.title)}", "", f"`{study.command}`: {words_of(caption(rows, study))}"]
    notes = [DEMO_NOTE] * study.demo + list(study.notes)
    for note in notes:
        lines += ["", f"**{words_of(note)}**"]
    for table in tables:
        lines += ["", f"## {words_of(table.title)}", "", *md_lines(table)]
    lines += [line for note in footnotes(tables) for line in ("", words_of(note))]
    return "\n".join(lines) + "\n"


def md_lines(table: Table) -> list[str]:
    """A table as lines of Markdown."""
    heads = [words_of(method) for method in table.block.methods]
    heads += [f"{words_of(source)} {_mark(way)}" for source, way in table.sources.items()]
    lines = [f"| object | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    lines += [f"| {words_of(name)} | {' | '.join(map(_md_cell, row))} |" for name, row in table.rows.items()]
    return lines + ["", words_of(table.means)] * bool(table.means)


def _md_cell(figure: Figure) -> str:
    around = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}[figure.rank]
    words = around.format(figure.text + (f" ± {figure.deviation}" if figure.deviation else ""))
    return words + (f" ({figure.seeds})" if figure.seeds else "")


def words_of(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(text.split()))


TEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "±": r"$\pm$",
        "†": r"\dag{}",
        "‡": r"\ddag{}",
    }
)
WIDE = 6  # columns from which a table is fitted to the text's width


def latex(rows: Sequence[Row], study: StudyInfo) -> str:
    """table.tex: image and pixel AUROC of every block, a floating table each."""
    tables = tables_of(rows, study, AUROC)
    notes = "".join(f" {_tex(note.rstrip('.'))}." for note in [DEMO_NOTE] * study.demo + list(study.notes))
    about = rf"\texttt{{{_tex(study.command)}}}: {_tex(caption(rows, study))}{notes}"
    head = r"% \usepackage[T1]{fontenc} \usepackage{booktabs} \usepackage{graphicx}"
    return "\n".join([head, *(_floating(table, about) for table in tables)]) + "\n"


def _floating(table: Table, about: str) -> str:
    marks = "".join(f" {_tex(note)}." for note in footnotes([table]))
    over = f" {_tex(table.means)}." if table.means else ""
    lines = _tex_lines(table)
    if len(table.rows[next(iter(table.rows))]) >= WIDE:
        lines = [r"\resizebox{\textwidth}{!}{%", *lines[:-1], lines[-1] + "}"]
    return "\n".join(
        [
            "",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(table.title)}. {about}{over}{marks}}}",
            *lines,
            r"\end{table}",
        ]
    )


def _tex_lines(table: Table) -> list[str]:
    heads = [_tex(method) for method in table.block.methods]
    heads += [f"{_tex(source)}{_tex(_mark(way))}" for source, way in table.sources.items()]
    body = [_tex_row(name, row, _tex_cell) for name, row in table.rows.items() if name != MEAN]
    if MEAN in table.rows:
        body += [r"\midrule", _tex_row(MEAN, table.rows[MEAN], _tex_cell)]
    return [
        rf"\begin{{tabular}}{{l{'c' * len(heads)}}}",
        r"\toprule",
        " & ".join(["object", *heads]) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _tex_row(name: str, row: Sequence[Figure], words: Callable[[Figure], str]) -> str:
    return " & ".join([_tex(name), *map(words, row)]) + r" \\"


def _tex_cell(figure: Figure) -> str:
    around = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}[figure.rank]
    words = around.format(_tex(figure.text) + (rf" $\pm$ {figure.deviation}" if figure.deviation else ""))
    return words + (f"$^{{({figure.seeds})}}$" if figure.seeds else "")


def _tex(text: str) -> str:
    return " ".join(text.split()).translate(TEX)
