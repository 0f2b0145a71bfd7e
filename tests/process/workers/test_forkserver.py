# SPDX-License-Identifier: GPL-2.0-or-later
"""Who lives on when somebody dies: nobody outlives the supervisor."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from bpftune.ipc.control import TunerState
from bpftune.ipc.declaration_file import load_declaration
from bpftune.supervisor.forkserver import MODULE
from tests.process.rig import GROW, Rig, make_folder
from tests.waiting import wait_for

SUPERVISOR = """
import sys
from pathlib import Path
from tests.process.rig import rig

with rig(Path(sys.argv[1])) as made:
    workers = [made.active("first"), made.active("second")]
    print(made.forkserver.pid, *(worker.pid for worker in workers), made.run_dir, flush=True)
    made.loop.run()
"""


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in "XZ"


@pytest.mark.needs_root
def test_a_killed_supervisor_leaves_no_process(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        *numbers, run_dir = supervisor.stdout.readline().split()
    pids = [int(number) for number in numbers]
    assert len(pids) == 3
    assert all(_is_alive(pid) for pid in pids)
    supervisor.kill()
    supervisor.wait()
    shutil.rmtree(run_dir)
    wait_for(lambda: not any(_is_alive(pid) for pid in pids), 5, "fork server and workers are gone")


@pytest.mark.needs_root
def test_it_ends_when_its_socket_is_closed() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        ours.close()
        assert server.wait(10) == 0


def test_signals_to_the_whole_service_are_left_to_the_supervisor(rig: Rig) -> None:
    worker = rig.active("echo")
    for number in (signal.SIGTERM, signal.SIGINT):
        for pid in (worker.pid, rig.forkserver.pid):
            assert pid is not None
            os.kill(pid, number)
    rig.event(worker)
    rig.until(lambda: rig.desk.answers, "an answer")
    assert worker.restarts == 0


def test_it_has_nothing_a_worker_does_not_need(rig: Rig) -> None:
    rig.active("echo")
    mapped = Path(f"/proc/{rig.forkserver.pid}/maps").read_text()
    assert "libbcc" not in mapped
    assert "libLLVM" not in mapped
    # No ZeroMQ context: its threads would not survive a fork.
    assert len(list(Path(f"/proc/{rig.forkserver.pid}/task").iterdir())) == 1


class Hearing:
    """A listener that never gets a process."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def started(self, pid: int, pidfd: int) -> None:
        raise AssertionError(f"pid {pid} was made")

    def ended(self, how: str) -> None:
        self.ends.append(how)


@pytest.mark.needs_root
def test_a_declaration_that_fits_no_packet_costs_its_own_worker_only(rig: Rig) -> None:
    other = rig.active("other")
    declaration = load_declaration(make_folder(rig.folders, "huge", GROW))
    declaration = replace(declaration, enums={"e": [f"CONSTANT_{number}" for number in range(10_000)]})
    hearing = Hearing()
    rig.forkserver.spawn(declaration, rig.folders, "ipc:///x", stdout=1, stderr=2, listener=hearing)
    assert hearing.ends == [], "from the loop only"
    rig.until(lambda: hearing.ends, "it is refused")
    assert "too many for a packet" in hearing.ends[0]
    rig.event(other)
    rig.until(lambda: rig.desk.answers, "the other one answers")
    assert other.restarts == 0


@pytest.mark.needs_root
def test_a_fork_server_that_takes_nothing_more_costs_whoever_asks(rig: Rig) -> None:
    rig.active("other")
    declaration = load_declaration(make_folder(rig.folders, "asked", GROW))
    declaration = replace(declaration, enums={"e": [f"CONSTANT_{number}" for number in range(4_000)]})
    assert rig.forkserver.pid is not None
    os.kill(rig.forkserver.pid, signal.SIGSTOP)
    hearing = Hearing()
    for _ in range(8):
        rig.forkserver.spawn(declaration, rig.folders, "ipc:///x", stdout=1, stderr=2, listener=hearing)
    rig.until(lambda: hearing.ends, "one is refused")
    assert "cannot ask the fork server for it" in hearing.ends[0]
    rig.forkserver.distrust("it is stopped")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.needs_root
def test_a_fork_server_that_cannot_be_started_leaves_no_descriptor(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(subprocess, "Popen", fail)
    before = _descriptors()
    with pytest.raises(OSError, match="no more processes"):
        rig.forkserver.start()
    assert _descriptors() == before


@pytest.mark.needs_root
def test_a_worker_that_gets_no_second_pipe_leaves_no_descriptor(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = rig.active("worker")
    worker.stop()
    rig.until(lambda: worker.pid is None, "stopped")
    made: list[tuple[int, int]] = []
    pipe = os.pipe

    def one_only() -> tuple[int, int]:
        if made:
            raise OSError(errno.EMFILE, "too many open files")
        made.append(pipe())
        return made[-1]

    before = _descriptors()
    monkeypatch.setattr(os, "pipe", one_only)
    worker.start()
    assert worker.state is TunerState.RESTARTING
    assert "too many open files" in worker.why
    # libzmq closes what belongs to a socket in a thread of its own.
    wait_for(lambda: _descriptors() <= before, 2, "all descriptors are given back")
