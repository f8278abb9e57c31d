"""A list on a terminal: a table where it fits, else a few lines for each row. Nothing is ever cut, ids least of all."""

import textwrap
from collections.abc import Sequence
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LINES_EACH = 4  # a row that is folded into more reads worse than one in words


def print_table(out: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` to the terminal `out`, as it is wide enough for."""
    console = Console(file=out)
    widths = _widths(columns, rows, console.width)
    if widths is not None:
        table = _table(columns, rows, widths)
        if len(console.render_lines(table, pad=False)) <= _LINES_EACH * (len(rows) + 1):
            console.print(table)
            return
    for row in rows:
        print(in_words(columns, row, console.width), file=out)


def in_words(columns: Sequence[str], row: Sequence[str], width: int) -> str:
    """A row without a table: its first two cells, and below them the others that have something, each with its name."""
    told = [f"{name.lower()} {cell}" for name, cell in zip(columns[2:], row[2:], strict=True) if cell != "-"]
    below = textwrap.wrap(
        ", ".join(told),
        width,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(["  ".join(row[:2]), *below])


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """A width for each column in which no word is broken; None where there is no room for all.

    What is left over goes to the last columns first: there the sentences are.
    """
    cells_of = [list(cells) for cells in zip(columns, *rows, strict=True)]
    widths = [max(len(word) for cell in cells for word in cell.split()) for cells in cells_of]
    spare = width - sum(widths) - 2 * len(columns) - 1  # two blanks between columns, one at each edge
    if spare < 0:
        return None
    for number in reversed(range(len(columns))):
        more = min(spare, max(map(len, cells_of[number])) - widths[number])
        widths[number] += more
        spare -= more
    return widths


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in zip(columns, widths, strict=True):
        table.add_column(name, width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: names may hold what rich takes for markup
    return table
