# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever way a network namespace came about, it is named, tuned and forgotten; and what may be odd in one.

Traffic is first fragments of datagrams whose rest never comes, sent over the namespace's own loopback: they
fill the memory for reassembly, which ip_frag raises.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon, running
from tests.kernel.namespaces import CLONE_NEWNET, INITIAL, checked, namespace
from tests.kernel.traffic import PYTHON
from tests.requirements import require
from tests.waiting import wait_for

FRAGMENTS = str(Path(__file__).parents[1] / "tuners" / "fragments.py")
PER_SECOND = 1500
HIGH, LOW = "net.ipv4.ipfrag_high_thresh", "net.ipv4.ipfrag_low_thresh"
HIGH_IPV6 = "net.ipv6.ip6frag_high_thresh"
LEAST_MEMORY_BYTES = 2 << 30
"""The cap is a 256th of memory: with less of it the default of 4 MiB cannot grow."""

SYS_CLONE = {"x86_64": 56, "aarch64": 220}
CLONE = f"""
import ctypes, os, signal
flags = {CLONE_NEWNET} | signal.SIGCHLD
child = ctypes.CDLL(None).syscall({SYS_CLONE.get(os.uname().machine)}, flags, 0, 0, 0, 0)
if child == 0:
    os.execvp("cat", ["cat"])
print(child, flush=True)
os.waitpid(child, 0)
"""
LEAVE_A_CHILD = "exec 3<&0; cat <&3 & echo $!"
"""A job in the background would read from /dev/null."""

HIDE_IPV6 = 'mount -t tmpfs none /proc/sys/net/ipv6 && exec "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A namespace, whoever made it."""

    path: Path
    called: str

    @property
    def inum(self) -> int:
        return self.path.stat().st_ino

    def run(self, *argv: str) -> str:
        return checked(["nsenter", f"--net={self.path}", *argv])

    def limit(self, key: str = HIGH) -> int:
        return int(self.run("sysctl", "-n", key))


@contextlib.contextmanager
def by_ip_netns() -> Iterator[Place]:
    with namespace("kind") as made:
        yield Place(path=made.path, called=made.name)


@contextlib.contextmanager
def by_unshare() -> Iterator[Place]:
    with reading("unshare", "--net", "cat") as process:
        yield of_process(process.pid)


@contextlib.contextmanager
def by_clone() -> Iterator[Place]:
    """The child is in a new namespace from its first instruction on; nobody calls unshare(2)."""
    require(os.uname().machine in SYS_CLONE, "needs the number of clone(2) on this machine")
    with reading(PYTHON, "-c", CLONE) as process:
        yield of_process(told_pid(process))


@contextlib.contextmanager
def by_a_runtime() -> Iterator[Place]:
    """As runc does it: with a user, a mount and a UTS namespace, by a process that has ended when the
    container runs."""
    apart = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--uts")
    with reading(*apart, "sh", "-c", LEAVE_A_CHILD) as process:
        pid = told_pid(process)
        process.wait()
        yield of_process(pid)


KINDS = (by_ip_netns, by_unshare, by_clone, by_a_runtime)
Kind = Callable[[], contextlib.AbstractContextManager[Place]]


@contextlib.contextmanager
def reading(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose `cat`s end with the block, for then their standard input does."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def told_pid(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def of_process(pid: int) -> Place:
    path, comm = Path(f"/proc/{pid}/ns/net"), Path(f"/proc/{pid}/comm")
    wait_for(lambda: comm.read_text() == "cat\n", 5, "cat runs")
    assert path.stat().st_ino != INITIAL.inum
    return Place(path=path, called=f"pid {pid} (cat)")


@contextlib.contextmanager
def fragments(place: Place) -> Iterator[None]:
    place.run("ip", "link", "set", "lo", "up")
    command = ["nsenter", f"--net={place.path}", PYTHON, FRAGMENTS, "127.0.0.1", str(PER_SECOND)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def known(daemon: Daemon) -> dict[int, Any]:
    """By inode number."""
    return {netns["inum"]: netns for netns in daemon.ctl("status")["namespaces"]}


def names(daemon: Daemon) -> set[str]:
    return {netns["name"] for netns in known(daemon).values()}


def changed_in(daemon: Daemon) -> set[int]:
    """By cookie."""
    return {one["netns_cookie"] for one in daemon.ctl("status")["changed_in"]}


def wait_grown(daemon: Daemon, place: Place) -> int:
    """What its limit was raised to, according to the log."""
    where = re.escape(f"in netns '{place.called}'")
    return int(daemon.wait_line(rf"change {HIGH} from \(\d+\) -> \((\d+)\) {where}")[1])


def trouble(daemon: Daemon) -> list[str]:
    """What it has said since it was ready, other than what it did."""
    lines = daemon.lines
    ready = next(number for number, line in enumerate(lines) if "supports per-netns policy" in line)
    usual = re.compile("bpftune: (Scenario '|Due to |.* has reached its cap )")
    return [line for line in lines[ready + 1 :] if not usual.match(line)]


@pytest.fixture(autouse=True)
def _enough_memory() -> None:
    require(psutil.virtual_memory().total >= LEAST_MEMORY_BYTES, "needs 2 GiB of memory")


@pytest.mark.parametrize("is_first", [True, False], ids=["there_before", "made_later"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_is_named_tuned_and_forgotten(kind: Kind, is_first: bool, start_daemon: StartDaemon) -> None:
    initial = INITIAL.read_sysctl(HIGH)
    with contextlib.ExitStack() as made:
        place = made.enter_context(kind()) if is_first else None
        daemon = start_daemon("--allow", "ip_frag")
        place = place or made.enter_context(kind())
        inum = place.inum
        wait_for(
            lambda: known(daemon).get(inum, {}).get("name") == place.called, 5, f"{place.called} in status"
        )
        cookie = known(daemon)[inum]["cookie"]
        before = place.limit()
        with fragments(place):
            grown = wait_grown(daemon, place)
        assert place.limit() >= grown > before
        assert cookie in changed_in(daemon)

    wait_for(lambda: inum not in known(daemon), 5, "the ended namespace gone from status")
    assert cookie not in changed_in(daemon)
    assert not [one for one in daemon.ctl("tunables")["tunables"] if one["netns"]["cookie"] == cookie]
    assert INITIAL.read_sysctl(HIGH) == initial
    assert trouble(daemon) == []


def test_one_line_each_in_status(start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with by_ip_netns() as place:
        daemon = start_daemon("--allow", "ip_frag")
        with fragments(place):
            wait_grown(daemon, place)
            daemon.wait_line(f"change {LOW} ")
        done, inum = daemon.run_ctl("status", "--netns"), place.inum
    assert done.returncode == 0
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith(place.called)]
    assert row[2:] == [str(inum), HIGH, "-"]
    assert LOW in done.stdout, "on a line of its own: 80 columns are not enough for both"


def test_one_that_vanishes_between_event_and_write_is_no_error(start_daemon: StartDaemon) -> None:
    """The worker is stopped while it has the event in hand, and goes on when the namespace is gone."""
    daemon = start_daemon("--allow", "ip_frag")
    daemon.wait_active()
    worker = daemon.tuner("ip_frag")["pid"]
    with by_ip_netns() as brief:
        inum = brief.inum
        os.kill(worker, signal.SIGSTOP)
        with fragments(brief):
            wait_for(lambda: daemon.tuner("ip_frag")["events_in"] >= 1, 5, "an event")
    wait_for(lambda: inum not in known(daemon), 4, "the ended namespace gone from status")
    os.kill(worker, signal.SIGCONT)

    assert daemon.ctl("history")["changes"] == []
    with by_ip_netns() as other, fragments(other):
        wait_grown(daemon, other)
    assert (daemon.tuner("ip_frag")["pid"], daemon.tuner("ip_frag")["restarts"]) == (worker, 0)
    assert trouble(daemon) == []


def test_namespaces_that_end_under_traffic_leave_nothing(start_daemon: StartDaemon) -> None:
    """Each ends a moment after its first change, with events of it still under way."""
    daemon = start_daemon("--allow", "ip_frag")
    grow_in_passing(daemon, times=1)
    descriptors = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    cookies = grow_in_passing(daemon, times=9)

    assert len(cookies) == 9
    wait_for(lambda: not cookies & known_cookies(daemon), 5, "all forgotten")
    assert len(os.listdir(f"/proc/{daemon.pid}/fd")) <= descriptors
    assert changed_in(daemon) == set()
    assert trouble(daemon) == []


def grow_in_passing(daemon: Daemon, *, times: int) -> set[int]:
    """The cookies of the namespaces that were there for it."""
    cookies = set()
    for _ in range(times):
        with by_ip_netns() as place, fragments(place):
            wait_grown(daemon, place)
            cookies.add(known(daemon)[place.inum]["cookie"])
    return cookies


def known_cookies(daemon: Daemon) -> set[int]:
    return {netns["cookie"] for netns in known(daemon).values()}


def test_without_ipv6_in_a_namespace(start_daemon: StartDaemon) -> None:
    with by_ip_netns() as place:
        place.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        before = place.limit(HIGH_IPV6)
        daemon = start_daemon()
        with fragments(place):
            wait_grown(daemon, place)
        assert place.limit(HIGH_IPV6) == before
    assert trouble(daemon) == []


def test_without_ipv6_in_the_kernel(daemon_directory: Path) -> None:
    """Its sysctls are hidden from the daemon in the initial namespace; such a kernel has none."""
    hide = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", HIDE_IPV6, "sh")
    with running(directory=daemon_directory, wrapper=hide) as daemon, by_ip_netns() as place:
        active = daemon.wait_active()
        assert {"ip_frag", "neigh_table", "tcp_buffer"} <= active.keys()
        shown = {one["tunable"] for one in daemon.ctl("tunables")["tunables"]}
        assert HIGH in shown
        assert not [name for name in shown if name.startswith("net.ipv6.")]
        with fragments(place):
            wait_grown(daemon, place)
        assert trouble(daemon) == []
