# SPDX-License-Identifier: GPL-2.0-or-later
"""ip_frag on a real kernel: datagrams whose rest never comes, among others and alone."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel import namespaces
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace, Pair
from tests.kernel.traffic import PYTHON
from tests.requirements import require
from tests.waiting import PACE, wait_for

PROGRAM = str(Path(__file__).with_name("fragments.py"))
HIGH_BYTES, LOW_BYTES = 262_144, 196_608
UNFINISHED_PER_S = round(250 / PACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Where the kernel shows what concerns one address family."""

    address: str
    high: str
    low: str
    sockstat: str
    failures: str

    def held_bytes(self, where: Namespace) -> int:
        """Memory of the fragments that wait for the rest of their datagrams."""
        found = re.search(r"^FRAG6?: inuse \d+ memory (\d+)$", where.run("cat", self.sockstat), re.M)
        assert found is not None
        return int(found[1])

    def failed(self, where: Namespace) -> int:
        return counter(where, self.failures)

    def finished(self, where: Namespace) -> int:
        return counter(where, self.failures.replace("Fails", "OKs"))

    def limit(self, where: Namespace) -> int:
        return int(where.read_sysctl(self.high))


IPV4 = Family(
    address="b_ipv4",
    high="net.ipv4.ipfrag_high_thresh",
    low="net.ipv4.ipfrag_low_thresh",
    sockstat="/proc/net/sockstat",
    failures="IpReasmFails",
)
IPV6 = Family(
    address="b_ipv6",
    high="net.ipv6.ip6frag_high_thresh",
    low="net.ipv6.ip6frag_low_thresh",
    sockstat="/proc/net/sockstat6",
    failures="Ip6ReasmFails",
)
both = pytest.mark.parametrize("family", [IPV4, IPV6], ids=["ipv4", "ipv6"])


def counter(where: Namespace, name: str) -> int:
    """IPv4's are a line of names and one of numbers, IPv6's a name and a number per line."""
    if name.startswith("Ip6"):
        found = re.search(rf"^{name}\s+(\d+)$", where.run("cat", "/proc/net/snmp6"), re.M)
        assert found is not None
        return int(found[1])
    lines = [line.split() for line in where.run("cat", "/proc/net/snmp").splitlines()]
    names, numbers = (line for line in lines if line[0] == "Ip:")
    return int(numbers[names.index(name.removeprefix("Ip"))])


@contextlib.contextmanager
def fragments(where: Namespace, address: str, per_second: int, finished: int = 0) -> Iterator[None]:
    with where.running(PYTHON, PROGRAM, address, str(per_second), "--finished", str(finished)):
        yield


def make_small(where: Namespace, family: Family) -> None:
    """Room for about a hundred fragments. Before the daemon starts, so that it takes it for normal."""
    where.write_sysctl(family.low, str(LOW_BYTES))
    where.write_sysctl(family.high, str(HIGH_BYTES))


def scenarios(daemon: Daemon) -> set[str]:
    return {change["scenario"] for change in daemon.ctl("history")["changes"]}


@both
def test_memory_grows_before_anything_fails(veth: Pair, start_daemon: StartDaemon, family: Family) -> None:
    make_small(veth.b, family)
    daemon = start_daemon("--allow", "ip_frag")

    with fragments(veth.a, getattr(veth, family.address), UNFINISHED_PER_S, finished=4):
        wait_for(lambda: family.held_bytes(veth.b) > 4 * HIGH_BYTES, 10, "four times what had room before")
        failed, finished = family.failed(veth.b), family.finished(veth.b)

    assert failed == 0
    assert finished > 4 * 4 * HIGH_BYTES / 2504 / 2
    assert family.limit(veth.b) > 4 * HIGH_BYTES
    wait_for(
        lambda: int(veth.b.read_sysctl(family.low)) == family.limit(veth.b) * 3 // 4,
        5,
        "low_thresh to follow",
    )
    assert family.limit(veth.a) == 4 << 20, "nothing changes where no fragments are"
    assert len(scenarios(daemon)) == 1


@both
def test_without_the_tuner_it_fails(veth: Pair, start_daemon: StartDaemon, family: Family) -> None:
    """What the test above prevents; without this one it could pass because of too little traffic."""
    make_small(veth.b, family)
    daemon = start_daemon("--allow", "ip_frag")
    daemon.ctl("disable", "ip_frag", "--netns", veth.b.name)

    with fragments(veth.a, getattr(veth, family.address), UNFINISHED_PER_S, finished=4):
        wait_for(lambda: family.failed(veth.b) > 100, 10, "failures")

    assert family.limit(veth.b) == HIGH_BYTES


@both
@pytest.mark.parametrize("per_second", [5000, 15_000])
def test_a_flood_that_only_fails_is_pushed_back(
    veth: Pair, start_daemon: StartDaemon, family: Family, per_second: int
) -> None:
    make_small(veth.b, family)
    daemon = start_daemon("--allow", "ip_frag")

    with fragments(veth.a, getattr(veth, family.address), per_second):
        daemon.wait_line(rf"change {family.high} from \({HIGH_BYTES}\) -> ")
        daemon.wait_line("growth stops", 60)
        wait_for(lambda: family.limit(veth.b) == HIGH_BYTES, 20, "the limit as it was")
        wait_for(lambda: int(veth.b.read_sysctl(family.low)) == LOW_BYTES, 5, "low_thresh as it was")

    assert any(scenario.endswith("_fragment_flood") for scenario in scenarios(daemon))
    assert family.limit(veth.b) == HIGH_BYTES, "and it stays there"


def test_a_namespace_behind_a_macvlan_is_seen(veth: Pair, start_daemon: StartDaemon) -> None:
    """Its packets are received once, by the device below: only what is dropped shows where it went."""
    with namespaces.namespace("guest") as guest:
        made = subprocess.run(
            [*f"ip -n {veth.b.name} link add guest0 link {veth.device} type macvlan mode bridge".split()],
            capture_output=True,
            text=True,
            check=False,
        )
        require(made.returncode == 0, f"needs macvlan: {made.stderr.strip()}")
        veth.b.run("ip", "link", "set", "guest0", "netns", guest.name)
        guest.run("ip", "address", "add", "10.77.0.3/24", "dev", "guest0")
        guest.run("ip", "link", "set", "guest0", "up")
        make_small(guest, IPV4)
        daemon = start_daemon("--allow", "ip_frag")

        with fragments(veth.a, "10.77.0.3", UNFINISHED_PER_S):
            daemon.wait_line(rf"change {IPV4.high} from \({HIGH_BYTES}\) -> .* in netns '{guest.name}'")

        assert IPV4.limit(veth.b) == 4 << 20
