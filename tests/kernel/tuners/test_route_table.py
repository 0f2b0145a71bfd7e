# SPDX-License-Identifier: GPL-2.0-or-later
"""route_table: inactive where the kernel has no limit to enforce; its probe and policy on real routes."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import pytest

from bpftune.ipc.declaration import Declaration, Scope
from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.messages import Netns, Proposal, TunableView
from bpftune.ipc.record import Event
from bpftune.supervisor.applicability import inactive_reason, read_default
from bpftune.tuners.base import Situation
from bpftune.tuners.route_table.policy import MAX_SIZE, RouteTable, RouteTableState
from tests.kernel.bpf.rig import Rig, opened
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import BPFTUNE
from tests.kernel.namespaces import Pair
from tests.kernel.traffic import PYTHON
from tests.requirements import require_since
from tests.waiting import wait_for

FOLDER = Path(__file__).resolve().parents[3] / "tuners" / "route_table"
DESTINATIONS = 300
LIMIT = 200
NARROW_MTU = 1300
ENTRIES_FIELD = 5

SEND_TOO_BIG = f"""
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
    for number in range(1, {DESTINATIONS} + 1):
        try:
            sender.sendto(bytes({NARROW_MTU} + 100), (f"fd99:{{number:x}}::1", 9))
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def declaration() -> Declaration:
    return load_declaration(FOLDER)


def test_support_says_why_it_is_inactive(declaration: Declaration, daemon_directory: Path) -> None:
    reason = unenforced(declaration)
    done = subprocess.run(
        [BPFTUNE, "-S", "--state-dir", daemon_directory / "state"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert f"inactive: {reason}" in lines
    assert any(line.split() == ["route_table", "routes_near_limit", "none"] for line in lines)


def test_status_says_why_it_is_inactive(declaration: Declaration, start_daemon: StartDaemon) -> None:
    reason = unenforced(declaration)
    daemon = start_daemon("--allow", "route_table", "--allow", "neigh_table")
    shown = daemon.tuner("route_table")
    assert (shown["state"], shown["why"], shown["pid"]) == ("inactive", reason, None)
    assert daemon.tuner("neigh_table")["state"] == "active"
    assert daemon.ctl("status")["support"] == "bpftune works fully"
    assert daemon.run_ctl("enable", "route_table").returncode == 0
    assert daemon.tuner("route_table")["state"] == "inactive"


def unenforced(declaration: Declaration) -> str:
    reason = inactive_reason(declaration)
    require_since((6, 3), reason is not None, "needs a kernel that does not enforce net.ipv6.route.max_size")
    return str(reason)


def test_an_administrator_s_value_does_not_pass_for_the_kernel_s(
    declaration: Declaration, veth: Pair
) -> None:
    tunable = declaration.tunables_by_name[MAX_SIZE]
    default = read_default(tunable)
    veth.a.write_sysctl(MAX_SIZE, "4096")
    with veth.a.entered():
        assert read_default(tunable) == default != (4096,)


def test_entries_near_the_limit_make_it_grow_there(
    declaration: Declaration, narrow_path: Pair, tmp_path: Path
) -> None:
    """As on a kernel that enforces the limit: probe, policy and value, without a daemon."""
    here = narrow_path.a
    here.write_sysctl(MAX_SIZE, str(LIMIT))
    with opened(tmp_path / "cache") as rig:
        rig.load(FOLDER)
        assert rig.bpf.hooks("route_table")[0].hook is not None
        events: list[Event] = []
        wait_for(
            lambda: send_and_look(rig, narrow_path, events), 20, "entries near the limit", interval_s=0.2
        )
    event = events[0]
    assert event["limit"] == LIMIT
    assert LIMIT * 3 // 4 <= event["entries"] <= DESTINATIONS

    (proposal,) = decide(declaration, event)
    assert proposal.new[0] >= event["entries"] * 4 // 3 - 1
    here.write_sysctl(MAX_SIZE, str(proposal.new[0]))
    assert int(here.read_sysctl(MAX_SIZE)) == proposal.new[0]
    assert narrow_path.b.read_sysctl(MAX_SIZE) != here.read_sysctl(MAX_SIZE)


@pytest.fixture
def narrow_path(veth: Pair) -> Pair:
    """Many destinations behind b, the last hop narrow: each becomes an entry of its own in a."""
    veth.b.write_sysctl("net.ipv6.conf.all.forwarding", "1")
    veth.b.write_sysctl("net.ipv6.icmp.ratelimit", "0")
    with contextlib.suppress(OSError):
        veth.b.write_sysctl("net.ipv6.icmp.ratemask", "")
    veth.b.run("ip", "link", "add", "narrow", "type", "veth", "peer", "name", "far")
    veth.b.run("ip", "link", "set", "far", "up")
    veth.b.run("ip", "link", "set", "narrow", "mtu", str(NARROW_MTU), "up")
    veth.b.run("ip", "route", "add", "fd99::/16", "dev", "narrow")
    routes = "".join(
        f"route add fd99:{number:x}::/64 via {veth.b_ipv6} dev {veth.device}\n"
        for number in range(1, DESTINATIONS + 1)
    )
    subprocess.run(
        veth.a.command("ip", "-6", "-batch", "-"), input=routes, text=True, check=True, capture_output=True
    )
    return veth


def send_and_look(rig: Rig, path: Pair, events: list[Event]) -> list[Event]:
    """Neighbour discovery takes its time at first: send until it has worked."""
    path.a.run(PYTHON, "-c", SEND_TOO_BIG)
    events += rig.events()
    return events


def decide(declaration: Declaration, event: Event) -> list[Proposal]:
    assert declaration.tunables_by_name[MAX_SIZE].scope is Scope.NETNS
    view = TunableView(original=(LIMIT,), current=(LIMIT,), floor=(LIMIT,), cap=(1 << 20,))
    situation = Situation(
        declaration=declaration,
        netns=Netns(cookie=event.netns_cookie),
        now_ns=time.monotonic_ns(),
        shift=2,
        memory_bytes=0,
        tunables={MAX_SIZE: view},
    )
    return RouteTable().on_event(event, situation, RouteTableState()).proposals
