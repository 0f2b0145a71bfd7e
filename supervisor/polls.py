# SPDX-License-Identifier: GPL-2.0-or-later
"""A counter in /proc that is read at least a second apart: for probes whose every hook the kernel
refused, or while a probe's events call for it.

A poller builds the same record that the probe would have written, so that everything behind the
ring buffer is the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from bpftune.ipc.declaration import Declaration, EventField, Poll
from bpftune.ipc.messages import Value
from bpftune.ipc.record import HEADER, payload_struct
from bpftune.supervisor.loop import Loop, Timer


class Poller:
    """Reads `poll.file` in the initial namespace and emits a record when it is nearly full or has grown.

    With `poll.follows` it sleeps until `follow` is called, and again when those calls cease.
    """

    def __init__(
        self,
        *,
        loop: Loop,
        declaration: Declaration,
        poll: Poll,
        shift: int,
        netns_cookie: int,
        read_limit: Callable[[str], Value | None],
        emit: Callable[[bytes], None],
        failed: Callable[[str], None],
        root: Path = Path("/"),
    ) -> None:
        self._loop = loop
        self._declaration = declaration
        self._poll = poll
        self._pattern = re.compile(poll.match, re.MULTILINE)
        self._shift = shift
        self._netns_cookie = netns_cookie
        self._read_limit = read_limit
        self._emit = emit
        self._failed = failed
        self._path = root / poll.file.lstrip("/")
        self._followed_until_ns = 0
        self._last: tuple[int, int] | None = None
        """The sum and when it was read, where the next reading has to be compared with it."""
        self._closed = False
        self._timer: Timer | None = None
        if not poll.follows:
            self._begin()

    def follow(self, scenario: str) -> None:
        """An event of `scenario` came from the probe."""
        if self._closed or scenario != self._poll.follows:
            return
        self._followed_until_ns = time.monotonic_ns() + self._poll.follow_s * 1_000_000_000
        if self._timer is None:
            self._begin()

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        if self._poll.rise:
            self._last = self._read()
        self._wait()

    def _wait(self) -> None:
        if not self._closed:
            self._timer = self._loop.call_later(self._poll.interval_s, self._turn)

    def _turn(self) -> None:
        self._timer = None
        self._compare_with_last() if self._poll.rise else self._compare_with_limit()
        if not self._poll.follows or time.monotonic_ns() < self._followed_until_ns:
            self._wait()

    def _compare_with_limit(self) -> None:
        limit_value = self._read_limit(self._poll.limit)
        reading = self._read() if limit_value is not None else None
        if limit_value is None or reading is None:
            return
        value, limit = reading[0], limit_value[self._poll.limit_field]
        if value + (limit >> self._shift) >= limit:
            self._emit(
                self._record({self._poll.value_event_field: value, self._poll.limit_event_field: limit})
            )

    def _compare_with_last(self) -> None:
        last, self._last = self._last, self._read()
        if last is None or self._last is None:
            return
        grown, interval_ns = self._last[0] - last[0], self._last[1] - last[1]
        if grown >= self._poll.rise:
            self._emit(
                self._record(
                    {self._poll.value_event_field: grown, self._poll.interval_event_field: interval_ns}
                )
            )

    def _read(self) -> tuple[int, int] | None:
        """None: it cannot be read, which was said and ends the polling."""
        try:
            return parse_counter(self._path.read_text(), self._pattern, self._poll.base), time.monotonic_ns()
        except (OSError, ValueError) as error:
            self.close()
            self._failed(f"cannot poll {self._path}: {error}; scenario '{self._poll.scenario}' is lost")
            return None

    def _record(self, given: dict[str, int]) -> bytes:
        index = [scenario.id for scenario in self._declaration.scenarios].index(self._poll.scenario)
        fields = self._declaration.scenarios[index].fields
        numbers = [
            number
            for field in fields
            for number in [_fit(field, given.get(field.name, 0))] * max(1, field.count)
        ]
        header = HEADER.pack(time.monotonic_ns(), self._netns_cookie, 0, self._declaration.id, index, 0, 0)
        return header + payload_struct(fields).pack(*numbers)


def _fit(field: EventField, number: int) -> int:
    """As much of the number as the field holds: a count that outgrew it is still a large one."""
    bits = int(field.type[1:])
    lowest, highest = (
        (-(1 << bits - 1), (1 << bits - 1) - 1) if field.type[0] == "s" else (0, (1 << bits) - 1)
    )
    return min(max(number, lowest), highest)


def parse_counter(text: str, pattern: re.Pattern[str], base: int) -> int:
    """The sum of all integers that the pattern's group finds."""
    return sum(int(found, base) for found in pattern.findall(text))
