# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything back to what it was: on request, in part, and at exit; in every namespace, byte for byte."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.kernel import namespaces, neighbours, sysctl_guard, traffic
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Pair
from tests.kernel.neighbours import ARP
from tests.waiting import wait_for

RMEM, WMEM = "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"
SMALL_RMEM, SMALL_WMEM = "4096 65536 131072", "4096 16384 65536"
KEYS = sysctl_guard.declared_sysctls()
GC_THRESH3 = f"{ARP.sysctls}3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A daemon that has changed rmem in one namespace, wmem in another and the ARP table's limits."""

    daemon: Daemon
    pair: Pair
    before: list[dict[str, str]]

    def everything(self) -> list[dict[str, str]]:
        return snapshot(self.pair)

    def rollback(self, *arguments: str) -> dict[tuple[str, str], Any]:
        """Outcomes by (tunable, namespace)."""
        restored = self.daemon.ctl("rollback", *arguments)["restored"]
        return {(one["tunable"], one["netns"]["name"]): one for one in restored}


def snapshot(pair: Pair) -> list[dict[str, str]]:
    seen = [sysctl_guard.read(KEYS)]
    for end in (pair.a, pair.b):
        with end.entered():
            seen.append(sysctl_guard.read(KEYS))
    return seen


def send(pair: Pair, connections: int = 1) -> None:
    with traffic.receiver(pair.b, pair.b_ipv4) as to:
        for _ in range(connections):
            traffic.send(pair.a, to, seconds=0.8)


@contextlib.contextmanager
def everything_changed(start_daemon: StartDaemon, pair: Pair, *arguments: str) -> Iterator[Changed]:
    pair.b.write_sysctl(RMEM, SMALL_RMEM)
    pair.a.write_sysctl(WMEM, SMALL_WMEM)
    before = snapshot(pair)
    daemon = start_daemon(*arguments)
    daemon.wait_active()
    send(pair, 2)
    with neighbours.crowd(ARP.interface) as crowd:
        neighbours.add(crowd, ARP, 1200, pace_us=20)
        made = Changed(daemon=daemon, pair=pair, before=before)
        wait_for(lambda: made.everything()[0][GC_THRESH3] != before[0][GC_THRESH3], 5, "a larger table")
        now = made.everything()
        assert now[1][WMEM] != before[1][WMEM]
        assert now[2][RMEM] != before[2][RMEM]
        yield made


@pytest.fixture
def changed(initial_restored: None, distant: Pair, start_daemon: StartDaemon) -> Iterator[Changed]:
    with everything_changed(start_daemon, distant) as made:
        yield made


def test_all_comes_back_everywhere_and_stays(changed: Changed) -> None:
    now = changed.everything()
    planned = changed.rollback("all", "--dry-run")
    assert {one["outcome"] for one in planned.values()} == {"would restore"}
    assert changed.everything() == now

    done = changed.rollback("all")

    assert {one["outcome"] for one in done.values()} == {"restored"}
    assert planned.keys() == done.keys()
    assert changed.everything() == changed.before
    send(changed.pair)
    assert changed.everything() == changed.before
    assert changed.daemon.run_ctl("enable", "tcp_buffer").returncode == 0
    pair = changed.pair
    with traffic.receiver(pair.b, pair.b_ipv4) as to, traffic.sending(pair.a, to, seconds=20):
        changed.daemon.wait_line(rf"change {WMEM}\(min default max\) from \({SMALL_WMEM}\)")


def test_one_tuner_leaves_the_others(changed: Changed) -> None:
    now = changed.everything()

    done = changed.rollback("neigh_table")

    assert {tunable for tunable, _ in done} <= {f"{ARP.sysctls}{number}" for number in (1, 2, 3)}
    assert changed.everything() == [changed.before[0], *now[1:]]


def test_one_change_takes_its_tunable_back_to_before_it(changed: Changed) -> None:
    history = changed.daemon.ctl("history")["changes"]
    newest = next(change for change in history if change["tunable"] == WMEM)

    done = changed.rollback(str(newest["id"]))

    assert done[WMEM, changed.pair.a.name]["outcome"] == "restored"
    assert changed.pair.a.read_sysctl(WMEM) == " ".join(map(str, newest["old"]))


def test_what_someone_else_changed_since_is_left(changed: Changed) -> None:
    theirs = "4096 70000 7000000"
    changed.pair.b.write_sysctl(RMEM, theirs)
    changed.daemon.wait_line(f"disabling 'tcp_buffer' in netns '{changed.pair.b.name}'")

    done = changed.rollback("all")

    assert done[RMEM, changed.pair.b.name]["outcome"].startswith("left: changed by pid ")
    assert changed.pair.b.read_sysctl(RMEM) == theirs
    assert changed.everything()[:2] == changed.before[:2]


def test_rollback_at_exit(initial_restored: None, distant: Pair, start_daemon: StartDaemon) -> None:
    with everything_changed(start_daemon, distant, "--rollback") as changed:
        ended = changed.daemon.stop()

        assert changed.everything() == changed.before
    assert ended.exit_code == 0
    assert f"bpftune: rollback: {WMEM} in '{distant.a.name}': restored" in ended.summary


def test_a_namespace_that_is_gone_is_no_error(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with namespaces.distant_pair() as pair:
        pair.a.write_sysctl(WMEM, SMALL_WMEM)
        daemon.wait_line(f"disabling 'tcp_buffer' in netns '{pair.a.name}'")
        daemon.ctl("enable", "tcp_buffer", "--netns", pair.a.name)
        with traffic.receiver(pair.b, pair.b_ipv4) as to, traffic.sending(pair.a, to, seconds=20):
            daemon.wait_line(rf"change {WMEM}\(min default max\) from \({SMALL_WMEM}\)")
    done = daemon.run_ctl("rollback", "all")

    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout
    assert daemon.stop().exit_code == 0
