# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.ipc.bounds import QUANTITIES, parse_bound

KNOWN = {name: number for number, name in enumerate(sorted(QUANTITIES), start=7)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", 42),
        ("memory_bytes", KNOWN["memory_bytes"]),
        ("memory_bytes/3", KNOWN["memory_bytes"] // 3),
        (" prefix_hosts * 4 ", KNOWN["prefix_hosts"] * 4),
        ("min(2147483647, memory_pages/2)", KNOWN["memory_pages"] // 2),
        ("min(1048576, max(256, prefix_hosts*4))", 256),
        ("max(original,6291456)", 6291456),
    ],
)
def test_formulas_compute_what_they_say(text: str, expected: int) -> None:
    assert parse_bound(text)(KNOWN) == expected


@pytest.mark.parametrize(
    "text",
    ["", "min", "min()", "min(1", "min(1,", "1 2", "memory", "original/0", "original*", "max(1;2)", "-1"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"bound|quantity|expected|needs"):
        parse_bound(text)


@given(st.text(alphabet="minaxorgl_0123456789(),*/ ", max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        formula = parse_bound(text)
    except ValueError:
        return
    assert isinstance(formula(KNOWN), int)
