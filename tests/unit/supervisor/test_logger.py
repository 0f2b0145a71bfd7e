# SPDX-License-Identifier: GPL-2.0-or-later
"""The logger with a clock of our own: levels, escapes, folding, what followers get."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpftune.ipc.control import LogEvent
from bpftune.supervisor.folding import FIRST_WINDOW_S, MAX_LINES
from bpftune.supervisor.logger import Logger, MessageId, Priority
from bpftune.supervisor.loop import Loop, Timer

SECOND_NS = 1_000_000_000


class FakeLoop(Loop):
    """Keeps timers for `advance` instead of waiting for them."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.timers: list[Timer] = []

    def call_at(self, at_ns: int, callback: Callable[[], None]) -> Timer:
        timer = Timer(at_ns, callback)
        self.timers.append(timer)
        return timer

    @property
    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if timer.pending]

    def advance(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS
        for timer in self.pending:
            if timer.at_ns <= self.now_ns:
                timer.fire()


class ListSink:
    def __init__(self) -> None:
        self.written: list[tuple[LogEvent, str]] = []
        self.closed = False

    def write(self, event: LogEvent, message_id: str) -> None:
        self.written.append((event, message_id))

    def close(self) -> None:
        self.closed = True

    @property
    def messages(self) -> list[str]:
        return [event.message for event, _ in self.written]


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def published() -> list[LogEvent]:
    return []


@pytest.fixture
def logger(loop: FakeLoop, sink: ListSink, published: list[LogEvent]) -> Logger:
    return Logger(
        sink, loop=loop, publish=published.append, now_ns=lambda: loop.now_ns, now_s=lambda: 1700000000.5
    )


def test_fields_reach_sink_and_followers(logger: Logger, sink: ListSink, published: list[LogEvent]) -> None:
    logger.log(
        Priority.NOTICE, "changed", tuner="t", tunable="a.b", scenario="s", netns="blue",
        old="1", new="2", change_id=7, message_id=MessageId.CHANGE,
    )  # fmt: skip

    expected = LogEvent(
        time_s=1700000000.5, priority=5, message="changed", tuner="t", tunable="a.b", scenario="s",
        netns="blue", old="1", new="2", change_id=7,
    )  # fmt: skip
    assert sink.written == [(expected, MessageId.CHANGE)]
    assert published == [expected]


def test_debug_lines_only_when_asked_for(logger: Logger, sink: ListSink, loop: FakeLoop) -> None:
    logger.debug("quiet")
    Logger(sink, loop=loop, debug=True).debug("loud")

    assert sink.messages == ["loud"]


def test_nobody_forges_a_second_line(logger: Logger, sink: ListSink) -> None:
    logger.log(Priority.INFO, "cmd 'a\nbpftune: b\x1b[2J'", tuner="x\ny")

    event, _ = sink.written[0]
    assert event.message == r"cmd 'a\nbpftune: b\x1b[2J'"
    assert event.tuner == r"x\ny"


def test_repeated_lines_are_folded_and_reported_once(logger: Logger, sink: ListSink, loop: FakeLoop) -> None:
    for _ in range(4):
        logger.info("again")
    logger.info("other")

    assert sink.messages == ["again", "other"]
    loop.advance(FIRST_WINDOW_S)
    assert sink.messages == ["again", "other", "again (repeated 3 times in 10 s)"]
    assert not loop.pending


def test_a_line_that_is_not_repeated_needs_no_timer(logger: Logger, loop: FakeLoop) -> None:
    logger.info("once")

    assert not loop.timers


def test_a_line_is_shown_again_after_a_quiet_window(logger: Logger, sink: ListSink, loop: FakeLoop) -> None:
    logger.info("now and then")
    loop.advance(FIRST_WINDOW_S)
    logger.info("now and then")

    assert sink.messages == ["now and then"] * 2


def test_a_line_that_keeps_coming_is_reported_ever_less_often(
    logger: Logger, sink: ListSink, loop: FakeLoop
) -> None:
    for _ in range(75):
        logger.info("again")
        loop.advance(1)

    assert [text.rpartition(" in ")[2] for text in sink.messages[1:]] == ["10 s)", "20 s)", "40 s)"]


def test_different_namespaces_and_levels_are_different_lines(logger: Logger, sink: ListSink) -> None:
    logger.log(Priority.INFO, "same", netns="a")
    logger.log(Priority.INFO, "same", netns="b")
    logger.log(Priority.WARNING, "same", netns="b")

    assert len(sink.written) == 3


def test_lines_of_one_fold_key_count_as_one(logger: Logger, sink: ListSink, loop: FakeLoop) -> None:
    for number in range(3):
        logger.log(Priority.INFO, f"would change to {number}", fold="observe a.b")
    loop.advance(FIRST_WINDOW_S)

    assert sink.messages == ["would change to 0", "would change to 2 (repeated 2 times in 10 s)"]


def test_a_change_in_the_ledger_is_never_folded(logger: Logger, sink: ListSink) -> None:
    for _ in range(2):
        logger.log(Priority.NOTICE, "change a.b from (1) -> (2)", change_id=7)

    assert len(sink.written) == 2


def test_close_reports_what_is_still_folded(logger: Logger, sink: ListSink, loop: FakeLoop) -> None:
    for _ in range(3):
        logger.info("again")
    loop.now_ns += 4 * SECOND_NS
    logger.close()

    assert sink.messages == ["again", "again (repeated 2 times in 4 s)"]
    assert sink.closed
    assert not loop.pending


def test_memory_for_different_lines_is_bounded(logger: Logger, sink: ListSink, loop: FakeLoop) -> None:
    logger.info("first")
    logger.info("first")
    for number in range(MAX_LINES):
        logger.info(f"line {number}")

    assert "first (repeated 1 time in 1 s)" in sink.messages
    assert not loop.pending
