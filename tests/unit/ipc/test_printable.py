# SPDX-License-Identifier: GPL-2.0-or-later
"""What others named cannot forge lines or drive a terminal."""

from __future__ import annotations

import pytest

from bpftune.ipc.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve, 日本", "plain, naïve, 日本"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202ereversed", r"\u202ereversed"),
        ("lone \udc80", r"lone \udc80"),
    ],
)
def test_controls_become_visible(text: str, shown: str) -> None:
    assert printable(text) == shown
