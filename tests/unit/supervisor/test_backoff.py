# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from bpftune.supervisor.backoff import CRASHES_ALLOWED, LONGEST_DELAY_S, WINDOW_S, Backoff

SECOND_NS = 1_000_000_000


def test_delays_double_and_too_many_crashes_end_them() -> None:
    backoff = Backoff()
    delays = [backoff.crashed(number) for number in range(CRASHES_ALLOWED + 1)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, None]


def test_a_slow_loop_goes_on_at_the_longest_delay() -> None:
    backoff = Backoff()
    every_ns = (WINDOW_S // CRASHES_ALLOWED + 1) * SECOND_NS
    delays = [backoff.crashed(number * every_ns) for number in range(20)]
    assert delays[-1] == LONGEST_DELAY_S
    assert None not in delays


def test_a_quiet_minute_resets_the_delay() -> None:
    backoff = Backoff()
    for number in range(3):
        backoff.crashed(number)
    assert backoff.crashed((WINDOW_S + 1) * SECOND_NS) == 0.2


def test_clear_forgets_the_crashes() -> None:
    backoff = Backoff()
    for number in range(CRASHES_ALLOWED + 1):
        backoff.crashed(number)
    backoff.clear()
    assert backoff.crashed(CRASHES_ALLOWED + 2) == 0.2
