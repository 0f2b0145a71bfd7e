# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from bpftune.workers.wakeups import SOONEST_NS, WakeUps


def test_none_is_granted_sooner_than_a_second() -> None:
    wakeups = WakeUps()
    wakeups.ask(1, 5, now_ns=10)
    assert wakeups.take_due(10 + SOONEST_NS - 1) == []
    assert wakeups.take_due(10 + SOONEST_NS) == [1]
    assert wakeups.take_due(10 + SOONEST_NS) == []


def test_a_later_wish_replaces_the_earlier_and_none_withdraws_it() -> None:
    wakeups = WakeUps()
    wakeups.ask(1, 3 * SOONEST_NS, now_ns=0)
    wakeups.ask(1, 5 * SOONEST_NS, now_ns=0)
    wakeups.ask(2, 3 * SOONEST_NS, now_ns=0)
    wakeups.ask(2, None, now_ns=0)
    assert wakeups.take_due(4 * SOONEST_NS) == []
    assert wakeups.take_due(5 * SOONEST_NS) == [1]


def test_the_timeout_is_rounded_up_so_that_nobody_wakes_for_nothing() -> None:
    wakeups = WakeUps()
    assert wakeups.timeout_ms(0) is None
    wakeups.ask(1, SOONEST_NS, now_ns=0)
    assert wakeups.timeout_ms(1) == 1000
    assert wakeups.timeout_ms(2 * SOONEST_NS) == 0
