# SPDX-License-Identifier: GPL-2.0-or-later
"""Growths are judged by what they bought, after enough of it was seen."""

from __future__ import annotations

import msgspec
import pytest

from bpftune.tuners import evidence
from bpftune.tuners.evidence import Evidence, Sample, Verdict

MS = 1_000_000
SECOND = 1000 * MS


def feed(seen: Evidence, level: float, *, start_ns: int, samples: int = 10) -> int:
    """Samples of two rounds and 50 ms each at `level` per round; the time after the last."""
    for _ in range(samples):
        end_ns = start_ns + 50 * MS
        if evidence.observe(seen, Sample(amount=2 * level, rounds=2.0, start_ns=start_ns, end_ns=end_ns)):
            evidence.judge(seen)
        start_ns = end_ns
    return start_ns


def grown(level: float) -> tuple[Evidence, int]:
    seen = Evidence()
    now_ns = feed(seen, level, start_ns=SECOND)
    evidence.record_growth(seen, previous=100, now_ns=now_ns)
    return seen, now_ns


def test_a_gain_is_seen_after_one_window() -> None:
    seen, now_ns = grown(1000)
    feed(seen, 2000, start_ns=now_ns, samples=5)
    assert seen.verdict is Verdict.PAID
    assert evidence.gain(seen) == pytest.approx(1.0)


def test_no_verdict_before_the_window_is_complete() -> None:
    seen, now_ns = grown(1000)
    feed(seen, 2000, start_ns=now_ns, samples=4)
    assert seen.verdict is Verdict.OPEN


def test_a_slow_gain_is_waited_for() -> None:
    seen, now_ns = grown(1000)
    now_ns = feed(seen, 1000, start_ns=now_ns, samples=15)
    verdicts = [seen.verdict]
    feed(seen, 1200, start_ns=now_ns, samples=5)
    assert [*verdicts, seen.verdict] == [Verdict.OPEN, Verdict.PAID]


def test_a_gain_below_five_percent_does_not_pay() -> None:
    seen, now_ns = grown(1000)
    feed(seen, 1049, start_ns=now_ns, samples=20)
    assert seen.verdict is Verdict.UNPAID
    assert not evidence.has_stopped_paying(seen)


def test_two_in_a_row_stop_growth() -> None:
    seen, now_ns = grown(1000)
    now_ns = feed(seen, 1010, start_ns=now_ns, samples=20)
    evidence.record_growth(seen, previous=125, now_ns=now_ns)
    feed(seen, 1020, start_ns=now_ns, samples=20)
    assert evidence.has_stopped_paying(seen)
    assert seen.unpaid == pytest.approx([0.01, 1020 / 1010 - 1])


def test_a_paying_growth_between_them_starts_anew() -> None:
    seen, now_ns = grown(1000)
    now_ns = feed(seen, 1010, start_ns=now_ns, samples=20)
    evidence.record_growth(seen, previous=125, now_ns=now_ns)
    now_ns = feed(seen, 1500, start_ns=now_ns, samples=20)
    evidence.record_growth(seen, previous=150, now_ns=now_ns)
    feed(seen, 1500, start_ns=now_ns, samples=20)
    assert not evidence.has_stopped_paying(seen)


def test_samples_that_began_before_the_change_do_not_count() -> None:
    seen, now_ns = grown(1000)
    straddling = Sample(amount=1e9, rounds=2.0, start_ns=now_ns - 1, end_ns=now_ns + 50 * MS)
    assert not evidence.observe(seen, straddling)
    assert seen.window.samples == 0


def test_a_limit_that_stopped_binding_has_paid() -> None:
    seen, now_ns = grown(1000)
    assert evidence.quiet_ns(seen, 50 * MS) == now_ns + 2 * SECOND
    assert evidence.quiet_ns(seen, 300 * MS) == now_ns + 6 * SECOND
    evidence.settle_quiet(seen)
    assert seen.verdict is Verdict.PAID


def test_the_first_guess_is_the_baseline_of_a_first_growth() -> None:
    seen = Evidence()
    evidence.estimate(seen, 800.0)
    evidence.record_growth(seen, previous=100, now_ns=SECOND)
    assert seen.before == 800.0


def test_coming_back_soon_after_decay_doubles_the_idle_time() -> None:
    seen, now_ns = grown(1000)
    assert evidence.idle_ns(seen) == now_ns + evidence.IDLE_NS
    evidence.record_decay(seen, now_ns=now_ns + evidence.IDLE_NS)
    evidence.record_growth(seen, previous=100, now_ns=now_ns + evidence.IDLE_NS + SECOND)
    assert evidence.idle_ns(seen) == seen.near_ns + 2 * evidence.IDLE_NS


def test_coming_back_late_does_not() -> None:
    seen, now_ns = grown(1000)
    evidence.record_decay(seen, now_ns=now_ns)
    evidence.record_growth(seen, previous=100, now_ns=now_ns + 10 * evidence.IDLE_NS)
    assert seen.regrown == 0


def test_how_long_a_limit_was_idle_is_told_only_where_it_is_known() -> None:
    assert evidence.idle_s(Evidence(), 9 * SECOND) == 0
    seen = Evidence(near_ns=2 * SECOND)
    assert evidence.idle_s(seen, 9 * SECOND) == 7
    assert evidence.idle_s(seen, SECOND) == 0


def test_survives_a_restart() -> None:
    seen, _ = grown(1000)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(seen), type=Evidence) == seen
