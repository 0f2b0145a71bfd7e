# SPDX-License-Identifier: GPL-2.0-or-later
"""Controllers in cgroup v1 trees, cgroup2 mounted at /sys/fs/cgroup/unified: programs of the cgroup
kind must find it, and hold for every process."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.conftest import StartDaemon
from tests.kernel.namespaces import Pair
from tests.vm.foreign.growth import SMALL_WMEM, WMEM, grow_wmem


def test_the_machine_is_the_one_meant() -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]

    assert [mount[1] for mount in mounts if mount[2] == "cgroup2"] == ["/sys/fs/cgroup/unified"]
    assert [mount for mount in mounts if mount[2] == "cgroup"]


def test_cgroup_programs_see_all_processes(distant: Pair, start_daemon: StartDaemon) -> None:
    """The sender's buffer is watched by sockops, an administrator's write by cgroup/sysctl."""
    distant.a.write_sysctl(WMEM, SMALL_WMEM)
    daemon = start_daemon()
    daemon.wait_active()

    grow_wmem(distant)
    daemon.wait_line(f"change {WMEM}")
    distant.a.run("sysctl", "-w", f"{WMEM}=4096 16384 300000")
    daemon.wait_line(f"cmd 'sysctl' modified sysctl '{WMEM}'")

    assert daemon.stop().exit_code == 0
