# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for people."""

from __future__ import annotations

import pytest

from bpftune.ctl.numbers import format_ago, format_bytes, format_duration, format_evidence


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (4_823_449, "4.6 MiB"),
        (5 * 1024**4, "5.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_bytes(count: int, shown: str) -> None:
    assert format_bytes(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 us"),
        (0, "0 us"),
        (0.0000015, "1.5 us"),
        (0.12, "120 ms"),
        (1.44, "1.4 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (11520, "3 h 12 min"),
        (86400, "1 d"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


def test_ago() -> None:
    assert format_ago(100, 340) == "4 min ago"
    assert format_ago(100, 100.5) == "just now"
    assert format_ago(200, 100) == "just now"


@pytest.mark.parametrize(
    ("name", "number", "shown"),
    [
        ("rcvbuf_bytes", 6291456, "rcvbuf 6.0 MiB"),
        ("rtt_us", 50120, "rtt 50.1 ms"),
        ("loss_permille", 15, "loss 1.5 %"),
        ("entries", 12000, "entries 12,000"),
        ("correlation", 0.71234, "correlation 0.7123"),
    ],
)
def test_evidence_by_its_unit(name: str, number: float, shown: str) -> None:
    assert format_evidence(name, number) == shown
