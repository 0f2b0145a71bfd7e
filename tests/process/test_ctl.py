# SPDX-License-Identifier: GPL-2.0-or-later
"""bpftune-ctl as a process against a daemon with canned answers: exit codes, silence, garbage."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.codec import MAX_MESSAGE_BYTES
from bpftune.ipc.control import (
    DoneReply,
    EnableRequest,
    Failure,
    HistoryReply,
    LogEvent,
    SummaryReply,
    VerifyReply,
)
from tests.process.fake_daemon import FakeDaemon, always
from tests.waiting import SCALE

DONE = DoneReply(lines=["done and done"])
SUMMARY = SummaryReply(lines=["Summary: " + "a long line of words " * 10], tables=[])
EVENT = LogEvent(time_s=1, priority=5, message="net.ipv4.tcp_rmem changed", change_id=7)
COMMAND = (sys.executable, "-W", "error", "-m", "bpftune.ctl.main")
NOBODY = 65534


def ctl(
    run_dir: Path, *arguments: str, user: int | None = None, timeout: str = "5"
) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--run-dir", str(run_dir), "--timeout", timeout, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30 * SCALE, check=False, user=user, cwd="/"
    )


def start(run_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "--run-dir", str(run_dir), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def done(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path, always(DONE)) as daemon:
        yield daemon


def test_an_answer_is_shown_and_ends_with_0(done: FakeDaemon, tmp_path: Path) -> None:
    result = ctl(tmp_path, "enable", "tcp_buffer", "--netns", "blue")

    assert (result.returncode, result.stdout, result.stderr) == (0, "done and done\n", "")
    assert done.requests == [EnableRequest(tuner="tcp_buffer", netns="blue")]


def test_json_is_one_object(done: FakeDaemon, tmp_path: Path) -> None:
    result = ctl(tmp_path, "restart", "tcp_buffer", "--json")

    assert json.loads(result.stdout) == {"type": "done", "lines": DONE.lines}


def test_events_without_follow_are_the_newest_changes(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, always(HistoryReply(changes=[]))):
        result = ctl(tmp_path, "events")

    assert (result.returncode, result.stdout) == (0, "nothing was changed yet\n")


def test_bad_news_is_1(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, always(VerifyReply(checked=1, differences=["a.b is (1)"]))):
        result = ctl(tmp_path, "verify")

    assert result.returncode == 1
    assert "a.b is (1)" in result.stdout


@pytest.mark.parametrize("code", [1, 2, 4, 69])
def test_a_failure_ends_with_its_code(tmp_path: Path, code: int) -> None:
    failure = Failure(kind="UnknownName", message="no tuner 'x'", value="x", exit_code=code)
    with FakeDaemon(tmp_path, always(failure)):
        result = ctl(tmp_path, "restart", "x")
        as_json = ctl(tmp_path, "restart", "x", "--json")

    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr == "bpftune-ctl: no tuner 'x'\n"
    assert as_json.stderr == result.stderr
    assert json.loads(as_json.stdout) == {
        "type": "error", "kind": "UnknownName", "message": "no tuner 'x'", "value": "x", "exit_code": code,
    }  # fmt: skip


def test_silence_is_1_after_the_time_given(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, lambda request: None):
        result = ctl(tmp_path, "status", timeout="0.2")

    assert result.returncode == 1
    assert result.stderr == ("bpftune-ctl: no answer from bpftune within 0.2 s; --timeout waits longer\n")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "cannot decode message"),
        (b"\xc1garbage", "cannot decode message"),
        (b"\x81\xa4type\xa7unknown", "cannot decode message"),
        (b"\x00" * (MAX_MESSAGE_BYTES + 1), f"{MAX_MESSAGE_BYTES + 1} bytes"),
    ],
    ids=["empty", "garbage", "unknown", "oversized"],
)
def test_an_answer_that_cannot_be_read_is_1(tmp_path: Path, answer: bytes, told: str) -> None:
    with FakeDaemon(tmp_path, lambda request: answer):
        result = ctl(tmp_path, "status")

    assert result.returncode == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_an_answer_to_something_else_is_1(done: FakeDaemon, tmp_path: Path) -> None:
    result = ctl(tmp_path, "status")

    assert result.returncode == 1
    assert result.stderr == "bpftune-ctl: cannot use the answer: DoneReply to 'status'\n"


def test_wrong_use_is_2_without_a_daemon(tmp_path: Path) -> None:
    result = ctl(tmp_path, "stauts")

    assert result.returncode == 2
    assert result.stderr == "bpftune-ctl: no verb 'stauts'; did you mean 'status'?\n"


def test_no_socket_is_3(tmp_path: Path) -> None:
    result = ctl(tmp_path, "status")

    assert result.returncode == 3
    assert result.stderr == (f"bpftune-ctl: bpftune is not running (no socket at {tmp_path}/control.sock)\n")


@pytest.mark.parametrize("verb", [["status"], ["events", "--follow"]])
def test_a_socket_left_behind_is_3(tmp_path: Path, verb: list[str]) -> None:
    for name in ("control.sock", "events.sock"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / name))
    result = ctl(tmp_path, *verb)

    assert result.returncode == 3
    assert "bpftune is not running (nobody listens at" in result.stderr


def test_support_without_a_daemon_names_the_other_way(tmp_path: Path) -> None:
    result = ctl(tmp_path, "support")

    assert result.returncode == 3
    assert "'bpftune -S'" in result.stderr


def test_a_path_too_long_for_a_socket_is_2(tmp_path: Path) -> None:
    result = ctl(tmp_path / ("x" * 120), "status")

    assert result.returncode == 2
    assert "too long" in result.stderr


@pytest.mark.needs_root
@pytest.mark.parametrize("verb", [["status"], ["events", "--follow"]])
def test_a_socket_of_others_is_4(done: FakeDaemon, tmp_path: Path, verb: list[str]) -> None:
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o755)
    for name in ("control.sock", "events.sock"):
        os.chown(tmp_path / name, 0, 1)
        (tmp_path / name).chmod(0o660)
    result = ctl(tmp_path, *verb, user=NOBODY)

    assert result.returncode == 4
    assert "permission denied; join group 'daemon'" in result.stderr


def test_a_daemon_that_dies_meanwhile_is_3(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, lambda request: None) as daemon:
        process = start(tmp_path, "status", "--timeout", "1")
        while not daemon.requests:
            assert process.poll() is None
        daemon.close()
        _, stderr = process.communicate(timeout=30 * SCALE)

    assert process.returncode == 3
    assert "bpftune is not running" in stderr


def test_follow_shows_lines_until_ctrl_c(done: FakeDaemon, tmp_path: Path) -> None:
    process = start(tmp_path, "events", "--follow", "--json")
    done.wait_for_follower()
    done.publish(EVENT)
    assert process.stdout is not None
    shown = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30 * SCALE)

    assert (shown["message"], shown["change_id"]) == (EVENT.message, 7)
    assert (process.returncode, stderr) == (0, "")


def test_follow_ends_with_3_when_the_daemon_stops(done: FakeDaemon, tmp_path: Path) -> None:
    process = start(tmp_path, "events", "--follow")
    done.wait_for_follower()
    done.publish(EVENT)
    done.close()
    stdout, stderr = process.communicate(timeout=30 * SCALE)

    assert stdout.endswith(f" {EVENT.message}\n")
    assert (process.returncode, stderr) == (3, "bpftune-ctl: bpftune has stopped\n")


def test_follow_ends_when_its_reader_does(done: FakeDaemon, tmp_path: Path) -> None:
    process = start(tmp_path, "events", "--follow")
    done.wait_for_follower()
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    done.publish(EVENT)

    assert process.wait(30 * SCALE) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        ("| true", 0, ""),
        (">&-", 0, ""),
        (">/dev/full", 1, "bpftune-ctl: cannot write to stdout: No space left on device\n"),
    ],
)
def test_a_stdout_that_takes_nothing(
    done: FakeDaemon, tmp_path: Path, redirection: str, code: int, told: str
) -> None:
    command = f"set -o pipefail; {' '.join(COMMAND)} --run-dir {tmp_path} restart x {redirection}"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=30 * SCALE, check=False
    )

    assert (result.returncode, result.stderr) == (code, told)


def test_a_terminal_of_80_columns_is_respected(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with FakeDaemon(tmp_path, always(SUMMARY)):
        command = [*COMMAND, "--run-dir", str(tmp_path), "summary"]
        subprocess.run(command, stdout=slave, env=environ, timeout=30 * SCALE, check=True)
    shown = os.read(master, 4096).decode()
    os.close(slave)
    os.close(master)

    assert len(shown.splitlines()) > 1
    assert max(map(len, shown.splitlines())) <= 80


def test_a_locale_without_the_letters_is_survived(tmp_path: Path) -> None:
    reply = DoneReply(lines=["netns 'größe' \N{SNOWMAN}"])
    with FakeDaemon(tmp_path, always(reply)):
        command = [*COMMAND, "--run-dir", str(tmp_path), "restart", "x"]
        result = subprocess.run(
            command,
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "latin-1"},
            timeout=30 * SCALE,
            check=True,
        )

    assert result.stdout == b"netns 'gr\xf6\xdfe' \\u2603\n"
