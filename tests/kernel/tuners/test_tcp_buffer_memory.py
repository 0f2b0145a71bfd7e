# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP memory: stuck connections fill it, tcp_mem makes room or buffers give way, and it all goes back."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.supervisor.memory import Memory
from tests.kernel import sysctl_guard, traffic
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace, Pair, read_sysctl, sysctl_path
from tests.requirements import require
from tests.waiting import wait_for

TCP_MEM = "net.ipv4.tcp_mem"
LARGE_PAGES = "net.core.high_order_alloc_disable"
RMEM = "net.ipv4.tcp_rmem"
METRICS = "net.ipv4.tcp_no_metrics_save"
SSTHRESH = "net.ipv4.tcp_no_ssthresh_metrics_save"
STUCK = str(Path(__file__).with_name("stuck.py"))
PORT = 7000
LOW = (4096, 6144, 12288)
"""Pages. A stuck connection takes a thousand of them."""


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    keys = (TCP_MEM, LARGE_PAGES)
    require(all(sysctl_path(key).exists() for key in keys), "needs the sysctls of TCP memory")
    before = sysctl_guard.read(keys)
    sysctl_path(TCP_MEM).write_text(" ".join(map(str, LOW)))
    sysctl_path(LARGE_PAGES).write_text("0")
    yield
    sysctl_guard.restore(before)


@contextlib.contextmanager
def stuck(where: Namespace, connections: int) -> Iterator[None]:
    """Connections that hold all the memory that they get."""
    command = where.command(traffic.PYTHON, STUCK, "127.0.0.1", str(PORT), str(connections))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "stuck\n"
            yield
        finally:
            process.kill()


def tcp_mem() -> tuple[int, ...]:
    return tuple(map(int, read_sysctl(TCP_MEM).split()))


def allocated_pages() -> int:
    found = re.search(r"^TCP: .* mem (\d+)$", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_limits_grow_ahead_of_what_sockets_hold(netns: Namespace, start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--allow", "tcp_buffer", "--rollback")
    with stuck(netns, 20):
        held, after = allocated_pages(), tcp_mem()
    assert held > LOW[2], "more than all sockets could have before"
    assert after[1] > held, "and no pressure"
    memory = Memory().pages
    caps = (memory // 16, memory // 8, memory // 4)
    assert all(low < now <= max(low, cap) for low, now, cap in zip(LOW, after, caps, strict=True))
    daemon.wait_line(r"change net\.ipv4\.tcp_mem\(min pressure max\) from \(4096 6144 12288\) -> ")
    assert daemon.stop().exit_code == 0
    assert tcp_mem() == LOW


def test_limits_larger_than_their_caps_stay(netns: Namespace, start_daemon: StartDaemon) -> None:
    memory = Memory().pages
    large = (2048, 4096, memory)
    sysctl_path(TCP_MEM).write_text(" ".join(map(str, large)))
    daemon = start_daemon("--allow", "tcp_buffer")
    with stuck(netns, 8):
        daemon.wait_line(r"change net\.ipv4\.tcp_mem")
    after = tcp_mem()
    assert after[1] > large[1]
    assert after[2] == memory


@pytest.fixture
def tcp_mem_is_the_administrators() -> Iterator[None]:
    """Left alone by bpftune, so that it is at its cap wherever that is."""
    settings = Path("/run/sysctl.d/99-bpftune-test.conf")
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(f"{TCP_MEM} = {' '.join(map(str, LOW))}\n")
    yield
    settings.unlink()


def test_where_there_is_no_more_buffers_give_way_and_switches_save(
    distant: Pair, tcp_mem_is_the_administrators: None, start_daemon: StartDaemon
) -> None:
    distant.b.write_sysctl(RMEM, "4096 131072 131072")
    distant.b.write_sysctl(METRICS, "1")
    distant.b.write_sysctl(SSTHRESH, "0")
    daemon = start_daemon("--allow", "tcp_buffer")
    raised = raise_rmem(distant, daemon)

    with stuck(distant.b, 20):
        daemon.wait_line(rf"change {re.escape(SSTHRESH)} from \(0\) -> \(1\) in netns '{distant.b.name}'")
        daemon.wait_line(rf"change {re.escape(LARGE_PAGES)} from \(0\) -> \(1\)")
        wait_for(lambda: rmem_max(distant.b) < raised, 5, "the receive buffer limit comes down")
        assert rmem_max(distant.b) >= 131072
        assert (read_sysctl(LARGE_PAGES), distant.b.read_sysctl(SSTHRESH)) == ("1", "1")

    wait_for(
        lambda: (read_sysctl(LARGE_PAGES), distant.b.read_sysctl(SSTHRESH)) == ("0", "0"),
        20,
        "what was switched on is switched off",
    )
    assert distant.b.read_sysctl(METRICS) == "1", "the administrator's own"
    assert tcp_mem() == LOW


def raise_rmem(path: Pair, daemon: Daemon) -> int:
    """Traffic that needs a larger receive buffer; the limit that it was given."""
    with traffic.receiver(path.b, path.b_ipv4) as to, traffic.sending(path.a, to, seconds=20):
        daemon.wait_line(r"change net\.ipv4\.tcp_rmem")
    return rmem_max(path.b)


def rmem_max(where: Namespace) -> int:
    return int(where.read_sysctl(RMEM).split()[2])
