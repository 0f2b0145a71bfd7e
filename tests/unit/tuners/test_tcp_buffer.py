# SPDX-License-Identifier: GPL-2.0-or-later
"""tcp_buffer against modelled paths: converges, stops, gives back, and never goes back and forth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.messages import Status
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.tcp_buffer.buffers import MODERATE_RCVBUF, RECEIVE, SEND
from bpftune.tuners.tcp_buffer.policy import TcpBuffer

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import FakeKernel

MakeKernel = Callable[..., "FakeKernel"]
MS = 1_000_000
RMEM, WMEM = RECEIVE.tunable, SEND.tunable


@dataclass(kw_only=True)
class Path:
    """A path of `rate` bytes/s and `rtt_us`, with a queue that takes whatever does not fit."""

    rate: float
    rtt_us: int
    ratio: int = 128
    noise: float = 0.0
    queue: bool = True

    @property
    def bandwidth_delay(self) -> float:
        return self.rate * self.rtt_us / 1e6

    @property
    def need(self) -> float:
        return 2 * self.bandwidth_delay

    def receive(self, kernel: FakeKernel, random: Random, interval_ns: int = 100 * MS) -> None:
        """One sample of a receiver under the present limit, if its probe would report one."""
        limit = kernel.values[RMEM][2]
        window = limit * self.ratio / 256
        rate = min(self.rate, window / self.rtt_us * 1e6)
        held = max(0.0, window - self.bandwidth_delay) if self.queue else 0.0
        rtt_us = self.rtt_us + held / self.rate * 1e6
        moved = rate * interval_ns / 1e9 * random.uniform(1 - self.noise, 1 + self.noise)
        space = rate * rtt_us / 1e6 * random.uniform(1, 1 + self.noise)
        kernel.now_ns += interval_ns
        if 2 * space * 256 / self.ratio < 0.75 * limit:
            return
        numbers = {
            "sk_rcvbuf": limit,
            "space_bytes": int(space),
            "rcv_rtt_us": int(rtt_us),
            "srtt_us": int(rtt_us),
            "min_rtt_us": self.rtt_us,
            "scaling_ratio": self.ratio,
            "moved_bytes": int(moved),
            "interval_ns": interval_ns if kernel.proposals else 0,
            "allocated_pages": 100,
        }
        kernel.send(RECEIVE.near, numbers, rmem=kernel.values[RMEM])


def sender(*, moved: int, srtt_us: int, interval_ns: int = 100 * MS, **other: int) -> dict[str, int]:
    usual = {
        "sk_sndbuf": 65536,
        "queued_bytes": 60_000,
        "snd_cwnd": 1000,
        "mss_bytes": 1448,
        "srtt_us": srtt_us,
        "min_rtt_us": 50_000,
        "moved_bytes": moved,
        "interval_ns": interval_ns,
        "limited_jiffies": 10,
        "allocated_pages": 100,
    }
    return {**usual, **other}


def values(rmem_max: int = 131_072, wmem_max: int = 65_536, moderate: int = 1) -> dict[str, tuple[int, ...]]:
    return {
        RMEM: (4096, min(131_072, rmem_max), rmem_max),
        WMEM: (4096, 16_384, wmem_max),
        MODERATE_RCVBUF: (moderate,),
    }


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("ratio", [100, 128, 160, 229])
def test_reaches_what_the_path_needs(make_kernel: MakeKernel, ratio: int, noise: float) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    path = Path(rate=12.5e6, rtt_us=50_000, ratio=ratio, noise=noise)
    random = Random(ratio)
    for _ in range(600):
        path.receive(kernel, random)
    # With a smaller share of payload in the buffer than usual the same path needs more of it.
    assert path.need <= kernel.values[RMEM][2] <= 4 * path.need * max(1, 128 / ratio)
    assert path.bandwidth_delay <= kernel.values[RMEM][2] * ratio / 256
    assert len(kernel.history(RMEM, 2)) - 1 <= 10


def test_the_first_event_of_all_grows_at_once(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    assert kernel.values[RMEM][2] > 131_072
    assert kernel.proposals[0].evidence["need_bytes"] >= 262_144 - 1024


def test_a_growth_is_judged_before_the_next_one(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    path = Path(rate=125e6, rtt_us=50_000)
    path.receive(kernel, Random(1))
    for _ in range(3):
        path.receive(kernel, Random(1))
        assert len(kernel.changes) == 1


@pytest.mark.parametrize("rmem_max", [1_310_720, 6_291_456, 33_554_432])
def test_a_local_bulk_transfer_changes_nothing(make_kernel: MakeKernel, rmem_max: int) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(rmem_max=rmem_max))
    path = Path(rate=3e9, rtt_us=50, ratio=229)
    for _ in range(300):
        path.receive(kernel, Random(2), interval_ns=25 * MS)
    assert kernel.changes == []


def test_a_queue_on_the_path_is_not_fed(make_kernel: MakeKernel) -> None:
    """The window is far beyond what the path takes; the round trips are all queueing."""
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    path = Path(rate=1.25e6, rtt_us=10_000)
    for _ in range(100):
        path.receive(kernel, Random(3))
    assert kernel.changes == []


def test_sockets_of_many_rates_stay_within_the_need_of_the_fastest(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    random = Random(4)
    paths = [Path(rate=rate, rtt_us=50_000, noise=0.2) for rate in (1e5, 1e6, 5e6, 12.5e6)]
    for _ in range(2000):
        random.choice(paths).receive(kernel, random)
    assert paths[-1].bandwidth_delay * 2 <= kernel.values[RMEM][2] <= 4 * paths[-1].need
    assert len(kernel.changes) <= 10


@pytest.mark.parametrize("status", [Status.STALE, Status.REFUSED, Status.FAILED])
def test_moderation_is_not_turned_on_for_a_limit_that_did_not_grow(
    make_kernel: MakeKernel, status: Status
) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(moderate=0))
    kernel.status = status
    Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    assert [proposal.tunable for proposal in kernel.proposals] == [RMEM]


def test_moderation_that_could_not_go_back_goes_back_later(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(moderate=0))
    Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    kernel.values[RMEM] = kernel.originals[RMEM]
    assert kernel.values[MODERATE_RCVBUF] == (1,)

    kernel.wake_at_ns = kernel.now_ns
    kernel.run_until(kernel.now_ns + IDLE_NS)

    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None


def test_moderation_is_turned_on_with_the_limit_and_off_again(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(moderate=0))
    Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    assert kernel.values[MODERATE_RCVBUF] == (1,)
    kernel.run_until(kernel.now_ns + 40 * IDLE_NS)
    assert kernel.values == kernel.originals


def test_two_useless_growths_stop_it_and_the_last_is_taken_back(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    for _ in range(400):
        kernel.now_ns += 100 * MS
        limit = kernel.values[WMEM][2]
        # Always held back by the buffer, yet never a byte more gets through.
        kernel.send(
            SEND.near, sender(moved=limit, srtt_us=50_000, interval_ns=100 * MS) | {"moved_bytes": 131_072}
        )
        kernel.send(SEND.near, sender(moved=0, srtt_us=50_000, interval_ns=0, queued_bytes=limit))
    history = kernel.history(WMEM, 2)
    assert len(history) == 4
    assert history[3] == history[1]
    (note,) = (note for note in kernel.notes if note.scenario == SEND.unpaid)
    assert "+0.0 %" in note.text


def test_round_trips_that_grow_with_the_limit_stop_it(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    for step in range(300):
        kernel.now_ns += 100 * MS
        limit = kernel.values[WMEM][2]
        srtt_us = 50_000 + limit // 8
        moved = limit // 2 * 100_000 // 50_000
        kernel.send(SEND.near, sender(moved=moved, srtt_us=srtt_us, interval_ns=100 * MS if step else 0))
    history = kernel.history(WMEM, 2)
    assert [note.scenario for note in kernel.notes] == [SEND.delays]
    assert history[-1] == max(65_536, history[-2] - (history[-2] >> 2))
    assert history[:-1] == sorted(history[:-1])


def test_idle_growth_is_given_back_step_by_step(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    for _ in range(100):
        Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    top = kernel.values[RMEM][2]
    kernel.run_until(kernel.now_ns + IDLE_NS - 20_000 * MS)
    assert kernel.values[RMEM][2] == top
    kernel.run_until(kernel.now_ns + IDLE_NS)
    assert kernel.values[RMEM][2] == top - (top >> 2)
    kernel.run_until(kernel.now_ns + 40 * IDLE_NS)
    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None


def test_growth_left_behind_by_an_earlier_run_decays_too(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    kernel.values[RMEM] = (4096, 131_072, 4_000_000)
    kernel.wake_at_ns = kernel.now_ns
    kernel.run_until(kernel.now_ns + 30 * IDLE_NS)
    assert kernel.values == kernel.originals


def test_what_sysctl_d_sets_is_left_alone(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    kernel.adopted = False
    Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    assert kernel.proposals == []


def test_a_missing_tunable_is_no_error(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), {MODERATE_RCVBUF: (1,)})
    kernel.send(SEND.near, sender(moved=100, srtt_us=50_000))
    assert kernel.proposals == []


def test_nothing_grows_under_memory_pressure(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    kernel.send(SEND.near, sender(moved=0, srtt_us=50_000, interval_ns=0, allocated_pages=1 << 20))
    assert kernel.proposals == []


def test_observing_says_each_value_once(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(moderate=0))
    kernel.status = Status.OBSERVED
    for _ in range(50):
        Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    assert [proposal.tunable for proposal in kernel.proposals] == [RMEM, MODERATE_RCVBUF]


def test_a_refused_proposal_is_not_repeated_at_once(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values())
    kernel.status = Status.REFUSED
    for _ in range(9):
        Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    assert len(kernel.proposals) == 1


def test_a_cap_that_growth_came_to_is_for_the_supervisor_to_tell(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(), cap=200_000)
    for _ in range(100):
        Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    assert kernel.values[RMEM][2] == 200_000
    assert kernel.notes == []


def test_a_cap_that_was_there_from_the_start_is_noted_once(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(), cap=values()[RMEM][2])
    for _ in range(100):
        Path(rate=12.5e6, rtt_us=50_000).receive(kernel, Random(1))
    assert kernel.values == values()
    assert len(kernel.notes) == 1


events = st.lists(
    st.tuples(
        st.sampled_from([RECEIVE.near, SEND.near]),
        st.integers(0, 2**31 - 1),
        st.integers(1, 2_000_000),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**33),
        st.sampled_from([0, 25 * MS, 100 * MS, 5000 * MS]),
        st.integers(0, 60_000),
    ),
    min_size=1,
    max_size=80,
)


@settings(deadline=None, max_examples=60)
@given(stream=events, shift=st.integers(2, 6))
def test_any_stream_of_events_is_survived(
    make_kernel: MakeKernel, stream: list[tuple[str, int, int, int, int, int, int]], shift: int
) -> None:
    kernel = make_kernel("tcp_buffer", TcpBuffer(), values(), cap=512 << 20)
    kernel.shift = shift
    for scenario, size, rtt_us, min_rtt_us, moved, interval_ns, pause_ms in stream:
        kernel.run_until(kernel.now_ns + pause_ms * MS)
        numbers = sender(
            moved=moved,
            srtt_us=rtt_us,
            interval_ns=interval_ns,
            min_rtt_us=min_rtt_us,
            queued_bytes=size,
            space_bytes=size,
            rcv_rtt_us=rtt_us,
            scaling_ratio=size % 256,
            sk_rcvbuf=size,
        )
        kernel.send(scenario, numbers)
    for tunable in (RMEM, WMEM):
        history = kernel.history(tunable, 2)
        assert kernel.originals[tunable][2] <= min(history)
        assert max(history) <= 512 << 20
        assert not _goes_back_and_forth(history)
    kernel.run_until(kernel.now_ns + 100_000 * IDLE_NS)
    assert kernel.values == kernel.originals


def _goes_back_and_forth(history: list[int]) -> bool:
    """A -> B -> A -> B"""
    return any(
        history[i] == history[i + 2] and history[i + 1] == history[i + 3] for i in range(len(history) - 3)
    )
