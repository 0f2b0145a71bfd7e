# SPDX-License-Identifier: GPL-2.0-or-later
"""udp_buffer on a real kernel: bursts to a reader that needs a while for each of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kernel import sysctl_guard
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace, Pair, read_sysctl, sysctl_path
from tests.kernel.traffic import PYTHON
from tests.requirements import require
from tests.waiting import PACE, wait_for

RMEM_MAX = "net.core.rmem_max"
RMEM_DEFAULT = "net.core.rmem_default"
UDP_MEM = "net.ipv4.udp_mem"

PROGRAM = (PYTHON, str(Path(__file__).with_name("datagrams.py")))
PORT = 5302
SMALL_BYTES = 40_000

CAP_BYTES = 256 << 20
NEAR_CAP_BYTES = CAP_BYTES - (4 << 20)

BURST = 600
BURST_EVERY_MS = 200
READS_PER_S = 15_000
"""A burst takes a fifth of the time until the next one."""


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """The test may set the global limits; they are put back."""
    before = sysctl_guard.read((RMEM_MAX, RMEM_DEFAULT, UDP_MEM))
    yield
    sysctl_guard.restore(before)


@contextlib.contextmanager
def bursts(
    veth: Pair,
    *options: str,
    reads_per_s: int = READS_PER_S,
    count: int = BURST,
    every_ms: int = BURST_EVERY_MS,
) -> Iterator[None]:
    """From a to b; all of it slower where deadlines are longer."""
    to = (veth.b_ipv4, str(PORT))
    rate, every = str(round(reads_per_s / PACE)), str(round(every_ms * PACE))
    with veth.b.running(*PROGRAM, "receive", *to, rate, *options) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        with veth.a.running(*PROGRAM, "send", *to, str(count), every):
            yield


def udp_counter(where: Namespace, name: str) -> int:
    names, numbers = (
        line.split() for line in where.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Udp:")
    )
    return int(numbers[names.index(name)])


def memory_drops(where: Namespace) -> int:
    """The kernel has no counter of its own: what arrived, was not received and is not waiting."""
    rows = where.run("cat", "/proc/net/udp").splitlines()[1:]
    return sum(int(row.split()[-1]) for row in rows)


def write(key: str, value: str | int) -> None:
    sysctl_path(key).write_text(str(value))


def limit(key: str, field: int = 0) -> int:
    return int(read_sysctl(key).split()[field])


def nothing_is_lost(where: Namespace, for_s: float = 1.5) -> bool:
    """No datagram is lost and some arrive while we look."""
    lost, received = udp_counter(where, "RcvbufErrors"), udp_counter(where, "InDatagrams")
    time.sleep(for_s * PACE)
    return (
        udp_counter(where, "RcvbufErrors") == lost
        and udp_counter(where, "InDatagrams") > received + 2 * BURST
    )


def changes(daemon: Daemon, scenario: str) -> int:
    return sum(change["scenario"] == scenario for change in daemon.ctl("history")["changes"])


def test_default_buffers_grow_until_nothing_is_lost(veth: Pair, start_daemon: StartDaemon) -> None:
    write(RMEM_DEFAULT, SMALL_BYTES)
    rmem_max = limit(RMEM_MAX)
    daemon = start_daemon("--allow", "udp_buffer")

    with bursts(veth, "--reopen-ms", str(700 * PACE)):
        daemon.wait_line(rf"change {RMEM_DEFAULT} from \({SMALL_BYTES}\) -> ")
        wait_for(lambda: nothing_is_lost(veth.b), 30, "a default buffer that holds a burst")

    assert limit(RMEM_DEFAULT) > BURST * 1000
    assert limit(RMEM_DEFAULT) < 10 * BURST * 1000, "no more than what a burst needs"
    assert limit(RMEM_MAX) == rmem_max
    assert changes(daemon, "default_buffer_full") <= 6


def test_buffers_of_the_largest_size_allowed_count_for_rmem_max(
    veth: Pair, start_daemon: StartDaemon
) -> None:
    write(RMEM_MAX, SMALL_BYTES)
    rmem_default = limit(RMEM_DEFAULT)
    daemon = start_daemon("--allow", "udp_buffer")

    with bursts(veth, "--reopen-ms", str(700 * PACE), "--rcvbuf", "8000000"):
        daemon.wait_line(rf"change {RMEM_MAX} from \({SMALL_BYTES}\) -> ")
        wait_for(lambda: nothing_is_lost(veth.b), 30, "a buffer that holds a burst")

    assert limit(RMEM_MAX) > BURST * 1000 // 2, "the kernel doubles what is asked for"
    assert limit(RMEM_DEFAULT) == rmem_default


def test_no_buffer_grows_beyond_the_cap(netns: Namespace, start_daemon: StartDaemon) -> None:
    """Datagrams as large as loopback takes fill a buffer of 256 MiB within a second or so."""
    require(psutil.virtual_memory().available > 4 * CAP_BYTES, "needs 1 GiB of free memory")
    write(RMEM_DEFAULT, NEAR_CAP_BYTES)
    daemon = start_daemon("--allow", "udp_buffer")
    receiving = ("receive", "127.0.0.1", str(PORT), "1000", "--reopen-ms", "2000")

    with netns.running(*PROGRAM, *receiving) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "listening\n"
        with netns.running(*PROGRAM, "send", "127.0.0.1", str(PORT), "10000", "1000", "--bytes", "60000"):
            daemon.wait_line(rf"change {RMEM_DEFAULT} from \({NEAR_CAP_BYTES}\) -> \({CAP_BYTES}\)", 20)
            daemon.wait_line(rf"{RMEM_DEFAULT} in global ns has reached its cap \({CAP_BYTES}\)")
            events = daemon.tuner("udp_buffer")["events_in"]
            wait_for(lambda: daemon.tuner("udp_buffer")["events_in"] > events + 2, 20, "losses at the cap")

    assert limit(RMEM_DEFAULT) in (NEAR_CAP_BYTES, CAP_BYTES), (
        "a step to the cap that did not pay is taken back"
    )
    assert changes(daemon, "default_buffer_full") == 1
    assert sum("its cap" in line or "as far as it may go" in line for line in daemon.lines) == 1


def test_a_reader_that_is_too_slow_gets_no_more(veth: Pair, start_daemon: StartDaemon) -> None:
    write(RMEM_DEFAULT, SMALL_BYTES)
    daemon = start_daemon("--allow", "udp_buffer")

    with bursts(veth, "--reopen-ms", str(1500 * PACE), reads_per_s=4000, count=150, every_ms=10):
        text = daemon.wait_line("growth stops: the last two steps changed (.*)", 60)[1]
        daemon.wait_line(rf"Due to UDP buffer growth that did not pay change {RMEM_DEFAULT}")
        stopped = limit(RMEM_DEFAULT)
        assert not nothing_is_lost(veth.b)

    assert "datagrams received per datagram lost" in text
    assert limit(RMEM_DEFAULT) == stopped
    assert changes(daemon, "rmem_default_unpaid") == 1


def test_a_socket_made_before_the_growth_buys_no_second_one(veth: Pair, start_daemon: StartDaemon) -> None:
    write(RMEM_DEFAULT, SMALL_BYTES)
    daemon = start_daemon("--allow", "udp_buffer")

    with bursts(veth):
        daemon.wait_line("sockets made before .* still lose datagrams")
        grown = limit(RMEM_DEFAULT)
        assert not nothing_is_lost(veth.b, for_s=3)

    assert limit(RMEM_DEFAULT) == grown > SMALL_BYTES
    assert changes(daemon, "default_buffer_full") == 1


def test_udp_memory_grows_under_its_cap(veth: Pair, start_daemon: StartDaemon) -> None:
    """The first of the three is what limits sockets that hold more than udp_rmem_min."""
    administrators = 2_000_000
    write(UDP_MEM, f"300 400 {administrators}")
    daemon = start_daemon("--allow", "udp_buffer")

    with bursts(veth, "--rcvbuf", "100000000", "--force", count=2000):
        daemon.wait_line(rf"change {UDP_MEM}\(min pressure max\) from \(300 400 {administrators}\)")
        before = memory_drops(veth.b)
        assert before > 0
        wait_for(lambda: limit(UDP_MEM) >= 600, 40, "memory for all of a burst")

    assert limit(UDP_MEM, 1) > 400
    assert limit(UDP_MEM, 2) == administrators, "above the cap already: neither raised nor lowered"
    assert changes(daemon, "udp_memory_full") >= 3


def test_nothing_changes_in_a_namespace_where_the_tuner_is_off(veth: Pair, start_daemon: StartDaemon) -> None:
    write(RMEM_DEFAULT, SMALL_BYTES)
    daemon = start_daemon("--allow", "udp_buffer")
    daemon.ctl("disable", "udp_buffer", "--netns", veth.b.name)

    with bursts(veth):
        assert not nothing_is_lost(veth.b)

    assert limit(RMEM_DEFAULT) == SMALL_BYTES
    assert daemon.ctl("history")["changes"] == []
