# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bpftune.ipc.errors import BpftuneError
from bpftune.supervisor.lock import PID_FILE, InstanceLock

HOLDER = """
import sys, time
from pathlib import Path
from bpftune.supervisor.lock import InstanceLock
lock = InstanceLock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def test_the_second_one_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    lock = InstanceLock(tmp_path)
    with pytest.raises(BpftuneError, match=f"already running as pid {os.getpid()} "):
        InstanceLock(tmp_path)
    lock.release()
    assert not (tmp_path / PID_FILE).exists()
    InstanceLock(tmp_path).release()


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(BpftuneError, match=f"pid {holder.pid} "):
            InstanceLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    InstanceLock(tmp_path).release()
