# SPDX-License-Identifier: GPL-2.0-or-later
"""A tuner changes its strategy under a running daemon while another one counts its events.

The tuner is the example of docs/strategies.md with shorter times. The witness sees this process's
sockets begin to listen, each of them once.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import bpf_objects
from tests.kernel.bpf.rig import make_tuner
from tests.kernel.closing import closing, limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace
from tests.kernel.third_party import COUNTING, policy_source
from tests.waiting import wait_for

EXAMPLE = Path(__file__).resolve().parents[3] / "docs/example_strategies/tw_buckets"
NAME, WITNESS = "tw_buckets", "witness"
SHORTER = {
    "tuner.toml": {"timeout_s = 10": "timeout_s = 1", "timeout_s = 60": "timeout_s = 2"},
    "policy.py": {"IDLE_NS = 60_": "IDLE_NS = 2_"},
}
LISTENING = """
PROBE(listening, struct sock *sk, int old_state, int new_state)
{
	struct event_seen e = {};

	if (new_state == BPF_TCP_LISTEN && bpf_get_current_pid_tgid() >> 32 == %d)
		SEND_ALWAYS(seen, READ(sk, __sk_common.skc_net.net), &e);
	return 0;
}
"""
STRUCTS = 'sock = ["__sk_common"]\nsock_common = ["skc_net.net"]'
TO_EVERY = r"Strategy of tuner 'tw_buckets' changes from 'sampled' to 'every' \(sampled 1, every 2\)\."
TO_SAMPLED = r"Strategy of tuner 'tw_buckets' changes from 'every' to 'sampled' \(sampled 1, every 0\)\."

Start = Callable[..., Daemon]


@pytest.fixture
def limited(netns: Namespace) -> Namespace:
    limit_time_wait(netns)
    return netns


@pytest.fixture
def start(limited: Namespace, daemon_directory: Path, start_daemon: StartDaemon) -> Start:
    """Start a daemon that has the example, with `changes` made to its policy, and the witness. With
    `settled=False` the example may have crashed before its worker was seen active."""

    def started(changes: dict[str, str] | None = None, *, settled: bool = True) -> Daemon:
        tuners = daemon_directory / "tuners"
        tuners.mkdir(mode=0o755)
        put_example(tuners, changes or {})
        put_witness(tuners)
        daemon = start_daemon("-l", str(tuners), "--allow", NAME, "--allow", WITNESS, "--debug")
        for name in (NAME, WITNESS) if settled else (WITNESS,):
            wait_for(lambda name=name: daemon.tuner(name)["state"] == "active", 5, f"{name} active")  # type: ignore[misc]
        return daemon

    return started


def put_example(tuners: Path, changes: dict[str, str]) -> None:
    folder = Path(shutil.copytree(EXAMPLE, tuners / NAME, ignore=shutil.ignore_patterns("__pycache__")))
    for name, shorter in SHORTER.items():
        text = (folder / name).read_text()
        for old, new in (shorter | (changes if name == "policy.py" else {})).items():
            assert old in text
            text = text.replace(old, new)
        (folder / name).write_text(text)


def put_witness(tuners: Path) -> None:
    hooks = {"listening": ["tp_btf:inet_sock_set_state", "raw_tp:inet_sock_set_state"]}
    folder = make_tuner(tuners, WITNESS, hooks=hooks, source=LISTENING % os.getpid(), structs=STRUCTS)
    (folder / "policy.py").write_text(policy_source(COUNTING))


class Listening:
    """Sockets begin to listen, one after the other, until `stop`."""

    def __init__(self, netns: Namespace) -> None:
        self.count = 0
        self._netns = netns
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        with self._netns.entered():
            while not self._ends.is_set():
                socket.create_server(("127.0.0.1", 0)).close()
                self.count += 1
                time.sleep(0.0005)


@contextmanager
def listening(netns: Namespace) -> Iterator[Listening]:
    made = Listening(netns)
    try:
        yield made
    finally:
        made.stop()


def active(tuner: Any) -> list[str]:
    return [one["name"] for one in tuner["strategies"] if one["active"]]


def attached(tuner: Any) -> list[str]:
    return [hook["probe"] for hook in tuner["hooks"] if not hook["resting"]]


def links(daemon: Daemon) -> set[int]:
    return {number for kind, number in bpf_objects.held(daemon.pid) if kind == "link"}


def events_remembered(daemon: Daemon) -> int:
    tables = {table["title"]: table for table in daemon.ctl("summary")["tables"]}
    return int(tables["counted"]["rows"][0][0])


def test_it_switches_by_evaluation_and_nobody_loses_an_event(start: Start, limited: Namespace) -> None:
    daemon = start()
    before = daemon.tuner(NAME)
    assert (active(before), attached(before)) == (["sampled"], ["sampled_closing"])
    first = links(daemon)

    with listening(limited) as made:
        with closing(limited):
            daemon.wait_line(TO_EVERY)
            switched, second = daemon.tuner(NAME), links(daemon)
        daemon.wait_line(TO_SAMPLED, timeout_s=20)
        back, third = daemon.tuner(NAME), links(daemon)

    assert (active(switched), attached(switched)) == (["every"], ["every_closing"])
    assert {one["name"]: one["value"] for one in switched["strategies"]} == {"sampled": 1.0, "every": 2.0}
    assert (active(back), attached(back)) == (["sampled"], ["sampled_closing"])
    for old, new in ((first, second), (second, third)):
        assert (len(old - new), len(new - old)) == (1, 1), "one link replaced, no other touched"
    assert not bpf_objects.existing({("link", number) for number in (first | second) - third})
    assert_all_delivered(daemon, made.count)
    assert limited.read_sysctl("net.ipv4.tcp_max_tw_buckets") != "40"


def assert_all_delivered(daemon: Daemon, count: int) -> None:
    """Whatever the kernel saw was sent, came in, and was handled or replaced by a newer one."""
    wait_for(lambda: daemon.tuner(WITNESS)["events_in"] >= count, 5, f"{count} events have come in")
    witness = daemon.tuner(WITNESS)
    (counted,) = witness["counters"]
    assert count > 100
    assert (counted["sent"], counted["dropped"], counted["suppressed"]) == (count, 0, 0)
    assert (witness["events_in"], witness["events_dropped"]) == (count, 0)
    wait_for(
        lambda: events_remembered(daemon) + daemon.tuner(WITNESS)["events_merged"] == count,
        5,
        f"{count} events handled or merged",
    )


def test_values_that_cannot_be_compared_are_refused(start: Start, limited: Namespace) -> None:
    daemon = start({"return 1.0": 'return float("nan")'})

    daemon.wait_line(
        r"cannot compare the strategies of tuner 'tw_buckets': 'sampled' has no finite value; 'sampled' goes"
    )

    assert (active(daemon.tuner(NAME)), daemon.tuner(NAME)["restarts"]) == (["sampled"], 0)


def test_a_policy_that_fails_to_evaluate_keeps_its_strategy(start: Start, limited: Namespace) -> None:
    daemon = start({"return 1.0": 'raise RuntimeError("cannot tell")'}, settled=False)

    daemon.wait_line("RuntimeError: cannot tell")
    daemon.wait_line("tuner 'tw_buckets' keeps its strategy 'sampled': no worker could evaluate it")

    assert active(daemon.tuner(NAME)) == ["sampled"]


def test_a_policy_that_cannot_evaluate_fails_at_once(
    start_daemon: StartDaemon, daemon_directory: Path
) -> None:
    put_example(daemon_directory, {"def evaluate": "def judge"})
    daemon = start_daemon("-l", str(daemon_directory), "--allow", NAME)

    daemon.wait_line(r"has strategies to evaluate, but no evaluate\(\)")


def test_off_it_has_no_probes_and_comes_back_with_its_strategy(start: Start, limited: Namespace) -> None:
    daemon = start()
    with closing(limited):
        daemon.wait_line(TO_EVERY)
        daemon.run_ctl("disable", NAME)
        off = daemon.tuner(NAME)
        daemon.run_ctl("enable", NAME)
        on = daemon.tuner(NAME)
    daemon.wait_line(TO_SAMPLED, timeout_s=20)

    assert (active(off), attached(off)) == (["every"], [])
    assert (active(on), attached(on)) == (["every"], ["every_closing"])


def test_support_shows_the_hooks_of_all_strategies(start: Start, limited: Namespace) -> None:
    daemon = start()

    shown = {hook["probe"]: hook["hook"] for hook in daemon.ctl("support")["hooks"][NAME]}

    assert shown == dict.fromkeys(("sampled_closing", "every_closing"), "tp_btf:inet_sock_set_state")
