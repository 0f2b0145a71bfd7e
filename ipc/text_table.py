# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables as aligned text. The daemon prints the tuners' tables with it at exit, bpftune-ctl every table.

Cells are wrapped, never cut, when a table must fit a width: nothing that was measured goes missing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from bpftune.ipc.messages import Table
from bpftune.ipc.printable import printable

Cell = str | int | float
Row = Sequence[Cell]

GAP = "  "
NARROWEST = 6


def format_table(table: Table, width: int | None = None) -> list[str]:
    """The title, then the columns; an empty table is its title and "(nothing yet)"."""
    title = f"{printable(table.title)}:"
    if not table.rows:
        return [*_wrap(title, width), "  (nothing yet)"]
    inner = None if width is None else width - 2
    return [*_wrap(title, width), *(f"  {line}" for line in format_columns(table.columns, table.rows, inner))]


def format_columns(columns: Sequence[str], rows: Sequence[Row], width: int | None = None) -> list[str]:
    """Header and rows, numbers to the right. With a width, no line is longer (at 20 or more)."""
    right = [bool(rows) and all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    cells = _format_cells(columns, rows)
    widths = _natural_widths(cells)
    if width is not None:
        longest = [max(_longest_word(row[i]) for row in cells) for i in range(len(columns))]
        widths = shrink(widths, longest, width - len(GAP) * (len(columns) - 1))
    return [line for row in cells for line in _lines(row, widths, right)]


def fits(columns: Sequence[str], rows: Sequence[Row], width: int | None) -> bool:
    """Whether the table needs no wrapping, for callers that have a better form for narrow screens."""
    widths = _natural_widths(_format_cells(columns, rows))
    return width is None or sum(widths) + len(GAP) * (len(columns) - 1) <= width


def format_cell(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 else f"{cell:.0f}"
    return printable(cell) if isinstance(cell, str) else str(cell)


def shrink(widths: Sequence[int], longest_words: Sequence[int], room: int) -> list[int]:
    """Take from the widest column until all fit; words are broken only when nothing else helps."""
    fitted = list(widths)
    for floors in (longest_words, [NARROWEST] * len(fitted), [1] * len(fitted)):
        while sum(fitted) > room:
            shrinkable = [i for i, floor in enumerate(floors) if fitted[i] > floor]
            if not shrinkable:
                break
            fitted[max(shrinkable, key=lambda i: fitted[i])] -= 1
    return fitted


def _format_cells(columns: Sequence[str], rows: Sequence[Row]) -> list[list[str]]:
    return [[printable(name) for name in columns], *([format_cell(cell) for cell in row] for row in rows)]


def _natural_widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _wrap(text: str, width: int | None) -> list[str]:
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(text, max(width, 1), break_on_hyphens=False) or [""]


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    wrapped = [_wrap(text, width) for text, width in zip(row, widths, strict=True)]
    return [
        GAP.join(
            (parts[n] if n < len(parts) else "").rjust(width)
            if to_right
            else (parts[n] if n < len(parts) else "").ljust(width)
            for parts, width, to_right in zip(wrapped, widths, right, strict=True)
        ).rstrip()
        for n in range(max(map(len, wrapped)))
    ]
