# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from bpftune.supervisor.rate_limit import RateLimit

SECOND_NS = 1_000_000_000


def allowed(limit: RateLimit, at_ns: int, tries: int) -> int:
    return sum(limit.allow(at_ns) for _ in range(tries))


def test_a_burst_then_a_steady_rate() -> None:
    limit = RateLimit(burst=10, per_s=5)
    assert allowed(limit, SECOND_NS, 100) == 10
    assert allowed(limit, 2 * SECOND_NS, 100) == 5
    assert allowed(limit, 2 * SECOND_NS, 100) == 0


def test_no_more_than_a_burst_is_saved_up() -> None:
    limit = RateLimit(burst=10, per_s=5)
    allowed(limit, SECOND_NS, 100)
    assert allowed(limit, 1000 * SECOND_NS, 100) == 10
