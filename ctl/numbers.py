# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for people; --json has the exact ones. Pure."""

from __future__ import annotations

import time

_UNITS = ("KiB", "MiB", "GiB", "TiB")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def format_bytes(count: float) -> str:
    if abs(count) < 1024:
        return f"{count:.0f} B"
    for unit in _UNITS:
        count /= 1024
        if abs(count) < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{count:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """The two largest units: `3 h 12 min`; short spans with their fraction: `0.25 s`, `1.5 ms`."""
    if seconds < 0.001:
        return f"{max(seconds, 0) * 1e6:.3g} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    parts = []
    for length, unit in _SPANS:
        count, rest = divmod(rest, length)
        parts.append((count, unit))
    first = next(i for i, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def format_ago(time_s: float, now_s: float) -> str:
    return f"{format_duration(max(now_s - time_s, 0))} ago" if now_s - time_s >= 1 else "just now"


def format_count(count: int) -> str:
    return f"{count:,}"


def format_plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_time(time_s: float) -> str:
    """Local time, seconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def format_evidence(name: str, number: float) -> str:
    """A measured number by the unit that ends its name: `rtt_us` 1500 -> `rtt 1.5 ms`."""
    stem, _, unit = name.rpartition("_")
    match unit:
        case "bytes":
            return f"{stem} {format_bytes(number)}"
        case "ns" | "us" | "ms" | "s":
            scale = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]
            return f"{stem} {format_duration(number * scale)}"
        case "permille":
            return f"{stem} {number / 10:g} %"
    return f"{name} {number:,}" if isinstance(number, int) else f"{name} {number:.4g}"
