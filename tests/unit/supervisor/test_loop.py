# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import time

import zmq

from bpftune.supervisor.loop import Loop


def test_due_timers_fire_in_order_and_once() -> None:
    loop = Loop()
    fired: list[int] = []
    now_ns = time.monotonic_ns()
    for number in (3, 1, 2):
        loop.call_at(now_ns - 10 + number, lambda number=number: fired.append(number))  # type: ignore[misc]
    loop.run_once(0)
    loop.run_once(0)
    assert fired == [1, 2, 3]


def test_a_cancelled_timer_neither_fires_nor_wakes() -> None:
    loop = Loop()
    timer = loop.call_later(0, lambda: 1 / 0)  # type: ignore[arg-type]
    timer.cancel()
    loop.run_once(0)
    assert not timer.pending
    assert loop._timeout_ms() is None


def test_without_timers_the_loop_waits_for_ever() -> None:
    assert Loop()._timeout_ms() is None


def test_a_timer_is_never_polled_for_too_early() -> None:
    loop = Loop()
    loop.call_later(0.5, loop.stop)
    timeout_ms = loop._timeout_ms()
    assert timeout_ms is not None
    assert 0 < timeout_ms <= 501


def test_descriptors_and_sockets_are_served() -> None:
    loop = Loop()
    context = zmq.Context()
    left, right = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    left.bind("inproc://pair")
    right.connect("inproc://pair")
    read_fd, write_fd = os.pipe()
    seen: list[bytes] = []
    loop.watch(read_fd, lambda: seen.append(os.read(read_fd, 8)))
    loop.watch(right, lambda: seen.append(right.recv()))
    os.write(write_fd, b"pipe")
    left.send(b"zmq")
    deadline_ns = time.monotonic_ns() + 5_000_000_000
    while len(seen) < 2 and time.monotonic_ns() < deadline_ns:
        loop.run_once(100)
    assert sorted(seen) == [b"pipe", b"zmq"]
    loop.unwatch(read_fd)
    os.write(write_fd, b"unheard")
    loop.run_once(0)
    assert len(seen) == 2
    for descriptor in (read_fd, write_fd):
        os.close(descriptor)
    context.destroy(linger=0)


def test_a_source_unwatched_by_another_callback_is_not_called() -> None:
    loop = Loop()
    pipes = [os.pipe(), os.pipe()]
    calls: list[int] = []

    def serve(own: int, other: int) -> None:
        calls.append(own)
        loop.unwatch(other)
        loop.unwatch(own)

    for own, other in ((0, 1), (1, 0)):
        loop.watch(pipes[own][0], lambda own=own, other=other: serve(pipes[own][0], pipes[other][0]))  # type: ignore[misc]
        os.write(pipes[own][1], b"x")
    loop.run_once(0)
    assert len(calls) == 1
    for pair in pipes:
        for descriptor in pair:
            os.close(descriptor)
