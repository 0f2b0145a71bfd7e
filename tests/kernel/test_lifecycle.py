# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting, being told to stop, and being killed: what is said, what is left, and that it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bpftune.supervisor.supervisor import CACHE_DIR
from tests import leftovers
from tests.kernel import bpf_objects, closing, third_party
from tests.kernel.closing import MAX_TW_BUCKETS, SMALL_LIMIT, limit_time_wait
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import BPFTUNE, Daemon
from tests.kernel.namespaces import Namespace
from tests.kernel.third_party import NAME
from tests.waiting import SCALE, wait_for

NOTHING = "bpftune: Summary: no scenario occurred, nothing was changed"
QUICK_S = 2.0
HUNG_WORKERS_S = 9.0
"""A worker may owe its summary for 5 s and gets 1 s for its stack; the rest is for a busy machine."""


@pytest.fixture
def with_example(daemon_directory: Path, netns: Namespace, start_daemon: StartDaemon) -> Daemon:
    """A daemon with the example tuner, and a namespace in which it has something to do."""
    third_party.put_example(daemon_directory / "tuners")
    limit_time_wait(netns)
    daemon = start_daemon("-l", str(daemon_directory / "tuners"), "--allow", NAME)
    daemon.wait_active()
    return daemon


def raise_limit(daemon: Daemon, where: Namespace) -> None:
    with closing.closing(where):
        wait_for(lambda: daemon.tuner(NAME)["changes"] >= 2, 10, "two changes")


def elapsed_s(since: float) -> float:
    return (time.monotonic() - since) / SCALE


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_with_0_and_the_summary(start_daemon: StartDaemon, signum: signal.Signals) -> None:
    daemon = start_daemon()
    daemon.wait_active()
    since = time.monotonic()

    ended = daemon.stop(signum)

    assert ended.exit_code == 0
    assert ended.summary == [NOTHING]
    assert elapsed_s(since) < QUICK_S
    assert [path.name for path in daemon.run_dir.iterdir()] == ["workers"]
    assert not any((daemon.run_dir / "workers").iterdir())


def test_the_summary_tells_what_occurred_and_what_was_changed(with_example: Daemon, netns: Namespace) -> None:
    raise_limit(with_example, netns)
    shown = with_example.ctl("summary")["lines"]
    changes = with_example.tuner(NAME)["changes"]
    now = netns.read_sysctl(MAX_TW_BUCKETS)

    ended = with_example.stop()

    assert ended.exit_code == 0
    assert ended.summary == [f"bpftune: {line}" for line in shown]
    first, second = shown
    assert first.startswith(
        f"Summary: scenario 'TIME-WAIT connections near their limit' occurred {changes} times"
        f" for tunable '{MAX_TW_BUCKETS}' in netns '{netns.name}'. "
    )
    assert (
        second == f"sysctl '{MAX_TW_BUCKETS}' changed from ({SMALL_LIMIT}) -> ({now}) in netns '{netns.name}'"
    )


def test_rollback_at_exit_puts_everything_back(
    daemon_directory: Path, netns: Namespace, start_daemon: StartDaemon
) -> None:
    third_party.put_example(daemon_directory / "tuners")
    limit_time_wait(netns)
    daemon = start_daemon("--rollback", "-l", str(daemon_directory / "tuners"))
    raise_limit(daemon, netns)
    assert netns.read_sysctl(MAX_TW_BUCKETS) != str(SMALL_LIMIT)

    ended = daemon.stop()

    assert ended.exit_code == 0
    assert f"bpftune: rollback: {MAX_TW_BUCKETS} in '{netns.name}': restored" in ended.summary
    assert netns.read_sysctl(MAX_TW_BUCKETS) == str(SMALL_LIMIT)


def test_hung_workers_hold_the_end_up_for_a_bounded_time_and_more_signals_change_nothing(
    with_example: Daemon, netns: Namespace
) -> None:
    raise_limit(with_example, netns)
    workers = [tuner["pid"] for tuner in with_example.wait_active().values()]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    family = with_example.family()
    since = time.monotonic()

    with_example.process.send_signal(signal.SIGTERM)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        with_example.process.send_signal(signum)
    ended = with_example.stop(signal.SIGINT)

    assert ended.exit_code == 0
    assert elapsed_s(since) < HUNG_WORKERS_S
    assert f"sysctl '{MAX_TW_BUCKETS}' changed from" in "\n".join(ended.summary)
    assert len(family) == len(workers) + 2
    assert not with_example.survivors()


def test_a_stop_while_a_worker_waits_for_its_restart(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    os.kill(daemon.wait_active()["tcp_buffer"]["pid"], signal.SIGKILL)
    daemon.wait_line("tcp_buffer: .* ended: killed by SIGKILL")
    since = time.monotonic()

    ended = daemon.stop()

    assert ended.exit_code == 0
    assert ended.summary == [NOTHING]
    assert elapsed_s(since) < QUICK_S


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_while_programs_are_compiled(
    daemon_directory: Path, signum: signal.Signals
) -> None:
    """Ctrl-C reaches every process of the terminal's group, systemd may signal all of a service."""
    shutil.rmtree(daemon_directory / "state" / CACHE_DIR)
    daemon = Daemon(directory=daemon_directory)
    try:
        wait_for(lambda: is_compiling(daemon), 10, "the compiler runs")

        os.killpg(daemon.pid, signum)
        exit_code = daemon.process.wait(30 * SCALE)
    finally:
        daemon.close()

    assert exit_code == 0
    assert daemon.lines[-1] == NOTHING
    assert "left out" not in "\n".join(daemon.lines)


def test_ctrl_c_before_it_has_begun_ends_it_without_a_traceback(daemon_directory: Path) -> None:
    daemon = Daemon(directory=daemon_directory)
    try:
        wait_for(lambda: is_importing(daemon), 10, "it imports its modules", 0.001)

        os.killpg(daemon.pid, signal.SIGINT)
        exit_code = daemon.process.wait(30 * SCALE)
    finally:
        daemon.close()

    assert exit_code in (-signal.SIGINT, 0)
    assert "Traceback" not in "\n".join(daemon.lines)


def is_importing(daemon: Daemon) -> bool:
    """Our own first lines are behind it."""
    return "libzmq" in Path(f"/proc/{daemon.pid}/maps").read_text()


def is_compiling(daemon: Daemon) -> bool:
    return any(
        "bpftune.bpf.compiler" in process.cmdline() for process in daemon.family() if process.is_running()
    )


def test_sigkill_leaves_nothing_behind_and_the_next_start_works(
    with_example: Daemon, netns: Namespace, start_daemon: StartDaemon
) -> None:
    raise_limit(with_example, netns)
    mounts, namespaces = leftovers.mounts(), leftovers.namespaces()
    held = bpf_objects.held(with_example.pid)
    family = with_example.family()
    assert {kind for kind, _ in held} == {"prog", "link", "map"}
    assert bpf_objects.existing(held) == held
    assert len(family) == len(with_example.wait_active()) + 2

    with_example.process.kill()
    with_example.process.wait(10)

    assert not with_example.survivors()
    wait_for(lambda: not bpf_objects.existing(held), 5, "programs, links and maps are gone")
    assert leftovers.mounts() == mounts
    assert leftovers.namespaces() == namespaces
    assert {"bpftune.pid", "control.sock", "events.sock"} <= {
        path.name for path in with_example.run_dir.iterdir()
    }

    successor = start_daemon()

    assert successor.wait_active().keys() >= {"neigh_table", "tcp_buffer"}
    assert successor.stop().exit_code == 0


def test_the_second_daemon_is_told_who_is_there(start_daemon: StartDaemon) -> None:
    first = start_daemon()
    before = first.wait_active()

    second = subprocess.run(
        [BPFTUNE, "-s", "--state-dir", first.state_dir, "--run-dir", first.run_dir],
        capture_output=True,
        text=True,
        check=False,
        timeout=30 * SCALE,
    )

    assert second.returncode == 1
    pid_file = first.run_dir / "bpftune.pid"
    assert second.stderr == f"bpftune: bpftune is already running as pid {first.pid} ({pid_file})\n"
    after = first.wait_active()
    assert {name: one["pid"] for name, one in after.items()} == {
        name: one["pid"] for name, one in before.items()
    }


def test_files_of_one_that_was_killed_block_nobody(daemon_directory: Path, start_daemon: StartDaemon) -> None:
    """Not even a pid file that names a process which has long been another one."""
    killed = start_daemon()
    killed.wait_active()
    killed.kill_all()
    (killed.run_dir / "bpftune.pid").write_text(f"{os.getpid()}\n")
    (killed.run_dir / "workers" / "tcp_buffer.1.sock").touch()

    daemon = start_daemon()

    assert daemon.wait_active()["tcp_buffer"]["restarts"] == 0
    assert (daemon.run_dir / "bpftune.pid").read_text() == f"{daemon.pid}\n"
