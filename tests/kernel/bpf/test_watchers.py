# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor's watchers, loaded, attached and fired."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpftune.ipc.record import Event
from tests.kernel import namespaces
from tests.kernel.bpf.rig import WATCH_NETNS, WATCH_NETNS_CALLS, WATCH_SYSCTL, Rig, opened
from tests.kernel.namespaces import Namespace, namespace, sysctl_path
from tests.requirements import require_kernel_memory, require_rung
from tests.waiting import wait_for

CLONE = """
import ctypes, os, platform
number = {"x86_64": 56, "aarch64": 220, "riscv64": 220}[platform.machine()]
CLONE_NEWNET, SIGCHLD = 0x40000000, 17
child = ctypes.CDLL(None).syscall(ctypes.c_long(number), ctypes.c_ulong(CLONE_NEWNET | SIGCHLD), 0, 0, 0, 0)
if child == 0:
    os._exit(0)
print(child)
os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bpf") / "cache"


@pytest.fixture
def rig(cache: Path) -> Iterator[Rig]:
    with opened(cache) as made:
        made.load(WATCH_SYSCTL)
        yield made


@pytest.fixture(params=[WATCH_NETNS, WATCH_NETNS_CALLS], ids=lambda folder: folder.name)
def watcher(request: pytest.FixtureRequest) -> Path:
    """Either of the two that see new namespaces."""
    folder: Path = request.param
    return folder


@pytest.fixture
def netns_rig(watcher: Path, cache: Path) -> Iterator[Rig]:
    with opened(cache) as made:
        made.load(watcher)
        for status in made.bpf.hooks(watcher.name):
            require_rung(status.hook, f"{status.refused}")
        yield made


def seen(rig: Rig, wanted: Callable[[Event], bool]) -> Event:
    """The first event that fits; others on this machine cause events of their own."""
    return wait_for(lambda: list(filter(wanted, rig.events())), 2, "the event")[0]


def writes_by(pid: int) -> Callable[[Event], bool]:
    return lambda event: event.scenario == "sysctl_write" and event["pid"] == pid


def test_hooks_in_use(rig: Rig) -> None:
    assert [status.hook for status in rig.bpf.hooks("watch_sysctl")] == ["cgroup:sysctl"]


def test_a_write_tells_who_what_and_where(rig: Rig, netns: Namespace) -> None:
    netns.write_sysctl("net.ipv4.tcp_rmem", "4096 70000 500000")

    event = seen(rig, writes_by(os.getpid()))

    assert event.text("key") == "net/ipv4/tcp_rmem"
    assert event.text("new_value") == "4096 70000 500000"
    assert event.text("current_value").split()[0] == "4096"
    assert event["new_length"] == len("4096 70000 500000")
    assert event.text("comm") == Path("/proc/self/comm").read_text().strip()
    assert event["uid"] == 0
    assert event["file_pos"] == 0


def test_a_write_carries_the_writers_namespace(rig: Rig, netns: Namespace) -> None:
    records: list[bytes] = []
    netns.write_sysctl("net.ipv4.tcp_fin_timeout", "59")
    rig.bpf.consume(records.append)
    inums = {int.from_bytes(record[16:20], sys.byteorder) for record in records}

    assert netns.inum in inums


def test_another_processs_write_is_seen(rig: Rig, netns: Namespace) -> None:
    writer = subprocess.Popen(netns.command("sysctl", "-w", "net.ipv4.tcp_fin_timeout=58"))
    writer.wait()

    event = seen(rig, writes_by(writer.pid))

    assert (event.text("comm"), event.text("key")) == ("sysctl", "net/ipv4/tcp_fin_timeout")


def test_the_supervisors_own_writes_are_not_seen(rig: Rig, netns: Namespace) -> None:
    rig.bpf.set_supervisor(os.getpid())
    netns.write_sysctl("net.ipv4.tcp_fin_timeout", "57")
    assert not any(map(writes_by(os.getpid()), rig.events()))

    rig.bpf.set_supervisor(0)
    netns.write_sysctl("net.ipv4.tcp_fin_timeout", "56")
    assert seen(rig, writes_by(os.getpid())).text("new_value") == "56"


def test_reading_is_not_writing(rig: Rig, netns: Namespace) -> None:
    netns.read_sysctl("net.ipv4.tcp_rmem")

    assert not any(map(writes_by(os.getpid()), rig.events()))


def test_every_write_counts_however_quick(rig: Rig, netns: Namespace) -> None:
    with netns.entered():
        for value in range(40):
            sysctl_path("net.ipv4.tcp_fin_timeout").write_text(str(30 + value))

    written = [event.text("new_value") for event in rig.events() if writes_by(os.getpid())(event)]

    assert written == [str(30 + value) for value in range(40)]


def test_a_write_that_fails_is_seen_as_well(rig: Rig, netns: Namespace) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        netns.write_sysctl("net.ipv4.tcp_fin_timeout", "bogus")

    assert seen(rig, writes_by(os.getpid())).text("new_value") == "bogus"


def test_a_value_as_long_as_a_mask_of_512_cpus_fits(rig: Rig, netns: Namespace) -> None:
    mask = ",".join(["0f0f0f0f"] * 16)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        netns.write_sysctl("net.ipv4.tcp_fin_timeout", mask)

    event = seen(rig, writes_by(os.getpid()))

    assert event.text("new_value") == mask
    assert event["new_length"] == len(mask) == 143


def test_a_value_that_does_not_fit_says_so(rig: Rig, netns: Namespace) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        netns.write_sysctl("net.ipv4.tcp_fin_timeout", "9" * 200)

    event = seen(rig, writes_by(os.getpid()))

    assert event["new_length"] == -errno.E2BIG
    assert event.text("new_value").startswith("9" * 100)


def test_a_long_key_arrives_whole(rig: Rig, netns: Namespace) -> None:
    device = "fifteen-letters"
    netns.run("ip", "link", "add", device, "type", "veth", "peer", "name", "other")
    key = f"net/ipv6/conf/{device}/accept_ra_rt_info_min_plen"
    with netns.entered():
        path = Path("/proc/sys") / key
        path.write_text(path.read_text())

    assert seen(rig, writes_by(os.getpid())).text("key") == key


def test_unshare_is_seen(netns_rig: Rig) -> None:
    creator = subprocess.Popen(["unshare", "--net", "true"])
    creator.wait()

    assert seen(netns_rig, created_by(creator.pid)).netns_cookie != 0


def test_ip_netns_add_is_seen_with_cookie_and_inum(netns_rig: Rig) -> None:
    with namespace() as created:
        found = {event.netns_cookie: event.netns_inum for event in netns_rig.events()}

        assert found[namespaces.cookie(created)] == created.inum


def test_clone_is_seen(netns_rig: Rig, watcher: Path) -> None:
    """By the calls the child is known, and by what the kernel does the one who called."""
    creator = subprocess.Popen([sys.executable, "-c", CLONE], stdout=subprocess.PIPE, text=True)
    child = int(creator.communicate()[0])

    event = seen(netns_rig, lambda event: event["pid"] in (child, creator.pid))

    assert event.netns_cookie != 0
    assert event["pid"] == (child if watcher == WATCH_NETNS_CALLS else creator.pid)


def test_clone_is_seen_by_older_kernels(cache: Path) -> None:
    """-L leaves tp_btf for raw_tp, whose body reads through bpf_probe_read_kernel."""
    require_kernel_memory()
    with opened(cache, legacy=True) as rig:
        rig.load(WATCH_NETNS_CALLS)
        assert rig.bpf.hooks("watch_netns_calls")[0].hook == "raw_tp:task_newtask"
        creator = subprocess.Popen([sys.executable, "-c", CLONE], stdout=subprocess.PIPE, text=True)
        child = int(creator.communicate()[0])

        assert seen(rig, created_by(child)).netns_cookie != 0


def test_a_failed_unshare_creates_nothing(netns_rig: Rig) -> None:
    creator = subprocess.Popen(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "unshare", "--net", "true"],
        stderr=subprocess.DEVNULL,
    )
    assert creator.wait() != 0

    assert not any(map(created_by(creator.pid), netns_rig.events()))


def created_by(pid: int) -> Callable[[Event], bool]:
    return lambda event: event.scenario == "netns_created" and event["pid"] == pid
