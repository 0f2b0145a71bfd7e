# SPDX-License-Identifier: GPL-2.0-or-later
"""What bpftune.h promises about events: rate limit, off filter, marks, sampling, counters, drops.

The probe under test fires when this process writes a sysctl, so every event is one that we caused.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpftune.ipc.control import ScenarioCounters
from bpftune.ipc.errors import BpfError
from tests.kernel.bpf.rig import Rig, make_tuner, opened
from tests.kernel.namespaces import Namespace, sysctl_path
from tests.waiting import wait_for

SO_NETNS_COOKIE = 71
INTERVAL_NS = 25_000_000
TASK = 'task_struct = ["nsproxy"]\nnsproxy = ["net_ns"]'
FIELDS = ("u64 value", "u32 changed", "u32 near", "u32 sampled", "u32 dry_run", "u32 pad[98]")
TICK = """
PROBE_CTX(tick, struct bpf_sysctl *ctx)
{
	struct event_seen e = {};

	if (!ctx->write || bpf_get_current_pid_tgid() >> 32 != %d)
		return 1;
	e.value = ctx->file_pos;
	e.changed = is_changed(current_net());
	e.near = near_full(74, 100) | near_full(75, 100) << 1 | near_full(-1, -1) << 2;
	e.sampled = sampled(tick);
	e.dry_run = is_dry_run();
	%s(seen, current_net(), &e);
	return 1;
}
"""


class Ticker:
    """Fires the probe and reads what came of it."""

    def __init__(self, rig: Rig, netns: Namespace) -> None:
        self.rig = rig
        self._netns = netns
        with netns.entered(), socket.socket() as probe:
            cookie = probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        self.cookie = int.from_bytes(cookie, "little")

    def fire(self, times: int = 1) -> int:
        """How long the burst took."""
        with self._netns.entered():
            path = sysctl_path("net.ipv4.tcp_fin_timeout")
            start_ns = time.monotonic_ns()
            for _ in range(times):
                path.write_text("50")
            return time.monotonic_ns() - start_ns

    def pass_interval(self) -> None:
        end_ns = time.monotonic_ns() + INTERVAL_NS
        wait_for(lambda: time.monotonic_ns() > end_ns, 1, "the rate limit's interval")

    @property
    def counters(self) -> ScenarioCounters:
        (counted,) = self.rig.bpf.counters("ticker")
        return counted


@pytest.fixture
def make_ticker(tmp_path: Path, netns: Namespace) -> Iterator[Callable[..., Ticker]]:
    with contextlib.ExitStack() as stack:

        def make(send: str, *, dry_run: bool = False) -> Ticker:
            rig = stack.enter_context(opened(tmp_path / "cache", dry_run=dry_run))
            folder = make_tuner(
                tmp_path,
                "ticker",
                hooks={"tick": ["cgroup:sysctl"]},
                source=TICK % (os.getpid(), send),
                fields=FIELDS,
                structs=TASK,
            )
            rig.load(folder)
            return Ticker(rig, netns)

        yield make


@pytest.fixture
def ticker(make_ticker: Callable[[str], Ticker]) -> Ticker:
    return make_ticker("SEND")


def test_one_event_per_interval_and_the_rest_is_counted(ticker: Ticker) -> None:
    took_ns = ticker.fire(50)
    events = ticker.rig.events()

    assert 1 <= len(events) <= 1 + took_ns // INTERVAL_NS
    assert ticker.counters.sent == len(events)
    assert ticker.counters.suppressed == 50 - len(events)

    before = ticker.counters.suppressed - sum(event.suppressed for event in events)
    ticker.pass_interval()
    ticker.fire()
    (event,) = ticker.rig.events()
    assert event.suppressed == before
    assert event.netns_cookie == ticker.cookie
    assert abs(time.monotonic_ns() - event.time_ns) < 10**9


def test_a_namespaces_limit_is_its_own(ticker: Ticker) -> None:
    ticker.fire()
    other = sysctl_path("net.ipv4.tcp_fin_timeout")
    other.write_text(other.read_text())

    assert len({event.netns_cookie for event in ticker.rig.events()}) == 2


def test_send_always_has_no_limit(make_ticker: Callable[[str], Ticker]) -> None:
    ticker = make_ticker("SEND_ALWAYS")
    ticker.fire(50)

    assert len(ticker.rig.events()) == 50
    assert ticker.counters.suppressed == 0


def test_off_is_filtered_in_the_kernel_and_only_there(ticker: Ticker) -> None:
    ticker.rig.bpf.set_off(ticker.cookie, "ticker", off=True)
    ticker.fire()
    assert ticker.rig.events() == []
    assert ticker.counters.sent == ticker.counters.suppressed == 0

    ticker.rig.bpf.set_off(ticker.cookie + 1, "ticker", off=True)
    ticker.rig.bpf.set_off(ticker.cookie, "ticker", off=False)
    ticker.rig.bpf.set_off(ticker.cookie, "ticker", off=False)
    ticker.fire()
    assert len(ticker.rig.events()) == 1


def test_probes_know_what_was_changed(make_ticker: Callable[[str], Ticker]) -> None:
    ticker = make_ticker("SEND_ALWAYS")
    ticker.fire()
    ticker.rig.bpf.set_changed(ticker.cookie, "ticker", changed=True)
    ticker.fire()
    ticker.rig.bpf.set_changed(ticker.cookie, "ticker", changed=False)
    ticker.fire()

    assert [event["changed"] for event in ticker.rig.events()] == [0, 1, 0]


@pytest.mark.parametrize("dry_run", [False, True])
def test_probes_know_whether_they_may_act(make_ticker: Callable[..., Ticker], dry_run: bool) -> None:
    ticker = make_ticker("SEND", dry_run=dry_run)
    ticker.fire()

    (event,) = ticker.rig.events()
    assert event["dry_run"] == dry_run


def test_near_full_takes_the_shift_of_the_settings(make_ticker: Callable[[str], Ticker]) -> None:
    """Shift 2: 75 of 100 is near; an arithmetic shift keeps negative limits sane."""
    ticker = make_ticker("SEND_ALWAYS")
    ticker.fire()

    (event,) = ticker.rig.events()
    assert event["near"] == 0b010


def test_sampling_thins_out_under_load(make_ticker: Callable[[str], Ticker]) -> None:
    ticker = make_ticker("SEND_ALWAYS")
    ticker.fire(500)
    sampled = sum(event["sampled"] for event in ticker.rig.events())

    assert 1 <= sampled < 500 // 4, "1 in 4 at first, fewer as the samples come close together"


def test_a_full_ring_drops_and_counts(make_ticker: Callable[[str], Ticker]) -> None:
    ticker = make_ticker("SEND_ALWAYS")
    ticker.fire(1000)
    counted = ticker.counters

    assert counted.dropped > 0
    assert counted.sent + counted.dropped == 1000
    assert ticker.rig.bpf.ring_dropped() == counted.dropped
    assert len(ticker.rig.events()) == counted.sent
    ticker.fire()
    assert len(ticker.rig.events()) == 1, "room again"

    ticker.rig.bpf.unload("ticker")
    assert ticker.rig.bpf.ring_dropped() == counted.dropped, "an unloaded tuner's losses stay counted"


def test_detached_is_silent_and_attached_again_is_not(ticker: Ticker) -> None:
    ticker.rig.bpf.detach("ticker")
    ticker.fire()
    assert ticker.rig.events() == []

    ticker.rig.bpf.attach("ticker")
    ticker.fire()
    assert len(ticker.rig.events()) == 1


def test_a_handler_that_raises_costs_no_other_record(make_ticker: Callable[[str], Ticker]) -> None:
    ticker = make_ticker("SEND_ALWAYS")
    ticker.fire(3)
    handled: list[bytes] = []

    def handle(record: bytes) -> None:
        handled.append(record)
        raise RuntimeError(f"handler {len(handled)}")

    with pytest.raises(RuntimeError, match="handler 1"):
        ticker.rig.bpf.consume(handle)
    assert len(handled) == 3
    assert ticker.rig.events() == []


def test_an_unloaded_tuner_is_an_error_and_can_be_loaded_again(ticker: Ticker, tmp_path: Path) -> None:
    ticker.rig.bpf.unload("ticker")
    with pytest.raises(BpfError, match="'ticker': they are not loaded"):
        ticker.rig.bpf.attach("ticker")

    ticker.rig.load(tmp_path / "ticker")
    ticker.fire()
    assert len(ticker.rig.events()) == 1
