# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from bpftune.supervisor.child_output import BURST_LINES, MAX_LINE_BYTES, ChildOutput, format_line
from bpftune.supervisor.loop import Loop


@dataclass
class Piped:
    loop: Loop = field(default_factory=Loop)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        reading, self.writing = os.pipe()
        self.output = ChildOutput(self.loop, reading, self.lines.append)

    def write(self, data: bytes) -> None:
        os.write(self.writing, data)
        self.loop.run_once(0)


@pytest.fixture
def piped() -> Iterator[Piped]:
    made = Piped()
    yield made
    made.output.close()
    os.close(made.writing)


def test_lines_come_whole_however_they_are_written(piped: Piped) -> None:
    for data in (b"on", b"e\ntwo\n\nth", b"ree\n"):
        piped.write(data)
    assert piped.lines == ["one", "two", "three"]


def test_the_last_words_count_without_a_newline(piped: Piped) -> None:
    os.write(piped.writing, b"first\nlast words")
    piped.output.close()
    assert piped.lines == ["first", "last words"]


def test_a_long_line_is_cut_once(piped: Piped) -> None:
    for _ in range(5):
        piped.write(b"x" * MAX_LINE_BYTES)
    piped.write(b"\nnext\n")
    assert [len(line) for line in piped.lines] == [MAX_LINE_BYTES + len(" [cut]"), 4]


def test_what_exceeds_the_rate_is_counted(piped: Piped) -> None:
    piped.write(b"x\n" * (BURST_LINES + 40))
    piped.output.close()
    assert piped.lines == ["x"] * BURST_LINES + ["40 lines dropped"]


def test_nothing_reaches_a_terminal_or_forges_a_line() -> None:
    assert format_line(b"\x1b[31mred\rover \xff") == "\\x1b[31mred\\rover \\xff"
