# SPDX-License-Identifier: GPL-2.0-or-later
"""The value of each tunable as the supervisor last saw or wrote it.

Filled by decision.py and rollback.py; sysctl_judge.py compares it with what it finds, to tell our
own writes and workers that are merely behind from somebody else's writes. mirror.py is told every
value. Memory only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bpftune.ipc.messages import Value


@dataclass(frozen=True, slots=True)
class Known:
    value: Value
    written_ns: int
    """CLOCK_MONOTONIC just after our last write; 0: never written by us."""


class KnownValues:
    def __init__(self, noted: Callable[[int, str, Value], None] = lambda *_: None) -> None:
        """`noted` gets cookie, tunable and value each time, also when it is no news."""
        self._noted = noted
        self._values: dict[tuple[int, str], Known] = {}

    def get(self, cookie: int, tunable: str) -> Known | None:
        """`cookie` is GLOBAL for tunables of global scope."""
        return self._values.get((cookie, tunable))

    def saw(self, cookie: int, tunable: str, value: Value) -> None:
        known = self._values.get((cookie, tunable))
        self._values[cookie, tunable] = Known(value, known.written_ns if known else 0)
        self._noted(cookie, tunable, value)

    def wrote(self, cookie: int, tunable: str, value: Value) -> None:
        """Call right after the write, with the value that was read back."""
        self._values[cookie, tunable] = Known(value, time.monotonic_ns())
        self._noted(cookie, tunable, value)

    def forget(self, cookie: int) -> None:
        self._values = {key: known for key, known in self._values.items() if key[0] != cookie}
