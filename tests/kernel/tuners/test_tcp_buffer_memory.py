# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP memory: stuck connections fill it, tcp_mem makes room or buffers give way, and it all goes back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.supervisor.memory import Memory
from tests.kernel import sysctl_guard, traffic
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon, running
from tests.kernel.namespaces import Namespace, Pair, read_sysctl, sysctl_path
from tests.kernel.tuners.handshakes import ROOMY, listening
from tests.kernel.tuners.handshakes import running as sending_handshakes
from tests.kernel.tuners.stuck import stuck
from tests.requirements import require
from tests.waiting import wait_for

TCP_MEM = "net.ipv4.tcp_mem"
LARGE_PAGES = "net.core.high_order_alloc_disable"
RMEM, WMEM = "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"
COOKIES = "net.ipv4.tcp_syncookies"
METRICS = "net.ipv4.tcp_no_metrics_save"
SSTHRESH = "net.ipv4.tcp_no_ssthresh_metrics_save"
LOW = (4096, 6144, 12288)
"""Pages. A stuck connection takes a thousand of them."""
SCARCE = (1024, 1536, 3072)
"""Where buffers are small, it takes less than a hundred."""


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    keys = (TCP_MEM, LARGE_PAGES)
    require(all(sysctl_path(key).exists() for key in keys), "needs the sysctls of TCP memory")
    before = sysctl_guard.read(keys)
    sysctl_path(TCP_MEM).write_text(" ".join(map(str, LOW)))
    sysctl_path(LARGE_PAGES).write_text("0")
    yield
    sysctl_guard.restore(before)


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
    scarce = " ".join(map(str, SCARCE))
    settings.write_text(f"{TCP_MEM} = {scarce}\n")
    sysctl_path(TCP_MEM).write_text(scarce)
    yield
    settings.unlink()


def test_where_there_is_no_more_buffers_give_way_and_switches_save(
    distant: Pair, tcp_mem_is_the_administrators: None, start_daemon: StartDaemon
) -> None:
    distant.b.write_sysctl(RMEM, "4096 131072 131072")
    distant.b.write_sysctl(WMEM, "4096 16384 65536")
    distant.b.write_sysctl(METRICS, "1")
    distant.b.write_sysctl(SSTHRESH, "0")
    daemon = start_daemon("--allow", "tcp_buffer")
    raise_rmem_and_wmem(distant, daemon)
    raised = largest(distant.b, RMEM), largest(distant.b, WMEM)

    with stuck(distant.b, 60):
        daemon.wait_line(rf"change {re.escape(SSTHRESH)} from \(0\) -> \(1\) in netns '{distant.b.name}'")
        daemon.wait_line(rf"change {re.escape(LARGE_PAGES)} from \(0\) -> \(1\)")
        wait_for(lambda: largest(distant.b, RMEM) < raised[0], 5, "the receive buffer limit comes down")
        wait_for(lambda: largest(distant.b, WMEM) < raised[1], 5, "the send buffer limit comes down")
        assert largest(distant.b, RMEM) >= 131072
        assert largest(distant.b, WMEM) >= 65536
        assert (read_sysctl(LARGE_PAGES), distant.b.read_sysctl(SSTHRESH)) == ("1", "1")

    wait_for(
        lambda: (read_sysctl(LARGE_PAGES), distant.b.read_sysctl(SSTHRESH)) == ("0", "0"),
        20,
        "what was switched on is switched off",
    )
    assert distant.b.read_sysctl(METRICS) == "1", "the administrator's own"
    assert tcp_mem() == SCARCE
    assert not any(METRICS in line for line in daemon.lines)


SMALL_MACHINE = """Node 0, zone   Normal
        high     0
        managed  16384
"""
SMALL_CAPS = (1024, 2048, 4096)
WITH_ZONEINFO = 'mount --bind "$1" /proc/zoneinfo && shift && exec "$@"'


def test_at_its_cap_buffers_give_way_as_well(distant: Pair, tmp_path: Path, daemon_directory: Path) -> None:
    """A machine so small that its share for TCP can be filled."""
    zoneinfo = tmp_path / "zoneinfo"
    zoneinfo.write_text(SMALL_MACHINE)
    wrapper = ("unshare", "--mount", "sh", "-c", WITH_ZONEINFO, "sh", str(zoneinfo))
    sysctl_path(TCP_MEM).write_text("512 1024 2048")
    distant.b.write_sysctl(RMEM, "4096 131072 131072")
    distant.b.write_sysctl(WMEM, "4096 16384 65536")
    with running("--allow", "tcp_buffer", directory=daemon_directory, wrapper=wrapper) as daemon:
        raise_rmem_and_wmem(distant, daemon)
        with stuck(distant.b, 100):
            daemon.wait_line(rf"{re.escape(TCP_MEM)} in global ns has reached its cap \(1024 2048 4096\)")
            daemon.wait_line(r"at its cap change net\.ipv4\.tcp_rmem")
        assert tcp_mem() == SMALL_CAPS


def test_cookies_stand_in_for_memory_that_is_short(
    veth: Pair, tcp_mem_is_the_administrators: None, start_daemon: StartDaemon
) -> None:
    require(sysctl_path(COOKIES).exists(), "needs a kernel with SYN cookies")
    veth.b.write_sysctl(COOKIES, "0")
    veth.b.write_sysctl("net.ipv4.tcp_max_syn_backlog", "512")
    daemon = start_daemon("--allow", "tcp_buffer")
    with stuck(veth.b, 20), listening(veth, ROOMY), sending_handshakes(veth.a, "syns", veth.b_ipv4, 2000):
        daemon.wait_line(
            rf"change {re.escape(COOKIES)} from \(0\) -> \(1\) in netns '{veth.b.name}'", timeout_s=20
        )


def raise_rmem_and_wmem(path: Pair, daemon: Daemon) -> None:
    """Traffic in both directions that needs larger buffers in b."""
    with traffic.receiver(path.b, path.b_ipv4) as to, traffic.sending(path.a, to, seconds=20):
        daemon.wait_line(r"change net\.ipv4\.tcp_rmem")
    with traffic.receiver(path.a, path.a_ipv4) as to, traffic.sending(path.b, to, seconds=20):
        daemon.wait_line(r"change net\.ipv4\.tcp_wmem")


def largest(where: Namespace, key: str) -> int:
    return int(where.read_sysctl(key).split()[2])
