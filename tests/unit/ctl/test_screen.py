# SPDX-License-Identifier: GPL-2.0-or-later
"""Width and colour follow what stdout is."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator, Mapping

import pytest

from bpftune.ctl.screen import detect_screen


@pytest.fixture
def terminal() -> Iterator[int]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    yield slave
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize(
    ("environ", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_has_colour_unless_told(terminal: int, environ: Mapping[str, str], colour: bool) -> None:
    screen = detect_screen(terminal, environ, 0)

    assert screen.colour is colour
    assert screen.width == 100


def test_a_pipe_has_neither_width_nor_colour() -> None:
    reader, writer = os.pipe()
    screen = detect_screen(writer, {"TERM": "xterm"}, 0)
    os.close(reader)
    os.close(writer)

    assert (screen.width, screen.colour) == (None, False)


@pytest.mark.parametrize(
    ("columns", "width"), [("120", 120), ("10", 40), ("", None), ("wide", None), ("0", None)]
)
def test_columns_says_how_wide(columns: str, width: int | None) -> None:
    assert detect_screen(None, {"COLUMNS": columns}, 0).width == width


def test_fields_keep_their_column() -> None:
    screen = detect_screen(None, {"COLUMNS": "40"}, 0)

    assert screen.field("label", "one two three four five six seven") == [
        "  label       one two three four five",
        "              six seven",
    ]
