# SPDX-License-Identifier: GPL-2.0-or-later
"""Who lives on when somebody dies: nobody outlives the supervisor."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bpftune.supervisor.forkserver import MODULE
from tests.process.rig import Rig
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
