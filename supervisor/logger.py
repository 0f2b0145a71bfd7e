# SPDX-License-Identifier: GPL-2.0-or-later
"""Every line that bpftune logs: to the journal, syslog or stderr, and to those who follow events.

One object for the whole supervisor. It makes lines safe to show, folds repeated ones, and never
fails: a log that cannot be written must not stop the tuning.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol

import msgspec

from bpftune.ipc.control import LogEvent
from bpftune.ipc.printable import printable
from bpftune.supervisor.folding import Folding
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.wording import repeated_line


class Priority(IntEnum):
    """The levels of syslog(3)."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


class MessageId(StrEnum):
    """Journal messages that programs match on and that systemd/bpftune.catalog explains."""

    CHANGE = "1bf66c7b7ea941538f504635ac46ec54"
    OVERRIDE = "d2f79fa0812d43c582500146cf0e8b65"
    WORKER_FAILED = "1517bbddf7a14503aaaa78cf4b22fbcb"


class Sink(Protocol):
    """One place that lines go to. `write` never raises."""

    def write(self, event: LogEvent, message_id: str) -> None: ...

    def close(self) -> None: ...


class _Line(NamedTuple):
    event: LogEvent
    message_id: str


class Logger:
    """`publish` hands each line to the events socket; None: nobody can follow."""

    def __init__(
        self,
        sink: Sink,
        *,
        loop: Loop,
        publish: Callable[[LogEvent], None] | None = None,
        debug: bool = False,
        now_ns: Callable[[], int] = time.monotonic_ns,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._sink = sink
        self._publish = publish
        self._lowest = Priority.DEBUG if debug else Priority.INFO
        self._now_s = now_s
        self._folding: Folding[_Line] = Folding(loop=loop, report=self._report, now_ns=now_ns)

    def log(
        self,
        priority: int,
        message: str,
        *,
        tuner: str = "",
        tunable: str = "",
        scenario: str = "",
        netns: str = "",
        old: str = "",
        new: str = "",
        change_id: int = 0,
        message_id: MessageId | None = None,
        fold: str = "",
    ) -> None:
        """Log one line. Control characters in it become visible escapes, newlines too: pass lines.

        Lines of one `fold` key and tuner are folded together although their text differs (numbers that
        move with every event, names); without one only equal lines are.
        """
        if priority > self._lowest:
            return
        event = LogEvent(
            time_s=0,
            priority=priority,
            message=printable(message),
            tuner=printable(tuner),
            tunable=printable(tunable),
            scenario=printable(scenario),
            netns=printable(netns),
            old=printable(old),
            new=printable(new),
            change_id=change_id,
        )
        # A change that has a number is in the ledger: the log then has it too, each one.
        line = _Line(event, message_id or "")
        key = (fold, priority, tuner) if fold else line
        if change_id or self._folding.admit(key, line):
            self._send(line)

    def error(self, message: str, *, tuner: str = "") -> None:
        self.log(Priority.ERROR, message, tuner=tuner)

    def warning(self, message: str, *, tuner: str = "") -> None:
        self.log(Priority.WARNING, message, tuner=tuner)

    def notice(self, message: str, *, tuner: str = "") -> None:
        self.log(Priority.NOTICE, message, tuner=tuner)

    def info(self, message: str, *, tuner: str = "") -> None:
        self.log(Priority.INFO, message, tuner=tuner)

    def debug(self, message: str, *, tuner: str = "") -> None:
        self.log(Priority.DEBUG, message, tuner=tuner)

    def close(self) -> None:
        """Report what is still folded, then let go of the sink."""
        self._folding.flush()
        self._sink.close()

    def _report(self, line: _Line, count: int, seconds: int) -> None:
        message = repeated_line(line.event.message, count=count, seconds=seconds)
        self._send(_Line(msgspec.structs.replace(line.event, message=message), line.message_id))

    def _send(self, line: _Line) -> None:
        stamped = msgspec.structs.replace(line.event, time_s=self._now_s())
        self._sink.write(stamped, line.message_id)
        if self._publish is not None:
            self._publish(stamped)
