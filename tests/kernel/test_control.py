# SPDX-License-Identifier: GPL-2.0-or-later
"""bpftune-ctl, and whoever else finds the socket, against a live daemon that has something to tell."""

from __future__ import annotations

import select
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from bpftune.ipc.control import (
    CONTROL_SOCKET,
    MAX_REQUEST_BYTES,
    QUEUED_MESSAGES,
    DoneReply,
    ExplainReply,
    ExportReply,
    Failure,
    HistoryReply,
    LogEvent,
    Reply,
    RestartRequest,
    RollbackReply,
    RollbackRequest,
    StatusReply,
    StatusRequest,
    SummaryReply,
    SupportReply,
    TunablesReply,
    VerifyReply,
    replies,
    requests,
)
from tests.kernel import namespaces, third_party
from tests.kernel.closing import MAX_TW_BUCKETS, SMALL_LIMIT, closing, limit_time_wait
from tests.kernel.daemon import BPFTUNE_CTL, Daemon, running
from tests.kernel.namespaces import Namespace
from tests.kernel.third_party import NAME
from tests.waiting import SCALE, wait_for

NOBODY = 65534
GIANT_BYTES = 16 << 20
"""More than libzmq takes from a connection here."""
VERBS = [
    (("status",), StatusReply),
    (("status", "--netns"), StatusReply),
    (("tuners",), StatusReply),
    (("tunables",), TunablesReply),
    (("summary",), SummaryReply),
    (("history",), HistoryReply),
    (("events",), HistoryReply),
    (("explain", "1"), ExplainReply),
    (("verify",), VerifyReply),
    (("export",), ExportReply),
    (("export", "--sysctl-d"), ExportReply),
    (("support",), SupportReply),
    (("rollback", "--dry-run"), RollbackReply),
    (("enable", NAME), DoneReply),
    (("restart", NAME), DoneReply),
]
BY_VERB = pytest.mark.parametrize(("verb", "shape"), VERBS, ids=[" ".join(verb) for verb, _ in VERBS])


@pytest.fixture(scope="module")
def where(machine_restored: None) -> Iterator[Namespace]:
    with namespaces.namespace("ctl") as made:
        limit_time_wait(made)
        yield made


@pytest.fixture(scope="module")
def daemon(where: Namespace) -> Iterator[Daemon]:
    """It has changed something in `where` and nothing else."""
    with tempfile.TemporaryDirectory(prefix="bpftune-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        third_party.put_variant(directory / "tuners", third_party.GROWING)
        with running("-l", str(directory / "tuners"), directory=directory) as started:
            started.wait_active()
            make_changes(started, where)
            yield started


def make_changes(daemon: Daemon, where: Namespace) -> None:
    """And wait until nothing more can come of them, so that tests may compare before with after."""
    with closing(where):
        wait_for(lambda: daemon.tuner(NAME)["changes"] >= 3, 10, "three changes")

    def all_decided() -> bool:
        tuner = daemon.tuner(NAME)
        sent = sum(counters["sent"] for counters in tuner["counters"])
        return int(tuner["events_in"]) == sent and int(tuner["changes"]) == len(
            daemon.ctl("history")["changes"]
        )

    wait_for(all_decided, 5, "every event is decided on")


def what_may_not_change(daemon: Daemon, where: Namespace) -> Any:
    tuners = {
        name: (one["state"], one["pid"], one["changes"], one["overrides"])
        for name, one in daemon.tuners().items()
    }
    return tuners, daemon.ctl("history"), where.read_sysctl(MAX_TW_BUCKETS)


def as_nobody(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BPFTUNE_CTL, "--run-dir", daemon.run_dir, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30 * SCALE,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
    )


@BY_VERB
def test_json_has_the_documented_shape(daemon: Daemon, verb: tuple[str, ...], shape: type[Any]) -> None:
    done = daemon.run_ctl(*verb, "--json")

    assert (done.returncode, done.stderr) == (0, "")
    reply = msgspec.json.decode(done.stdout, type=Reply)
    assert type(reply) is shape
    assert msgspec.json.decode(msgspec.json.encode(reply)) == msgspec.json.decode(done.stdout)


@BY_VERB
def test_text_fits_80_columns(
    daemon: Daemon, verb: tuple[str, ...], shape: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    done = daemon.run_ctl(*verb)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert "\x1b" not in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_what_the_verbs_tell_agrees_with_what_was_done(daemon: Daemon, where: Namespace) -> None:
    value = where.read_sysctl(MAX_TW_BUCKETS)
    tuner = daemon.tuner(NAME)
    history = daemon.ctl("history")["changes"]

    assert len(history) == tuner["changes"] == len(tuner["write_latency_us"])
    assert {(one["tuner"], one["tunable"], one["outcome"]) for one in history} == {
        (NAME, MAX_TW_BUCKETS, "applied")
    }
    oldest, newest = min(history, key=lambda one: one["id"]), max(history, key=lambda one: one["id"])
    assert (oldest["old"], newest["new"]) == ([SMALL_LIMIT], [int(value)])
    assert newest["netns"]["name"] == where.name
    assert tuner["last_change"].endswith(f"-> ({value}) in netns '{where.name}'")

    explained = daemon.ctl("explain", str(oldest["id"]))
    assert explained["change"] == oldest
    assert len(explained["followed_by"]) == len(history) - 1
    (tunable,) = [
        one
        for one in daemon.ctl("tunables")["tunables"]
        if one["netns"]["name"] == where.name and one["tuner"] == NAME
    ]
    assert (tunable["original"], tunable["current"], tunable["state"]) == (
        [SMALL_LIMIT],
        [int(value)],
        "changed",
    )
    assert daemon.ctl("verify") == {"type": "verify", "checked": 1, "differences": []}
    assert daemon.ctl("export")["settings"] == {}
    assert where.name in {netns["name"] for netns in daemon.ctl("status")["namespaces"]}
    assert daemon.ctl("support")["supported"]


def test_events_followed_are_the_log_lines(daemon: Daemon) -> None:
    argv = [BPFTUNE_CTL, "--run-dir", str(daemon.run_dir), "events", "--follow", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as follower:
        assert follower.stdout is not None
        stdout = follower.stdout

        def has_followed() -> bool:
            """A line that was logged before the follower was there does not come: there must be more."""
            daemon.ctl("restart", NAME)
            return bool(select.select([stdout], [], [], 0.1)[0])

        try:
            wait_for(has_followed, 10, "a line arrives")
            event = msgspec.json.decode(stdout.readline(), type=LogEvent)
        finally:
            follower.kill()
    daemon.wait_active()

    assert f"bpftune: {event.message}" in daemon.lines


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        ([b""], "cannot decode message"),
        ([b"\xc1" * 10], "cannot decode message"),
        ([b'{"type": "destroy"}'], "cannot decode message: Invalid value 'destroy'"),
        ([b'{"target": "all"}'], "cannot decode message: Object missing required field `type`"),
        ([b'{"type": "restart"}'], "cannot decode message: Object missing required field `tuner`"),
        ([b'{"type": "restart", "tuner": 7}'], "cannot decode message: Expected `str`, got `int`"),
        ([b'{"type": "history", "limit": "all"}'], "cannot decode message: Expected `int`, got `str`"),
        ([b'{"type": "explain", "change": 1e400}'], "cannot decode message"),
        ([requests.encode(RollbackRequest(target="all"))[:-3]], "cannot decode message"),
        ([b"[" * 60000], "cannot decode message"),
        ([requests.encode(RestartRequest(tuner="x" * MAX_REQUEST_BYTES))], "at most 65536 are accepted"),
        ([requests.encode(RollbackRequest(target="all")), b"more"], "2 parts, want 1"),
    ],
    ids=[
        "empty",
        "garbage",
        "unknown verb",
        "no verb",
        "no tuner",
        "wrong type",
        "wrong number",
        "too large a number",
        "cut",
        "nested",
        "oversized",
        "parts",
    ],
)
def test_a_malformed_request_gets_an_error_and_changes_nothing(
    daemon: Daemon, where: Namespace, frames: list[bytes], told: str
) -> None:
    before = what_may_not_change(daemon, where)

    reply = exchange(daemon, frames)

    assert isinstance(reply, Failure)
    assert (reply.kind, reply.exit_code) == ("ProtocolError", 1)
    assert told in reply.message
    assert what_may_not_change(daemon, where) == before


def exchange(daemon: Daemon, frames: list[bytes]) -> Reply:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"ipc://{daemon.run_dir / CONTROL_SOCKET}")
        dealer.send_multipart(frames)
        assert dealer.poll(int(5000 * SCALE)), "no reply"
        return replies.decode(dealer.recv())


def test_a_flood_of_garbage_and_a_giant_leave_the_others_served(daemon: Daemon, where: Namespace) -> None:
    before = what_may_not_change(daemon, where)
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer, context.socket(zmq.DEALER) as giant:
        for one in (dealer, giant):
            one.setsockopt(zmq.LINGER, 0)
            one.connect(f"ipc://{daemon.run_dir / CONTROL_SOCKET}")
        cut_off = giant.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        giant.send(bytes(GIANT_BYTES))
        for _ in range(500):
            dealer.send(b"garbage")
        assert isinstance(exchange(daemon, [requests.encode(StatusRequest())]), StatusReply)
        # Of answers that it does not fetch as it asks, some are dropped; the first ones were kept.
        for _ in range(QUEUED_MESSAGES):
            assert dealer.poll(int(5000 * SCALE)), "no reply"
            assert isinstance(replies.decode(dealer.recv()), Failure)
        assert cut_off.poll(int(5000 * SCALE)), "the giant was not cut off"
        giant.disable_monitor()
        cut_off.close()

    assert what_may_not_change(daemon, where) == before


def test_who_leaves_without_waiting_is_no_trouble(daemon: Daemon, where: Namespace) -> None:
    before = what_may_not_change(daemon, where)
    with zmq.Context() as context:
        for _ in range(20):
            with context.socket(zmq.DEALER) as dealer:
                dealer.setsockopt(zmq.LINGER, 200)
                dealer.connect(f"ipc://{daemon.run_dir / CONTROL_SOCKET}")
                dealer.send(requests.encode(StatusRequest()))

    assert what_may_not_change(daemon, where) == before


@pytest.mark.parametrize("verb", [("status",), ("restart", NAME), ("rollback",), ("events", "--follow")])
def test_a_stranger_is_not_let_in(daemon: Daemon, verb: tuple[str, ...]) -> None:
    done = as_nobody(daemon, *verb)

    assert (done.returncode, done.stdout) == (4, "")
    assert "permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_member_of_the_group_may_look_but_not_change(daemon: Daemon, where: Namespace) -> None:
    """Stands for the group: the socket lets anyone in."""
    before = what_may_not_change(daemon, where)
    socket = daemon.run_dir / CONTROL_SOCKET
    mode = socket.stat().st_mode
    socket.chmod(0o666)
    try:
        assert as_nobody(daemon, "tuners").returncode == 0
        for verb in (("restart", NAME), ("enable", NAME), ("disable", NAME), ("rollback", "--dry-run")):
            done = as_nobody(daemon, *verb)
            assert (done.returncode, done.stdout) == (4, "")
            assert done.stderr == f"bpftune-ctl: cannot {verb[0]}: only root may, you are uid {NOBODY}\n"
    finally:
        socket.chmod(mode)

    assert what_may_not_change(daemon, where) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("restart", "tcp_bufer"), "no tuner 'tcp_bufer'; did you mean 'tcp_buffer'?"),
        (("disable", "tme_wait"), "no tuner 'tme_wait'; did you mean 'time_wait'?"),
        (("rollback", "neightable"), "no tuner 'neightable'; did you mean 'neigh_table'?"),
        (("rollback", "999999"), "no change '999999'"),
        (("explain", "999999"), "no change '999999'"),
        (("enable", NAME, "--netns", "no-such-place"), "no network namespace 'no-such-place'"),
        (("statsu",), "no verb 'statsu'; did you mean 'status'?"),
    ],
)
def test_a_wrong_name_is_2_and_the_near_one_is_named(
    daemon: Daemon, where: Namespace, arguments: tuple[str, ...], told: str
) -> None:
    before = what_may_not_change(daemon, where)

    done = daemon.run_ctl(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"bpftune-ctl: {told}\n"
    assert what_may_not_change(daemon, where) == before


def test_without_a_daemon_it_is_3(daemon_directory: Path) -> None:
    for verb in (["status"], ["rollback"], ["events", "--follow"], ["support"]):
        argv = [BPFTUNE_CTL, "--run-dir", str(daemon_directory), *verb]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30 * SCALE)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("bpftune-ctl: bpftune is not running (no socket at ")
