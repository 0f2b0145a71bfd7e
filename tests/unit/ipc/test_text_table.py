# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables as text: aligned, wrapped to a width, never cut."""

from __future__ import annotations

import pytest

from bpftune.ipc.messages import Table
from bpftune.ipc.text_table import Row, format_columns, format_table

ROWS: list[Row] = [["net.ipv4.tcp_rmem", "4096 131072 6291456", 7], ["x", "1", 12000]]


def test_text_stands_left_and_numbers_right() -> None:
    assert format_columns(["NAME", "VALUE", "N"], ROWS) == [
        "NAME               VALUE                    N",
        "net.ipv4.tcp_rmem  4096 131072 6291456      7",
        "x                  1                    12000",
    ]


@pytest.mark.parametrize("width", [20, 30, 40, 60])
def test_nothing_is_cut_to_fit(width: int) -> None:
    lines = format_columns(["NAME", "VALUE", "N"], ROWS, width)

    assert max(map(len, lines)) <= width
    kept = sorted("".join(lines).replace(" ", ""))
    whole = sorted("".join(format_columns(["NAME", "VALUE", "N"], ROWS)).replace(" ", ""))
    assert kept == whole


def test_words_are_kept_whole_while_there_is_room() -> None:
    assert format_columns(["NAME", "VALUE"], [["net.ipv4.tcp_rmem", "4096 131072 6291456"]], 32) == [
        "NAME               VALUE",
        "net.ipv4.tcp_rmem  4096 131072",
        "                   6291456",
    ]


def test_control_characters_are_shown() -> None:
    assert format_columns(["A"], [["x\x1b[2J\ny"]])[1] == r"x\x1b[2J\ny"


def test_an_empty_table_says_so() -> None:
    assert format_table(Table(title="Routes", columns=["a"], rows=[])) == ["Routes:", "  (nothing yet)"]


def test_floats_are_short() -> None:
    assert format_columns(["F"], [[0.123456], [1234567.8]]) == ["      F", " 0.1235", "1234568"]
