# SPDX-License-Identifier: GPL-2.0-or-later
"""The last rung of a ladder: a counter in /proc that is read at least a second apart.

A poller builds the same record that the probe would have written, so that everything behind the
ring buffer is the same. It exists only for probes whose every hook the kernel refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from bpftune.ipc.declaration import Declaration, Poll
from bpftune.ipc.messages import Value
from bpftune.ipc.record import HEADER, payload_struct
from bpftune.supervisor.loop import Loop, Timer


class Poller:
    """Reads `poll.file` in the initial namespace and emits a record when it is nearly full."""

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
        self._timer: Timer | None = loop.call_later(poll.interval_s, self._turn)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        self._timer = self._loop.call_later(self._poll.interval_s, self._turn)
        limit_value = self._read_limit(self._poll.limit)
        if limit_value is None:
            return
        try:
            value = parse_counter(self._path.read_text(), self._pattern, self._poll.base)
        except (OSError, ValueError) as error:
            self.close()
            self._failed(f"cannot poll {self._path}: {error}; scenario '{self._poll.scenario}' is lost")
            return
        limit = limit_value[self._poll.limit_field]
        if value + (limit >> self._shift) >= limit:
            self._emit(self._record(value, limit))

    def _record(self, value: int, limit: int) -> bytes:
        index = [scenario.id for scenario in self._declaration.scenarios].index(self._poll.scenario)
        fields = self._declaration.scenarios[index].fields
        given = {self._poll.value_event_field: value, self._poll.limit_event_field: limit}
        numbers = [number for field in fields for number in [given.get(field.name, 0)] * max(1, field.count)]
        header = HEADER.pack(time.monotonic_ns(), self._netns_cookie, 0, self._declaration.id, index, 0, 0)
        return header + payload_struct(fields).pack(*numbers)


def parse_counter(text: str, pattern: re.Pattern[str], base: int) -> int:
    """The sum of all integers that the pattern's group finds."""
    return sum(int(found, base) for found in pattern.findall(text))
