# SPDX-License-Identifier: GPL-2.0-or-later
"""tcp_buffer at full SYN queues: room for those who come, none for floods, cookies where they are of use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.messages import Status
from bpftune.tuners.correlation import MIN_SAMPLES
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.tcp_buffer.handshakes import BACKLOG, COOKIES, FLOOD, LEAST_BACKLOG, USELESS_COOKIES
from bpftune.tuners.tcp_buffer.memory import PRESSURE
from bpftune.tuners.tcp_buffer.policy import TcpBuffer

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import FakeKernel

MakeKernel = Callable[..., "FakeKernel"]
SECOND = 1_000_000_000
QUEUE = BACKLOG.tunable
(SWITCH,) = COOKIES.tunables
TCP_MEM = (4096, 6144, 12288)
LARGEST = 65_535


def values(cookies: int = 0, backlog: int = 512) -> dict[str, tuple[int, ...]]:
    return {QUEUE: (backlog,), SWITCH: (cookies,), PRESSURE.tunable: TCP_MEM}


def listen(make_kernel: MakeKernel, cookies: int = 0, backlog: int = 512) -> FakeKernel:
    """A namespace whose counters have been seen once."""
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(cookies, backlog), cap=LARGEST)
    kernel.counters = {counter.name: 1_000_000 for counter in kernel.declaration.counters}
    overflow(kernel)
    assert kernel.proposals == []
    return kernel


def overflow(kernel: FakeKernel, *, pages: int = 100, after_ns: int = SECOND, **risen: int) -> None:
    """A second later the queue is full again, and the counters have risen."""
    kernel.now_ns += after_ns
    for name, count in risen.items():
        kernel.counters[name] += count
    numbers = {
        "handshakes": 380,
        "handshakes_limit": 384,
        "listen_backlog": 4096,
        "max_syn_backlog": kernel.values[QUEUE][0],
        "syncookies": 0,
        "allocated_pages": pages,
    }
    kernel.send(BACKLOG.short, numbers)


def load(kernel: FakeKernel, samples: int = MIN_SAMPLES, **more: int) -> None:
    for _ in range(samples):
        overflow(kernel, listen_drops=100, passive_opens=80, **more)


def flood(kernel: FakeKernel, samples: int = MIN_SAMPLES) -> None:
    for _ in range(samples):
        overflow(kernel, listen_drops=2000)


def test_a_load_gets_room_after_ten_samples(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    load(kernel, MIN_SAMPLES - 1)
    assert kernel.values[QUEUE] == (512,)
    load(kernel, 1)
    assert kernel.values[QUEUE] == (640,)
    evidence = kernel.proposals[0].evidence
    assert (evidence["refused"], evidence["established"]) == (1000, 800)


def test_connections_that_come_about_a_round_trip_later_count(make_kernel: MakeKernel) -> None:
    """By then the queue is full no longer, and nothing more is refused."""
    kernel = listen(make_kernel)
    for _ in range(MIN_SAMPLES):
        overflow(kernel, listen_drops=100)
        overflow(kernel, passive_opens=80, after_ns=SECOND // 10)
    assert kernel.values[QUEUE] == (640,)


def test_a_flood_gets_less_after_ten_samples(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    flood(kernel, MIN_SAMPLES - 1)
    assert kernel.values[QUEUE] == (512,)
    flood(kernel, 1)
    assert kernel.values[QUEUE] == (384,)
    assert kernel.proposals[0].scenario == FLOOD


def test_a_flood_goes_down_to_the_floor_and_no_further(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    flood(kernel, 20 * MIN_SAMPLES)
    assert kernel.history(QUEUE) == [512, 384, 288, 216, 162, LEAST_BACKLOG]


def test_what_was_counted_in_quiet_hours_does_not_make_a_flood_a_load(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    kernel.counters["passive_opens"] += 1_000_000
    overflow(kernel, listen_drops=2000, after_ns=3600 * SECOND)
    flood(kernel)
    assert kernel.values[QUEUE] == (384,)
    assert kernel.proposals[0].evidence["established"] == 0


def test_nor_do_cookies_of_then_count(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel, cookies=1)
    overflow(kernel, cookies_failed=USELESS_COOKIES, after_ns=3600 * SECOND)
    assert kernel.changes == []
    overflow(kernel, cookies_failed=USELESS_COOKIES)
    assert kernel.values[SWITCH] == (0,)


def test_an_original_below_the_floor_stays(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel, backlog=64)
    flood(kernel, 5 * MIN_SAMPLES)
    assert kernel.changes == []


def test_when_the_flood_is_over_the_original_comes_back(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    flood(kernel, 3 * MIN_SAMPLES)
    kernel.run_until(kernel.now_ns + IDLE_NS - SECOND)
    assert kernel.values[QUEUE] == (216,)
    kernel.run_until(kernel.now_ns + 2 * SECOND)
    assert kernel.values[QUEUE] == (512,)
    assert kernel.wake_at_ns is None


def test_a_flood_that_comes_back_does_not_swing_it(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    for _ in range(3):
        flood(kernel)
        kernel.run_until(kernel.now_ns + 1000 * IDLE_NS)
        overflow(kernel)
    assert kernel.history(QUEUE)[:5] == [512, 384, 512, 288, 512]


def test_room_that_is_not_needed_any_more_is_given_back(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    load(kernel)
    assert kernel.values[QUEUE] == (640,)
    kernel.run_until(kernel.now_ns + 10 * IDLE_NS)
    assert kernel.values == kernel.originals


def test_growth_that_does_not_pay_is_taken_back(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    for _ in range(200):
        overflow(kernel, listen_drops=1000, passive_opens=500)
    history = kernel.history(QUEUE)
    assert history[-1] < max(history)
    assert [note.scenario for note in kernel.notes] == [BACKLOG.unpaid]
    assert len(history) <= 5


def test_where_the_listeners_own_limit_binds_it_is_said_once(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    for _ in range(5 * MIN_SAMPLES):
        overflow(kernel, listen_drops=100, queue_full_drops=100, passive_opens=80)
    assert kernel.changes == []
    (note,) = kernel.notes
    assert "listen(2)" in note.text


def test_an_application_that_does_not_accept_is_neither(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    for _ in range(5 * MIN_SAMPLES):
        overflow(kernel, listen_drops=300, listen_overflows=200)
    assert kernel.changes == []


def test_a_full_queue_that_refuses_nobody_is_no_sample(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    for _ in range(5 * MIN_SAMPLES):
        overflow(kernel, passive_opens=1000)
    assert kernel.changes == []


def test_with_cookies_the_backlog_means_nothing(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel, cookies=1)
    load(kernel, 3 * MIN_SAMPLES, cookies_sent=100)
    flood(kernel, 3 * MIN_SAMPLES)
    assert kernel.changes == []


def test_useless_cookies_are_turned_off_and_later_on_again(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel, cookies=1)
    overflow(kernel, cookies_failed=USELESS_COOKIES - 1)
    assert kernel.values[SWITCH] == (1,)
    overflow(kernel, cookies_failed=1)
    assert kernel.values[SWITCH] == (0,)
    overflow(kernel, listen_drops=100)
    kernel.run_until(kernel.now_ns + IDLE_NS)
    assert kernel.values[SWITCH] == (1,)
    assert kernel.wake_at_ns is None


def test_one_good_cookie_keeps_them(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel, cookies=1)
    overflow(kernel, cookies_good=1)
    for _ in range(20):
        overflow(kernel, cookies_failed=USELESS_COOKIES)
    assert kernel.changes == []


def test_cookies_of_another_time_do_not_count(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel, cookies=1)
    for _ in range(20):
        overflow(kernel, cookies_failed=USELESS_COOKIES - 1, after_ns=100 * SECOND)
    assert kernel.changes == []


def test_cookies_that_are_always_on_stay(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel, cookies=2)
    overflow(kernel, cookies_failed=10 * USELESS_COOKIES)
    assert kernel.changes == []


def test_short_of_memory_cookies_are_turned_on(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    overflow(kernel, listen_drops=10, pages=TCP_MEM[1] * 3 // 4)
    assert kernel.values[SWITCH] == (1,)
    overflow(kernel, cookies_failed=2 * USELESS_COOKIES, pages=TCP_MEM[1])
    assert kernel.values[SWITCH] == (1,), "not off again while they save memory"
    kernel.run_until(kernel.now_ns + IDLE_NS)
    assert kernel.values == kernel.originals


def test_memory_that_is_short_now_and_then_does_not_flip_cookies(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel, cookies=1)
    start_ns = kernel.now_ns
    while kernel.now_ns < start_ns + IDLE_NS:
        for pages in (100, TCP_MEM[1]):
            rising = "cookies_failed" if kernel.values[SWITCH] == (1,) else "listen_drops"
            overflow(kernel, pages=pages, **{rising: USELESS_COOKIES})
    assert kernel.history(SWITCH) == [1, 0, 1]


def test_useless_cookies_may_go_once_memory_has_not_been_short_for_a_while(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    overflow(kernel, listen_drops=10, pages=TCP_MEM[1])
    assert kernel.values[SWITCH] == (1,)
    for _ in range(IDLE_NS // SECOND - 1):
        overflow(kernel, cookies_failed=USELESS_COOKIES)
    assert kernel.values[SWITCH] == (1,)
    overflow(kernel, cookies_failed=USELESS_COOKIES)
    assert kernel.values[SWITCH] == (0,)


def test_a_kernel_without_cookies_has_a_backlog_all_the_same(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    del kernel.values[SWITCH]
    load(kernel)
    assert kernel.values[QUEUE] == (640,)


def test_a_kernel_that_does_not_count_is_left_alone(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    kernel.counters = {"listen_drops": 0}
    for _ in range(3 * MIN_SAMPLES):
        overflow(kernel, listen_drops=100)
    assert kernel.changes == []


def test_observing_says_it_once(make_kernel: MakeKernel) -> None:
    kernel = listen(make_kernel)
    kernel.status = Status.OBSERVED
    flood(kernel, 5 * MIN_SAMPLES)
    assert len(kernel.proposals) == 1


samples = st.tuples(
    st.sampled_from(["listen_drops", "listen_overflows", "cookies_failed", "cookies_good", "passive_opens"]),
    st.integers(0, 5000),
    st.integers(0, 2000),
    st.integers(0, TCP_MEM[2]),
    st.sampled_from([25_000_000, SECOND, SECOND, SECOND, 61 * SECOND, 400 * SECOND]),
    st.integers(1, 15),
)


@settings(deadline=None, max_examples=80)
@given(
    stream=st.lists(samples, min_size=1, max_size=40),
    backlog=st.integers(64, 5000),
    cookies=st.integers(0, 2),
)
def test_any_stream_of_events_is_survived(
    make_kernel: MakeKernel,
    stream: list[tuple[str, int, int, int, int, int]],
    backlog: int,
    cookies: int,
) -> None:
    kernel = listen(make_kernel, cookies=cookies, backlog=backlog)
    for name, count, opens, pages, after_ns, times in stream:
        for _ in range(times):
            kernel.run_until(kernel.now_ns + after_ns)
            rising = {"listen_drops": count, "passive_opens": opens} | {name: count}
            overflow(kernel, pages=pages, after_ns=0, **rising)
    history = kernel.history(QUEUE)
    assert min(backlog, LEAST_BACKLOG) <= min(history)
    assert max(history) <= LARGEST
    assert not kernel.swings(QUEUE, BACKLOG.idle)
    kernel.run_until(kernel.now_ns + 100_000 * IDLE_NS)
    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None
