# SPDX-License-Identifier: GPL-2.0-or-later
"""ip_frag against modelled fragments: room before it is needed, none for floods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.messages import Status
from bpftune.ipc.record import Event
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.ip_frag.policy import IPV4, IPV6, Family, IpFrag

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import COOKIE, FakeKernel
else:
    COOKIE = 4711

MakeKernel = Callable[..., "FakeKernel"]
MS = 1_000_000
INTERVAL_NS = 25 * MS
HIGH4, LOW4 = IPV4.limit.tunable, IPV4.low
HIGH6, LOW6 = IPV6.limit.tunable, IPV6.low
CAP = 4 << 20
VALUES = {HIGH4: (262_144,), LOW4: (196_608,), HIGH6: (262_144,), LOW6: (196_608,)}
TRUESIZE = 2504
LIFE_NS = 30_000_000_000
"""ipfrag_time"""


def kernel_of(make_kernel: MakeKernel) -> FakeKernel:
    return make_kernel("ip_frag", IpFrag(), VALUES, cap=CAP)


@dataclass(kw_only=True)
class Fragments:
    """What one namespace's kernel counts and holds while fragments of unfinished datagrams arrive."""

    kernel: FakeKernel
    family: Family = IPV4
    requests: int = 0
    failures: int = 0
    timeouts: int = 0
    held: int = 0

    @property
    def limit(self) -> int:
        return self.kernel.values[self.family.limit.tunable][0]

    def arrive(self, fragments: int, *, finished: int = 0) -> None:
        """One event interval; `finished` fragments belong to datagrams that leave at once."""
        room = max(0, self.limit // TRUESIZE - self.held)
        taken = min(room, fragments)
        self.requests += fragments + finished
        self.failures += fragments - taken + (finished if taken < fragments else 0)
        self.held += taken
        self.tell()

    def expire(self, fragments: int) -> None:
        self.held -= fragments
        self.failures += fragments
        self.timeouts += fragments

    def tell(self) -> None:
        self.kernel.now_ns += INTERVAL_NS
        memory_bytes = self.held * TRUESIZE
        if memory_bytes + self.limit // 4 >= self.limit:
            deliver(self.kernel, self.family, memory_bytes, self.counters)

    @property
    def counters(self) -> dict[str, int]:
        prefix = self.family.counters
        return {
            f"{prefix}_requests": self.requests,
            f"{prefix}_failures": self.failures,
            f"{prefix}_timeouts": self.timeouts,
        }


def deliver(kernel: FakeKernel, family: Family, memory_bytes: int, counters: Mapping[str, int]) -> None:
    numbers = {"memory_bytes": memory_bytes, "high_thresh": kernel.values[family.limit.tunable][0]}
    event = Event(family.limit.short, kernel.now_ns, COOKIE, 0, numbers, {})
    situation = replace(kernel.situation(), counters=counters)
    kernel._take(kernel.policy.on_event(event, situation, kernel.state))


@pytest.mark.parametrize("family", [IPV4, IPV6])
def test_memory_grows_before_anything_fails(make_kernel: MakeKernel, family: Family) -> None:
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel, family=family)

    for _ in range(80):
        fragments.arrive(10, finished=100)

    assert fragments.failures == 0
    assert kernel.values[family.limit.tunable][0] > 80 * 10 * TRUESIZE


def test_low_thresh_keeps_its_distance(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel)

    for _ in range(80):
        fragments.arrive(10)

    assert kernel.values[LOW4][0] == kernel.values[HIGH4][0] * 3 // 4
    assert kernel.values[LOW6] == (196_608,)
    assert_low_below_high(kernel)


def test_a_fast_rise_gets_wide_steps(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel)

    for arriving in (60, 20, 30):
        fragments.arrive(arriving)

    assert kernel.values[HIGH4][0] >= (110 + 2 * 30) * TRUESIZE


@pytest.mark.parametrize("pace", [20, 60, 500, 20_000])
def test_a_flood_that_only_fails_gets_nothing_in_the_end(make_kernel: MakeKernel, pace: int) -> None:
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel)

    for _ in range(1000):
        fragments.arrive(pace)

    assert max(kernel.history(HIGH4)) > 262_144, "at first it looks like any traffic"
    assert kernel.values == kernel.originals
    assert any("growth stops" in note.text for note in kernel.notes)
    assert_low_below_high(kernel)


def test_a_flood_that_growth_kept_up_with_is_known_at_the_cap(make_kernel: MakeKernel) -> None:
    """At the first limits as much failed as at the last, so that the share hardly rises with the limit."""
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel)
    for pace in [200, 200, *[2] * 400]:
        fragments.arrive(pace)
    assert kernel.values[HIGH4] == (327_680,)
    failed_at_first, fragments.held = fragments.failures, 0

    while kernel.values[HIGH4] != (CAP,):
        fragments.arrive(25)
    assert fragments.failures < failed_at_first + 100
    for _ in range(1000):
        fragments.arrive(25)

    assert kernel.values == kernel.originals
    assert [note.scenario for note in kernel.notes if "growth stops" in note.text] == [IPV4.flood]


def test_an_attack_is_named(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel)

    for _ in range(400):
        fragments.arrive(20)

    assert [note.scenario for note in kernel.notes if "attack" in note.text] == [IPV4.flood]


def test_a_flood_below_the_limit_shows_by_its_timeouts(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel)

    for interval in range(3000):
        if interval >= 20:
            fragments.expire(9)
        fragments.arrive(10)
        if kernel.notes:
            break

    assert "attack" in kernel.notes[0].text
    assert fragments.failures == fragments.timeouts > 0, "nothing was dropped at the limit"


def test_growth_that_paid_outlives_the_end_of_growth(make_kernel: MakeKernel) -> None:
    """Of a load that more memory helps up to 1 MiB, a third of the fragments is dropped for good."""
    kernel = kernel_of(make_kernel)
    requests = failures = 0

    for _ in range(2400):
        limit = kernel.values[HIGH4][0]
        requests += 2000
        failures += int(2000 * max(0.3, 0.6 - 0.3 * (limit - 262_144) / 786_432))
        kernel.now_ns += INTERVAL_NS
        counters = {"ipv4_requests": requests, "ipv4_failures": failures, "ipv4_timeouts": 0}
        deliver(kernel, IPV4, limit, counters)

    assert [note.scenario for note in kernel.notes] == [IPV4.limit.unpaid]
    assert kernel.values[HIGH4][0] >= 1 << 20


def test_datagrams_lost_on_the_way_are_no_attack(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel)

    for interval in range(3000):
        if interval * INTERVAL_NS >= LIFE_NS // 10:
            fragments.expire(10)
        fragments.arrive(10, finished=500)

    assert kernel.notes == []
    assert kernel.values[HIGH4][0] > 120 * 10 * TRUESIZE


def test_without_counters_memory_still_grows(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)

    deliver(kernel, IPV4, 250_000, {})

    assert kernel.values[HIGH4] == (327_680,)


def test_an_administrator_who_wants_no_reassembly_gets_none(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("ip_frag", IpFrag(), {HIGH4: (0,), LOW4: (0,)}, cap=CAP)

    deliver(kernel, IPV4, 0, {})

    assert kernel.proposals == []


def test_a_namespace_without_ipv6_is_no_error(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("ip_frag", IpFrag(), {HIGH4: (262_144,), LOW4: (196_608,)}, cap=CAP)

    numbers = {"memory_bytes": 1, "high_thresh": 1}
    event = Event(IPV6.limit.short, kernel.now_ns, COOKIE, 0, numbers, {})
    kernel._take(kernel.policy.on_event(event, kernel.situation(), kernel.state))
    deliver(kernel, IPV4, 250_000, {})

    assert [name for name, _, _ in kernel.changes] == [HIGH4, LOW4]


def test_idle_growth_is_given_back_low_thresh_first(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    fragments = Fragments(kernel=kernel)
    for _ in range(80):
        fragments.arrive(10)

    kernel.run_until(kernel.now_ns + 40 * IDLE_NS)

    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None
    assert_low_below_high(kernel)


def test_what_sysctl_d_sets_is_left_alone(make_kernel: MakeKernel) -> None:
    kernel = kernel_of(make_kernel)
    kernel.adopted = False

    deliver(kernel, IPV4, 250_000, {})

    assert kernel.proposals == []


def assert_low_below_high(kernel: FakeKernel) -> None:
    """At every moment: the kernel refuses any other order of writes."""
    now = dict(kernel.originals)
    for name, _, new in kernel.changes:
        now[name] = new
        for high, low in ((HIGH4, LOW4), (HIGH6, LOW6)):
            assert now[low] <= now[high]


steps = st.tuples(
    st.sampled_from([IPV4, IPV6]),
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.integers(0, 1500),
    st.sampled_from([0, 0, 0, 0, 2000, IDLE_NS // MS + 2000, 5 * IDLE_NS // MS]),
    st.sampled_from([Status.APPLIED, Status.APPLIED, *Status]),
)


@settings(max_examples=200, deadline=None)
@given(stream=st.lists(steps, max_size=80), shift=st.integers(2, 6))
def test_any_stream_of_events_is_survived(
    make_kernel: MakeKernel, stream: list[tuple[Family, int, int, int, int, Status]], shift: int
) -> None:
    kernel = kernel_of(make_kernel)
    kernel.shift = shift
    sides = {family.counters: Fragments(kernel=kernel, family=family) for family in (IPV4, IPV6)}
    for family, arriving, finished, expiring, pause_ms, status in stream:
        kernel.status = status
        kernel.run_until(kernel.now_ns + pause_ms * MS)
        side = sides[family.counters]
        side.expire(min(side.held, expiring))
        side.arrive(arriving, finished=finished)
    for tunable, (original,) in VALUES.items():
        history = kernel.history(tunable)
        assert min(history) == original
        assert max(history) <= CAP
    for limit in (IPV4.limit, IPV6.limit):
        assert not kernel.swings(limit.tunable, limit.idle)
    assert_low_below_high(kernel)
    kernel.status = Status.APPLIED
    kernel.run_until(kernel.now_ns + 100_000 * IDLE_NS)
    assert kernel.values == kernel.originals
