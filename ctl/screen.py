# SPDX-License-Identifier: GPL-2.0-or-later
"""What the output goes to: how wide it is, whether it shows colours, what time it is there.

On a terminal, and where COLUMNS says so, lines are wrapped to the width. Into a pipe or file every line
stays whole, so that grep finds it.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bpftune.ipc.printable import printable

NARROWEST = 40
LABEL_COLUMNS = 12


class Colour(StrEnum):
    BOLD = "1"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    width: int | None
    """Columns; None: lines are not wrapped."""
    colour: bool
    now_s: float

    def paint(self, text: str, colour: Colour | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour and colour is not None else text

    def wrap(self, text: str, *, indent: int = 0, hang: int | None = None) -> list[str]:
        """`text` in lines, the first indented by `indent`, the others by `hang` (None: as the first)."""
        first = " " * indent
        rest = " " * (indent if hang is None else hang)
        text = printable(text)
        if self.width is None or indent + len(text) <= self.width:
            return [first + text]
        return textwrap.wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=rest,
            break_on_hyphens=False,
        )

    def field(self, label: str, text: str) -> list[str]:
        """`  label      text`, the text kept in its column."""
        lines = self.wrap(text, indent=2 + LABEL_COLUMNS)
        return [f"  {label:<{LABEL_COLUMNS}}{lines[0].lstrip()}", *lines[1:]]


def detect_screen(fd: int | None, environ: Mapping[str, str], now_s: float) -> Screen:
    """`fd`: where stdout goes, None when it is closed."""
    terminal = fd is not None and os.isatty(fd)
    colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Screen(width=_width(fd if terminal else None, environ), colour=colour, now_s=now_s)


def _width(fd: int | None, environ: Mapping[str, str]) -> int | None:
    columns = environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return max(int(columns), NARROWEST)
    if fd is None:
        return None
    try:
        return max(os.get_terminal_size(fd).columns or 80, NARROWEST)
    except OSError:
        return 80
