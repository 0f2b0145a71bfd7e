# SPDX-License-Identifier: GPL-2.0-or-later
"""Workers and the fork server that die or hang under real traffic: what it costs, and whom.

The counting tuner is the witness: the events it remembers are those that were delivered to it, so
neither a lost state nor an event handled twice stays hidden.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kernel import third_party, traffic
from tests.kernel.closing import close_connections, closing, limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace, Pair
from tests.kernel.third_party import COUNTING, CRASHING, NAME
from tests.waiting import SCALE, wait_for

SMALL_RMEM = "4096 65536 131072"

StartVariant = Callable[[str], Daemon]


@pytest.fixture
def limited(netns: Namespace) -> Namespace:
    """A namespace where a few dozen closing connections make events."""
    limit_time_wait(netns)
    return netns


@pytest.fixture
def start_variant(limited: Namespace, daemon_directory: Path, start_daemon: StartDaemon) -> StartVariant:
    """Start a daemon with a variant of the example tuner; all workers are ready."""

    def start(policy: str) -> Daemon:
        third_party.put_variant(daemon_directory / "tuners", policy)
        daemon = start_daemon("-l", str(daemon_directory / "tuners"))
        daemon.wait_active()
        return daemon

    return start


@pytest.fixture
def counting(start_variant: StartVariant) -> Daemon:
    return start_variant(COUNTING)


def restarted(daemon: Daemon, name: str, old_pid: int) -> Any:
    """The tuner's status once another process does its work."""

    def active_anew() -> Any:
        tuner = daemon.tuner(name)
        return tuner if tuner["state"] == "active" and tuner["pid"] != old_pid else None

    return wait_for(active_anew, 10, f"{name} is active with a new worker")


def events_remembered(daemon: Daemon) -> int:
    tables = {table["title"]: table for table in daemon.ctl("summary")["tables"]}
    return int(tables["counted"]["rows"][0][0])


def check_bystanders(before: dict[str, Any], after: dict[str, Any]) -> None:
    """The other tuners' workers are the same processes."""
    others = before.keys() - {NAME}
    assert others >= {"neigh_table", "tcp_buffer"}
    for name in others:
        assert after[name]["state"] == "active"
        assert (after[name]["pid"], after[name]["restarts"]) == (before[name]["pid"], 0)


def check_counts(daemon: Daemon) -> None:
    """Every event that left the kernel is accounted for, and remembered if it was delivered."""
    tuner = daemon.tuner(NAME)
    assert tuner["events_in"] == sum(counters["sent"] for counters in tuner["counters"])
    assert events_remembered(daemon) == delivered(daemon)


def test_killed_worker_is_back_within_a_second_and_knows_what_it_knew(
    counting: Daemon, limited: Namespace, record_property: Callable[[str, object], None]
) -> None:
    before = counting.wait_active()
    with closing(limited):
        wait_for(lambda: counting.tuner(NAME)["events_in"] >= 20, 10, "20 events")
        remembered = events_remembered(counting)

        os.kill(before[NAME]["pid"], signal.SIGKILL)
        since = time.monotonic()
        after = restarted(counting, NAME, before[NAME]["pid"])
        took_s = time.monotonic() - since
        wait_for(lambda: counting.tuner(NAME)["events_in"] > after["events_in"], 10, "events go on")

    record_property("restart_ms", round(took_s * 1000))
    assert took_s < 1.0 * SCALE
    assert after["restarts"] == 1
    assert after["events_in"] >= 20
    assert events_remembered(counting) > remembered
    check_counts(counting)
    check_bystanders(before, counting.tuners())
    counting.wait_line(rf"{NAME}: worker \(pid {before[NAME]['pid']}\) ended: killed by SIGKILL")


def test_a_worker_that_is_dead_at_the_end_contributes_what_it_last_saved(
    counting: Daemon, limited: Namespace
) -> None:
    """The summary waits for the next worker, which begins with the state of the dead one."""
    with closing(limited):
        wait_for(lambda: counting.tuner(NAME)["events_in"] >= 5, 10, "5 events")
    wait_for(lambda: delivered(counting) == events_remembered(counting), 5, "all events answered")
    remembered = events_remembered(counting)

    os.kill(counting.tuner(NAME)["pid"], signal.SIGKILL)
    ended = counting.stop()

    assert ended.exit_code == 0
    told = [line.removeprefix("bpftune: ").strip() for line in ended.summary]
    assert told[told.index("counted:") :][-1] == str(remembered)


def delivered(daemon: Daemon) -> int:
    tuner = daemon.tuner(NAME)
    return int(tuner["events_in"] - tuner["events_merged"] - tuner["events_dropped"])


def test_growth_goes_on_with_the_next_worker(distant: Pair, start_daemon: StartDaemon) -> None:
    distant.b.write_sysctl("net.ipv4.tcp_rmem", SMALL_RMEM)
    daemon = start_daemon()
    with traffic.receiver(distant.b, distant.b_ipv4) as to:
        with traffic.sending(distant.a, to, seconds=20):
            wait_for(lambda: daemon.tuner("tcp_buffer")["changes"], 15, "a first growth")
            before = daemon.tuner("tcp_buffer")
            os.kill(before["pid"], signal.SIGKILL)
        after = restarted(daemon, "tcp_buffer", before["pid"])
        assert after["changes"] >= before["changes"]
        assert after["events_in"] >= before["events_in"]
        for _ in range(8):
            traffic.send(distant.a, to, seconds=1)
            if daemon.tuner("tcp_buffer")["changes"] > after["changes"]:
                break

    changes = [change for change in daemon.ctl("history")["changes"] if change["tunable"].endswith("rmem")]
    assert len(changes) > after["changes"]
    newest_first = [(change["old"][2], change["new"][2]) for change in changes]
    for (old, _), (_, new_before) in itertools.pairwise(newest_first):
        assert old == new_before
    assert newest_first[-1][0] == int(SMALL_RMEM.split()[2])


def test_hung_worker_is_aborted_with_its_stack_in_the_log(counting: Daemon, limited: Namespace) -> None:
    before = counting.wait_active()
    close_connections(limited, 60)
    remembered = events_remembered(counting)
    pid = before[NAME]["pid"]

    os.kill(pid, signal.SIGSTOP)
    since = time.monotonic()
    with closing(limited):
        counting.wait_line(
            rf"{NAME}: worker \(pid {pid}\): it did not answer event \d+ within 5 s; aborting it"
        )
        took_s = time.monotonic() - since
        counting.wait_line(rf"{NAME}: worker \(pid {pid}\): Fatal Python error: Aborted")
        counting.wait_line(rf'{NAME}: worker \(pid {pid}\):   File ".*/workers/host.py", line \d+ in _serve')
        after = restarted(counting, NAME, pid)

    assert 5.0 <= took_s < 7.0 * SCALE
    assert after["restarts"] == 1
    assert remembered > 0
    check_counts(counting)
    check_bystanders(before, counting.tuners())


def test_crash_loop_ends_in_failed_and_restart_clears_it(
    start_variant: StartVariant, limited: Namespace
) -> None:
    daemon = start_variant(CRASHING)
    before = daemon.wait_active()
    with closing(limited):
        daemon.wait_line(
            r"event of scenario 'time_wait_near_limit' .* ended two workers and is skipped: [0-9a-f]+"
        )
        daemon.wait_line(rf"tuner '{NAME}' failed: more than 5 crashes in 60 s", timeout_s=20)

        failed = daemon.tuner(NAME)
        assert failed["state"] == "failed"
        assert failed["pid"] is None
        assert "more than 5 crashes in 60 s" in failed["why"]
        wait_for(lambda: daemon.tuner(NAME)["events_in"] > failed["events_in"], 5, "events are still counted")
    assert any("RuntimeError: this policy is broken" in line for line in daemon.lines)
    check_bystanders(before, daemon.tuners())

    assert daemon.ctl("restart", NAME)["lines"] == [f"restarted '{NAME}'"]

    cleared = wait_for(lambda: active(daemon, NAME), 5, "it is active again")
    assert cleared["why"] == ""
    check_bystanders(before, daemon.tuners())


def active(daemon: Daemon, name: str) -> Any:
    tuner = daemon.tuner(name)
    return tuner if tuner["state"] == "active" else None


def test_all_workers_come_back_when_the_fork_server_is_killed(counting: Daemon, limited: Namespace) -> None:
    before = counting.wait_active()
    with closing(limited):
        wait_for(lambda: counting.tuner(NAME)["events_in"] >= 10, 10, "10 events")
        fork_server = psutil.Process(before[NAME]["pid"]).parent()
        assert fork_server is not None

        fork_server.kill()

        for name in before:
            assert restarted(counting, name, before[name]["pid"])["restarts"] == 1
        events = counting.tuner(NAME)["events_in"]
        wait_for(lambda: counting.tuner(NAME)["events_in"] > events, 5, "events go on")
    counting.wait_line(r"fork server ended \(killed by SIGKILL\); its \d+ workers start anew")
    check_counts(counting)
