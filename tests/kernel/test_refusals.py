# SPDX-License-Identifier: GPL-2.0-or-later
"""A worker that asks for what it must not have: a third-party tuner with a hostile policy gets nothing.

Its traffic is closing connections, see closing.py.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from bpftune.supervisor import nsfs
from tests.kernel import namespaces, sysctl_guard, third_party
from tests.kernel.bpf.rig import WATCH_SYSCTL, opened
from tests.kernel.closing import MAX_TW_BUCKETS, SMALL_LIMIT, close_connections, closing, limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace
from tests.kernel.third_party import NAME
from tests.waiting import wait_for

PORTS = "net.ipv4.ip_local_port_range"
SECOND_TUNABLE = f"""
[[tunables]]
name = "{PORTS}"
scope = "netns"
width = 2
moves = [1]
floor = 1
cap = 65535
"""

HOSTILE = """
def on_event(self, event, situation, state):
    from bpftune.ipc.messages import Proposal

    cookie, limit = situation.netns.cookie, situation.tunables[LIMIT].current
    ports = situation.tunables["net.ipv4.ip_local_port_range"].current

    def ask(tunable, new, *, expected=limit, netns=cookie, scenario="time_wait_near_limit"):
        return Proposal(tunable=tunable, netns_cookie=netns, expected=expected, new=new, scenario=scenario,
                        reason="because", evidence={})

    up = (limit[0] + 1,)
    return Decision(proposals=[
        ask("kernel.panic", (1,)),
        ask("../kernel/panic", (1,)),
        ask(LIMIT, (1 << 40,)),
        ask(LIMIT, (1,)),
        ask(LIMIT, (-1,)),
        ask(LIMIT, limit),
        ask(LIMIT, up * 2),
        ask(LIMIT, ()),
        ask(LIMIT, up, netns=0),
        ask(LIMIT, up, netns=BYSTANDER),
        ask(LIMIT, up, netns=1 << 40),
        ask(LIMIT, up, scenario="made up"),
        ask(LIMIT, up, expected=(limit[0] - 1,)),
        ask("net.ipv4.ip_local_port_range", (ports[0] + 1, ports[1]), expected=ports),
    ])
"""

REASONS = [
    r"kernel\.panic -> \(1\): refused, .* does not declare kernel\.panic",
    r"\.\./kernel/panic -> .*: refused, .* does not declare",
    r"-> \(1099511627776\): refused, .* is above the cap",
    r"-> \(1\): refused, .* is below the floor",
    r"-> \(-1\): refused, .* is below the floor",
    rf"-> \({SMALL_LIMIT}\): refused, no change",
    r"refused, .* has 1 fields, not 2",
    r"refused, .* has 1 fields, not 0",
    r"refused, .* has scope netns, namespace 0 does not fit",
    r"refused, no event came from namespace BYSTANDER",
    r"refused, no event came from namespace 1099511627776",
    r"refused, .* does not declare scenario 'made up'",
    r"stale, the value changed meanwhile",
    r"refused, net\.ipv4\.ip_local_port_range field 0 may not move",
]

NOT_A_NUMBER = """
def on_event(self, event, situation, state):
    wanted = situation.tunables[LIMIT].current[0] + 1
    proposal = situation.propose(LIMIT, (wanted,), "time_wait_near_limit", {"much": float("nan")})
    return Decision(proposals=[proposal])
"""

RAISING = """
def on_event(self, event, situation, state):
    wanted = situation.tunables[LIMIT].current[0] + 1
    return Decision(proposals=[situation.propose(LIMIT, (wanted,), "time_wait_near_limit", {})])
"""


def start(daemon_directory: Path, start_daemon: StartDaemon, policy: str, *arguments: str) -> Daemon:
    folder = third_party.put_variant(daemon_directory / "tuners", policy)
    with (folder / "tuner.toml").open("a") as declaration:
        declaration.write(SECOND_TUNABLE)
    daemon = start_daemon("--allow", NAME, "-l", str(daemon_directory / "tuners"), *arguments)
    daemon.wait_active()
    return daemon


@pytest.fixture
def limited(netns: Namespace) -> Namespace:
    limit_time_wait(netns)
    return netns


def snapshot(*others: Namespace) -> list[dict[str, str]]:
    keys = [*sysctl_guard.declared_sysctls(), PORTS]
    seen = [sysctl_guard.read(keys)]
    for other in others:
        with other.entered():
            seen.append(sysctl_guard.read(keys))
    return seen


def test_a_hostile_policy_gets_nothing(
    limited: Namespace, daemon_directory: Path, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    with opened(tmp_path / "cache") as rig, namespaces.namespace("bystander") as bystander:
        rig.load(WATCH_SYSCTL)
        before = snapshot(limited, bystander)
        with bystander.entered():
            cookie = str(nsfs.read_cookie())
        daemon = start(daemon_directory, start_daemon, HOSTILE.replace("BYSTANDER", cookie), "--debug")
        close_connections(limited, 2 * SMALL_LIMIT)
        daemon.wait_line(REASONS[-1])
        lines, changes = daemon.lines, daemon.ctl("history")["changes"]
        written = [event.text("key") for event in rig.events() if event["pid"] == daemon.pid]

        assert written == []
        assert snapshot(limited, bystander) == before
    for reason in REASONS:
        expected = reason.replace("BYSTANDER", cookie)
        assert any(re.search(expected, line) for line in lines), f"no line '{expected}'"
    assert changes == []
    assert daemon.tuner(NAME)["changes"] == 0


def test_a_worker_that_talks_nonsense_is_ended(
    limited: Namespace, daemon_directory: Path, start_daemon: StartDaemon
) -> None:
    before = snapshot(limited)
    daemon = start(daemon_directory, start_daemon, NOT_A_NUMBER)
    close_connections(limited, 2 * SMALL_LIMIT)

    daemon.wait_line(
        r"time_wait: worker \(pid \d+\) ended: cannot decode message: .*evidence.*; killed by SIGKILL"
    )
    assert snapshot(limited) == before
    assert daemon.tuner(NAME)["changes"] == 0


def test_what_was_proposed_for_an_older_value_is_not_written(
    limited: Namespace, daemon_directory: Path, start_daemon: StartDaemon
) -> None:
    """Somebody writes between the event and its answer; the worker is stopped for as long as that takes."""
    daemon = start(daemon_directory, start_daemon, RAISING, "--debug")
    with closing(limited):
        daemon.wait_line(rf"change {MAX_TW_BUCKETS} from")
        worker = daemon.tuner(NAME)["pid"]
        os.kill(worker, signal.SIGSTOP)
        try:
            owed = daemon.tuner(NAME)["events_in"]
            wait_for(lambda: daemon.tuner(NAME)["events_in"] > owed + 1, 5, "events for the stopped worker")
            limited.run("sysctl", "-w", f"{MAX_TW_BUCKETS}={SMALL_LIMIT + 2}")
            daemon.wait_line(rf"modified sysctl '{MAX_TW_BUCKETS}' .* disabling '{NAME}'")
        finally:
            os.kill(worker, signal.SIGCONT)
        daemon.wait_line(rf"{MAX_TW_BUCKETS} -> .*: refused, off because of pid \d+, cmd 'sysctl'")

    assert limited.read_sysctl(MAX_TW_BUCKETS) == str(SMALL_LIMIT + 2)
