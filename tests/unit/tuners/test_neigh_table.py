# SPDX-License-Identifier: GPL-2.0-or-later
"""neigh_table: ahead of a burst on the way up, one step at a time on the way down, in proportion."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.messages import Status
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.neigh_table.policy import ARP, LARGEST, ND, Family, NeighTable

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import FakeKernel

MakeKernel = Callable[..., "FakeKernel"]
MS = 1_000_000
SECOND = 1000 * MS
FAMILIES = pytest.mark.parametrize("family", [ARP, ND], ids=["arp", "nd"])


def values() -> dict[str, tuple[int, ...]]:
    return {
        name: (value,)
        for family in (ARP, ND)
        for name, value in zip(family.thresholds, (128, 512, 1024), strict=True)
    }


def fill(kernel: FakeKernel, family: Family, entries: int, *, created: int = 0, interval_ns: int = 0) -> None:
    numbers = {
        "ifindex": 7,
        "entries": entries,
        "gc_entries": entries,
        "created": created,
        "interval_ns": interval_ns,
        "refused": 0,
    }
    kernel.send(family.filling, numbers, gc_thresh=(128, 512, 1024))


def empty(kernel: FakeKernel, family: Family, entries: int) -> None:
    kernel.send(family.emptied, {"ifindex": 7, "entries": entries}, gc_thresh=(128, 512, 1024))


def limits(kernel: FakeKernel, family: Family) -> list[int]:
    return [kernel.values[name][0] for name in family.thresholds]


@pytest.fixture
def kernel(make_kernel: MakeKernel) -> FakeKernel:
    return make_kernel("neigh_table", NeighTable(), values())


@FAMILIES
def test_a_slowly_filling_table_grows_by_a_step(kernel: FakeKernel, family: Family) -> None:
    fill(kernel, family, 768)
    assert limits(kernel, family) == [160, 640, 1280]
    assert kernel.values.keys() - set(family.thresholds) == {
        name
        for name, value in kernel.values.items()
        if value == kernel.originals[name] and name not in family.thresholds
    }


@FAMILIES
def test_the_largest_goes_first_and_names_its_device(kernel: FakeKernel, family: Family) -> None:
    fill(kernel, family, 768)
    assert [proposal.tunable for proposal in kernel.proposals] == list(reversed(family.thresholds))
    assert {proposal.device for proposal in kernel.proposals} == {7}


def test_a_burst_gets_room_for_what_is_coming(kernel: FakeKernel) -> None:
    fill(kernel, ARP, 130, created=32, interval_ns=64_000)
    assert limits(kernel, ARP)[2] == 130 + 25_000


def test_a_pace_of_long_ago_asks_for_nothing(kernel: FakeKernel) -> None:
    fill(kernel, ARP, 200, created=32, interval_ns=3600 * SECOND)
    assert kernel.proposals == []


def test_never_beyond_the_largest_table(kernel: FakeKernel) -> None:
    fill(kernel, ARP, 900_000, created=32, interval_ns=1)
    assert limits(kernel, ARP)[2] == LARGEST


def test_a_refusal_at_the_cap_is_answered_by_less(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("neigh_table", NeighTable(), values(), cap=5000)
    fill(kernel, ARP, 130, created=32, interval_ns=64_000)
    assert 2500 <= limits(kernel, ARP)[2] <= 5000
    assert limits(kernel, ARP) == sorted(limits(kernel, ARP))


def test_a_refused_single_step_is_not_tried_again_soon(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("neigh_table", NeighTable(), values(), cap=1024)
    for _ in range(100):
        kernel.now_ns += 25 * MS
        fill(kernel, ARP, 900)
    assert len(kernel.proposals) == 1
    assert kernel.changes == []


def test_shrinks_step_by_step_to_the_original(kernel: FakeKernel) -> None:
    fill(kernel, ARP, 130, created=32, interval_ns=640_000)
    top = limits(kernel, ARP)[2]
    kernel.now_ns += SECOND
    empty(kernel, ARP, 20)
    assert limits(kernel, ARP)[2] == top - (top >> 2)
    kernel.run_until(kernel.now_ns + 60 * SECOND)
    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None


def emptied_from_above(kernel: FakeKernel) -> None:
    """A table that has just lost nearly all of its entries; the first step down is made."""
    fill(kernel, ARP, 130, created=32, interval_ns=64_000)
    kernel.now_ns += SECOND
    empty(kernel, ARP, 20)
    kernel.now_ns += SECOND


def test_a_table_that_fills_again_keeps_its_room(kernel: FakeKernel) -> None:
    emptied_from_above(kernel)
    kept = limits(kernel, ARP)

    fill(kernel, ARP, 41)
    kernel.run_until(kernel.now_ns + IDLE_NS - SECOND)

    assert limits(kernel, ARP) == kept
    assert len(kernel.proposals) == 6
    kernel.run_until(kernel.now_ns + 2 * SECOND)
    assert limits(kernel, ARP)[2] < kept[2], "idle, it decays"


def test_that_it_fills_is_heard_whatever_changed_meanwhile(kernel: FakeKernel) -> None:
    emptied_from_above(kernel)
    kept = limits(kernel, ARP)
    now_ns, kernel.now_ns = kernel.now_ns, kernel.state.arp.evidence.changed_ns - 1

    fill(kernel, ARP, 41)
    kernel.now_ns = now_ns
    kernel.run_until(kernel.now_ns + 60 * SECOND)

    assert limits(kernel, ARP) == kept


def test_an_older_report_of_emptiness_does_not_undo_it(kernel: FakeKernel) -> None:
    emptied_from_above(kernel)
    kept = limits(kernel, ARP)

    fill(kernel, ARP, 41)
    kernel.now_ns -= 1
    empty(kernel, ARP, 20)
    kernel.run_until(kernel.now_ns + 60 * SECOND)

    assert limits(kernel, ARP) == kept


def test_the_smallest_goes_first_on_the_way_down(kernel: FakeKernel) -> None:
    fill(kernel, ARP, 130, created=32, interval_ns=640_000)
    kernel.proposals.clear()
    kernel.now_ns += SECOND
    empty(kernel, ARP, 20)
    assert [proposal.tunable for proposal in kernel.proposals] == list(ARP.thresholds)


def test_a_removal_right_after_a_growth_is_waited_out(kernel: FakeKernel) -> None:
    fill(kernel, ARP, 130, created=32, interval_ns=64_000)
    empty(kernel, ARP, 130)
    assert len(kernel.history(ARP.thresholds[2])) == 2


def test_what_is_left_in_the_table_keeps_its_room(kernel: FakeKernel) -> None:
    fill(kernel, ARP, 130, created=32, interval_ns=64_000)
    kernel.now_ns += SECOND
    empty(kernel, ARP, 2000)
    kernel.run_until(kernel.now_ns + 60 * SECOND)
    assert 4 * 2000 * 3 // 4 <= limits(kernel, ARP)[2] <= 4 * 2000


def test_a_table_that_fills_again_keeps_its_limit_longer(kernel: FakeKernel) -> None:
    for _ in range(5):
        fill(kernel, ARP, max(130, limits(kernel, ARP)[2] - 10), created=32, interval_ns=640_000)
        kernel.now_ns += SECOND
        empty(kernel, ARP, 20)
        kernel.run_until(kernel.now_ns + 10 * SECOND)
    history = kernel.history(ARP.thresholds[2])
    turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(history, history[1:], history[2:], strict=False))
    assert turns <= 2


def test_idle_growth_decays(kernel: FakeKernel) -> None:
    fill(kernel, ND, 768)
    kernel.run_until(kernel.now_ns + 20 * IDLE_NS)
    assert kernel.values == kernel.originals


def test_growth_left_behind_by_an_earlier_run_decays_too(kernel: FakeKernel) -> None:
    kernel.values[ND.thresholds[2]] = (9000,)
    kernel.wake_at_ns = kernel.now_ns
    kernel.run_until(kernel.now_ns + 30 * IDLE_NS)
    assert kernel.values == kernel.originals


def test_one_threshold_in_sysctl_d_leaves_all_three_alone(kernel: FakeKernel) -> None:
    kernel.adopted = False
    fill(kernel, ARP, 1000)
    assert kernel.proposals == []


def test_a_kernel_without_ipv6_is_no_error(make_kernel: MakeKernel) -> None:
    only = {name: value for name, value in values().items() if name in ARP.thresholds}
    kernel = make_kernel("neigh_table", NeighTable(), only)
    fill(kernel, ND, 1000)
    assert kernel.proposals == []


def test_observing_says_each_value_once(kernel: FakeKernel) -> None:
    kernel.status = Status.OBSERVED
    for _ in range(20):
        fill(kernel, ARP, 800)
    assert len(kernel.proposals) == 1


steps = st.lists(
    st.tuples(
        st.booleans(),
        st.booleans(),
        st.integers(0, 2**31 - 1),
        st.integers(0, 10**12),
        st.integers(0, 10_000),
    ),
    min_size=1,
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(stream=steps, shift=st.integers(2, 6))
def test_any_stream_of_events_is_survived(
    make_kernel: MakeKernel, stream: list[tuple[bool, bool, int, int, int]], shift: int
) -> None:
    kernel = make_kernel("neigh_table", NeighTable(), values())
    kernel.shift = shift
    for filling, ipv4, entries, interval_ns, pause_ms in stream:
        kernel.run_until(kernel.now_ns + pause_ms * MS)
        family = ARP if ipv4 else ND
        if filling:
            fill(kernel, family, entries, created=32, interval_ns=interval_ns)
        else:
            empty(kernel, family, entries)
        for each in (ARP, ND):
            now = limits(kernel, each)
            assert now == sorted(now)
            assert now[2] <= LARGEST
            assert all(
                value >= kernel.originals[name][0] for name, value in zip(each.thresholds, now, strict=True)
            )
    kernel.run_until(kernel.now_ns + 100_000 * IDLE_NS)
    assert kernel.values == kernel.originals
