# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL to all of bpftune at moments nobody chose, while it changes sysctls; then a rollback.

Whatever was half done: every sysctl must be what it was before the first start, byte for byte, in
the initial namespace and in another one.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bpftune.ipc.control import HIGHEST_HISTORY
from tests.kernel import neighbours, sysctl_guard, third_party
from tests.kernel.closing import MAX_TW_BUCKETS, closing, limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace
from tests.kernel.neighbours import ARP, ND
from tests.kernel.third_party import SEESAW
from tests.waiting import wait_for

ROUNDS = 6
LONGEST_S = 0.8
"""A start takes about half of it, so that some rounds end before the daemon is ready."""

FEWEST_CHANGES = 20
"""Of the one sysctl that never rests: fewer, and the kills met nothing."""

MOST_KILLS = 12
"""Until one comes between a change's announcement and its end."""

Values = list[dict[str, str]]


def read_everything(where: Namespace) -> Values:
    """The raw text of every sysctl that a tuner may touch, there and in the initial namespace."""
    keys = sysctl_guard.declared_sysctls()
    with where.entered():
        inside = sysctl_guard.read(keys)
    return [sysctl_guard.read(keys), inside]


def crowd_round(where: Namespace, count: int) -> None:
    """Fill both neighbour tables beyond what they may hold, and empty them."""
    for family in (ARP, ND):
        neighbours.add(where, family, count)
        neighbours.flush(where, family)


def check_history(daemon: Daemon) -> None:
    """No intent is left without an outcome, and each change begins where the one before it ended."""
    changes = sorted(
        daemon.ctl("history", "-n", str(HIGHEST_HISTORY))["changes"], key=lambda change: change["id"]
    )
    assert {change["outcome"] for change in changes} <= {"applied", "undone"}
    holds: dict[tuple[int, str], list[int]] = {}
    for change in changes:
        cell = (change["netns"]["cookie"], change["tunable"])
        if change["outcome"] == "applied":
            assert change["old"] == holds.get(cell, change["old"]), change
            holds[cell] = change["new"]
    assert daemon.ctl("verify")["differences"] == []


def kill_rounds(
    arguments: tuple[str, ...], directory: Path, where: Namespace, moments: random.Random
) -> list[Daemon]:
    """Start it and kill all of it, some rounds before it is ready; the daemons that were."""
    killed: list[Daemon] = []
    for number in range(ROUNDS):
        daemon = Daemon(*arguments, directory=directory)
        killed.append(daemon)
        try:
            if number % 2 == 0:
                daemon.wait_ready()
                crowd_round(where, 1500 + 500 * number)
            # The moment is what the test is about: there is no condition to wait for.
            time.sleep(moments.uniform(0, LONGEST_S))
            daemon.kill_all()
        finally:
            daemon.close()
    return killed


def test_rollback_after_kills_at_any_moment_restores_every_byte(
    daemon_directory: Path,
    start_daemon: StartDaemon,
    initial_restored: None,
    record_property: Callable[[str, object], None],
) -> None:
    seed = random.randrange(1 << 32)
    record_property("seed", seed)
    third_party.put_variant(daemon_directory / "tuners", SEESAW)
    arguments = ("-l", str(daemon_directory / "tuners"))
    with neighbours.crowd(ARP.interface, ND.interface) as where:
        limit_time_wait(where)
        before = read_everything(where)
        with closing(where):
            killed = kill_rounds(arguments, daemon_directory, where, random.Random(seed))
        assert read_everything(where) != before, f"seed {seed}"

        last = start_daemon(*arguments)
        last.wait_active()
        check_history(last)
        done = last.ctl("rollback", "all")

        assert done["unknown"] is None
        assert {one["outcome"] for one in done["restored"]} == {"restored"}
        assert "net.ipv4.neigh.default.gc_thresh3" in {one["tunable"] for one in done["restored"]}
        assert read_everything(where) == before, f"seed {seed}"
        assert last.stop().exit_code == 0
        assert read_everything(where) == before, f"seed {seed}"
    changes = sum(len(changes_in(daemon)) for daemon in killed)
    record_property("changes", changes)
    assert changes >= FEWEST_CHANGES, f"seed {seed}"


def changes_in(daemon: Daemon) -> list[str]:
    return [line for line in daemon.lines if f"change {MAX_TW_BUCKETS} from" in line]


def has_intent(ledger: Path) -> bool:
    """Whether a change is half done: it was announced in the ledger, and what became of it was not."""
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT 1 FROM changes WHERE outcome = 'intent'").fetchone()
    return found is not None


def kill_half_way(daemon: Daemon) -> None:
    """SIGKILL right after a change was announced; it may be done before the signal arrives."""
    ledger = daemon.state_dir / "ledger.db"
    wait_for(lambda: has_intent(ledger), 10, "a change is announced", 0)
    daemon.process.kill()
    daemon.process.wait(10)


def test_a_change_that_was_half_done_is_settled_at_the_next_start(
    daemon_directory: Path, netns: Namespace, start_daemon: StartDaemon
) -> None:
    third_party.put_variant(daemon_directory / "tuners", SEESAW)
    limit_time_wait(netns)
    before = netns.read_sysctl(MAX_TW_BUCKETS)
    arguments = ("-l", str(daemon_directory / "tuners"), "-a", third_party.NAME)
    with closing(netns):
        for _ in range(MOST_KILLS):
            daemon = start_daemon(*arguments)
            kill_half_way(daemon)
            if has_intent(daemon.state_dir / "ledger.db"):
                break
        else:
            pytest.fail(f"{MOST_KILLS} kills left no change half done")
    last = start_daemon(*arguments)
    check_history(last)
    last.wait_line(rf"change \d+ of {MAX_TW_BUCKETS} was interrupted: (applied|undone)$")

    last.ctl("rollback", "all")

    assert netns.read_sysctl(MAX_TW_BUCKETS) == before
