# SPDX-License-Identifier: GPL-2.0-or-later
"""tcp_buffer when TCP memory runs out: room first, then smaller buffers and switches, and all of it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.messages import GLOBAL, Status
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.loan import HOLD_NS
from bpftune.tuners.tcp_buffer.buffers import RECEIVE, SEND, SHORT_OF_MEMORY
from bpftune.tuners.tcp_buffer.memory import EXHAUSTION, LARGE_PAGES, METRICS, PRESSURE
from bpftune.tuners.tcp_buffer.policy import TcpBuffer
from tests.unit.tuners.test_tcp_buffer import sender

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import FakeKernel

MakeKernel = Callable[..., "FakeKernel"]
SECOND = 1_000_000_000
TCP_MEM, RMEM, WMEM = PRESSURE.tunable, RECEIVE.tunable, SEND.tunable
(LARGE,) = LARGE_PAGES.tunables
NO_METRICS, NO_SSTHRESH = METRICS.tunables
SHORT_HERE, ENOUGH_HERE = "metrics_unsaved", METRICS.back
LOW = (4096, 6144, 12288)
CAP = 60_000


def values(**other: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {
        TCP_MEM: other.get("tcp_mem", LOW),
        RMEM: (4096, 131_072, 131_072),
        WMEM: (4096, 16_384, 65_536),
        LARGE: other.get("large", (0,)),
        NO_METRICS: other.get("no_metrics", (0,)),
        NO_SSTHRESH: other.get("no_ssthresh", (0,)),
    }


@pytest.fixture
def kernel(make_kernel: MakeKernel) -> FakeKernel:
    made = make_kernel("tcp_buffer", TcpBuffer(), values())
    made.caps[TCP_MEM] = CAP
    return made


def hold(kernel: FakeKernel, scenario: str, pages: int) -> None:
    """All sockets together hold so many pages: what the probe says then."""
    kernel.send(scenario, {"allocated_pages": pages}, tcp_mem=kernel.values[TCP_MEM])


def raised(kernel: FakeKernel, rmem_max: int = 4_000_000, wmem_max: int = 4_000_000) -> None:
    """Buffers have grown before."""
    kernel.values[RMEM] = (*kernel.values[RMEM][:2], rmem_max)
    kernel.values[WMEM] = (*kernel.values[WMEM][:2], wmem_max)


def test_near_pressure_all_three_grow(kernel: FakeKernel) -> None:
    hold(kernel, PRESSURE.short, 4700)
    assert kernel.values[TCP_MEM] == (5120, 7680, 15360)


def test_far_beyond_it_goes_straight_to_what_is_needed(kernel: FakeKernel) -> None:
    hold(kernel, EXHAUSTION.short, 21_000)
    least, pressure, most = kernel.values[TCP_MEM]
    assert 0.75 * pressure + 1 > 21_000
    assert pressure < 1.4 * 21_000
    assert least < pressure < most <= 2 * 28_001


def test_exhaustion_below_pressure_raises_the_maximum_alone(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(tcp_mem=(1000, 90_000, 8000)))
    hold(kernel, EXHAUSTION.short, 7000)
    assert kernel.values[TCP_MEM] == (1000, 90_000, 10_000)


def test_no_field_goes_beyond_the_cap_nor_down(kernel: FakeKernel) -> None:
    kernel.originals[TCP_MEM] = kernel.values[TCP_MEM] = (4096, 6144, 2 * CAP)
    kernel.caps[TCP_MEM] = 2 * CAP
    for pages in range(4700, 2 * CAP, 1000):
        hold(kernel, PRESSURE.short, pages)
        assert kernel.values[TCP_MEM][2] == 2 * CAP
    assert kernel.values[TCP_MEM][1] == 2 * CAP
    hold(kernel, PRESSURE.short, 3 * CAP)
    assert not [note for note in kernel.notes if note.scenario == PRESSURE.short]


def test_an_event_from_before_the_growth_is_ignored(kernel: FakeKernel) -> None:
    hold(kernel, PRESSURE.short, 4700)
    kernel.now_ns -= 10_000_000
    hold(kernel, PRESSURE.short, 4700)
    assert len(kernel.changes) == 1


def test_room_that_is_not_used_is_given_back(kernel: FakeKernel) -> None:
    hold(kernel, PRESSURE.short, 20_000)
    kernel.run_until(kernel.now_ns + IDLE_NS)
    assert LOW[1] < kernel.values[TCP_MEM][1] < 26_000
    kernel.run_until(kernel.now_ns + 40 * IDLE_NS)
    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None


def test_a_namespace_does_not_look_after_all_memory(kernel: FakeKernel) -> None:
    hold(kernel, EXHAUSTION.short, 20_000)
    before = kernel.values[TCP_MEM]
    kernel.wakes = {4711: kernel.now_ns}
    kernel.run_until(kernel.now_ns + 20 * IDLE_NS)
    assert kernel.values[TCP_MEM] == before
    kernel.wakes = {GLOBAL: kernel.now_ns}
    kernel.run_until(kernel.now_ns + 60 * IDLE_NS)
    assert kernel.values == kernel.originals


def test_switches_go_on_and_back_off(kernel: FakeKernel) -> None:
    hold(kernel, EXHAUSTION.short, 11_000)
    hold(kernel, SHORT_HERE, 11_000)
    assert [kernel.values[name] for name in (LARGE, NO_METRICS, NO_SSTHRESH)] == [(1,)] * 3
    hold(kernel, LARGE_PAGES.back, 1000)
    hold(kernel, ENOUGH_HERE, 1000)
    assert kernel.values[LARGE] == (1,), "not at once"
    kernel.run_until(kernel.now_ns + HOLD_NS)
    assert [kernel.values[name] for name in (LARGE, NO_METRICS, NO_SSTHRESH)] == [(0,)] * 3


def test_exactly_ours_go_back(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(no_metrics=(1,), large=(1,)))
    hold(kernel, EXHAUSTION.short, 11_000)
    hold(kernel, SHORT_HERE, 11_000)
    hold(kernel, LARGE_PAGES.back, 1000)
    hold(kernel, ENOUGH_HERE, 1000)
    kernel.run_until(kernel.now_ns + IDLE_NS)
    changed = [name for name, _, _ in kernel.changes if name != TCP_MEM]
    assert changed == [NO_SSTHRESH, NO_SSTHRESH]


def test_a_shortage_of_which_nothing_is_heard_any_more_ends(kernel: FakeKernel) -> None:
    hold(kernel, EXHAUSTION.short, 11_000)
    hold(kernel, SHORT_HERE, 11_000)
    kernel.run_until(kernel.now_ns + 40 * IDLE_NS)
    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None


def test_buffers_stay_while_memory_may_grow(kernel: FakeKernel) -> None:
    raised(kernel)
    hold(kernel, SHORT_HERE, 11_000)
    assert kernel.values[RMEM][2] == 4_000_000


def test_buffers_in_use_grow_again_after_a_shortage(kernel: FakeKernel) -> None:
    kernel.left_alone = {TCP_MEM}
    raised(kernel)
    hold(kernel, SHORT_HERE, 11_000)
    assert kernel.values[WMEM][2] == 3_000_000

    def send(for_ns: int, pages: int) -> int:
        until_ns = kernel.now_ns + for_ns
        while kernel.now_ns < until_ns:
            kernel.run_until(kernel.now_ns + SECOND)
            waiting = sender(
                moved=0,
                srtt_us=50_000,
                interval_ns=0,
                snd_cwnd=4000,
                queued_bytes=4 << 20,
                allocated_pages=pages,
            )
            kernel.send(SEND.near, waiting)
        return kernel.values[WMEM][2]

    assert send(IDLE_NS - 2 * SECOND, 100) == 3_000_000, "not back and forth"
    assert send(10 * SECOND, LOW[1]) == 3_000_000, "nor under pressure"
    assert send(10 * SECOND, 100) > 3_000_000


def test_at_the_cap_buffers_give_way_step_by_step(kernel: FakeKernel) -> None:
    kernel.caps[TCP_MEM] = LOW[2]
    raised(kernel)
    hold(kernel, SHORT_HERE, 11_000)
    hold(kernel, SHORT_HERE, 11_000)
    assert kernel.values[RMEM][2] == kernel.values[WMEM][2] == 3_000_000, "a step, and not yet another"
    for _ in range(40):
        kernel.now_ns += SECOND
        hold(kernel, SHORT_HERE, 11_000)
    assert kernel.values[RMEM] == kernel.originals[RMEM]
    assert kernel.values[WMEM] == kernel.originals[WMEM]
    assert {one.scenario for one in kernel.proposals if one.tunable == RMEM} == {SHORT_OF_MEMORY[0]}
    assert all("allocated_pages" in one.evidence for one in kernel.proposals)
    assert not any("successes_per_failure" in one.evidence for one in kernel.proposals), "nothing was weighed"


def test_memory_that_is_the_administrators_counts_as_at_its_cap(kernel: FakeKernel) -> None:
    kernel.left_alone = {TCP_MEM}
    raised(kernel)
    hold(kernel, EXHAUSTION.short, 11_000)
    hold(kernel, SHORT_HERE, 11_000)
    assert kernel.values[TCP_MEM] == LOW
    assert kernel.values[RMEM][2] == 3_000_000


def test_where_nothing_was_raised_nothing_shrinks(kernel: FakeKernel) -> None:
    kernel.left_alone = {TCP_MEM}
    for _ in range(10):
        kernel.now_ns += SECOND
        hold(kernel, SHORT_HERE, 11_000)
    assert kernel.values[RMEM] == kernel.originals[RMEM]


def test_buffers_that_gave_way_do_not_grow_again_at_once(kernel: FakeKernel) -> None:
    kernel.left_alone = {TCP_MEM}
    raised(kernel)
    hold(kernel, SHORT_HERE, 11_000)
    shrunk = kernel.values[RMEM]
    kernel.now_ns += 10 * SECOND
    kernel.send(RECEIVE.near, receiver(allocated_pages=100), rmem=shrunk)
    assert kernel.values[RMEM] == shrunk


def receiver(**other: int) -> dict[str, int]:
    usual = {
        "sk_rcvbuf": 131_072,
        "space_bytes": 5_000_000,
        "rcv_rtt_us": 50_000,
        "srtt_us": 50_000,
        "min_rtt_us": 50_000,
        "scaling_ratio": 128,
        "moved_bytes": 0,
        "interval_ns": 0,
        "allocated_pages": 100,
    }
    return {**usual, **other}


@pytest.mark.parametrize(("pages", "grows"), [(LOW[1] - 1, True), (LOW[1], False)])
def test_buffers_grow_up_to_the_kernels_own_pressure(kernel: FakeKernel, pages: int, grows: bool) -> None:
    kernel.send(RECEIVE.near, receiver(allocated_pages=pages), rmem=kernel.values[RMEM])
    assert (kernel.values[RMEM][2] > 131_072) is grows


def test_observing_says_everything_once(kernel: FakeKernel) -> None:
    kernel.status = Status.OBSERVED
    for _ in range(20):
        kernel.now_ns += SECOND
        hold(kernel, EXHAUSTION.short, 11_000)
        hold(kernel, SHORT_HERE, 11_000)
    assert sorted(one.tunable for one in kernel.proposals) == sorted(
        [TCP_MEM, LARGE, NO_METRICS, NO_SSTHRESH]
    )


def test_a_kernel_without_these_tunables_is_no_error(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), {TCP_MEM: LOW})
    for scenario in (PRESSURE.short, EXHAUSTION.short, SHORT_HERE, LARGE_PAGES.back, ENOUGH_HERE):
        hold(kernel, scenario, 11_000)
    bare = make_kernel("tcp_buffer", TcpBuffer(), {RMEM: (1, 2, 3)})
    for scenario in (PRESSURE.short, EXHAUSTION.short, SHORT_HERE, LARGE_PAGES.back, ENOUGH_HERE):
        bare.send(scenario, {"allocated_pages": 11_000}, tcp_mem=LOW)
    assert bare.proposals == []


stream = st.lists(
    st.tuples(
        st.sampled_from(
            [PRESSURE.short, EXHAUSTION.short, SHORT_HERE, LARGE_PAGES.back, ENOUGH_HERE, RECEIVE.near]
        ),
        st.integers(-300, 2 * CAP),
        st.integers(0, 400_000),
    ),
    min_size=1,
    max_size=80,
)


@settings(deadline=None, max_examples=80)
@given(events=stream, shift=st.integers(2, 6), cap=st.integers(LOW[2], CAP))
def test_any_stream_of_events_is_survived(
    make_kernel: MakeKernel, events: list[tuple[str, int, int]], shift: int, cap: int
) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(), cap=64 << 20)
    kernel.caps[TCP_MEM] = cap
    kernel.shift = shift
    for scenario, pages, pause_ms in events:
        kernel.run_until(kernel.now_ns + pause_ms * 1_000_000)
        if scenario == RECEIVE.near:
            kernel.send(scenario, receiver(allocated_pages=pages), rmem=kernel.values[RMEM])
        else:
            hold(kernel, scenario, pages)
    for field in range(3):
        history = kernel.history(TCP_MEM, field)
        assert LOW[field] <= min(history)
        assert max(history) <= cap
        assert not kernel.swings(TCP_MEM, PRESSURE.idle, field=field)
    assert kernel.originals[RMEM][2] <= min(kernel.history(RMEM, 2))
    assert not kernel.swings(RMEM, RECEIVE.idle, SHORT_OF_MEMORY[0], field=2)
    kernel.run_until(kernel.now_ns + 100_000 * IDLE_NS)
    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None
