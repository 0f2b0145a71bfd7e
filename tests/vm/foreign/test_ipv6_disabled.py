# SPDX-License-Identifier: GPL-2.0-or-later
"""ipv6.disable=1: sysctls and tables of IPv6 do not exist. Scenarios are missed, tuners are not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import BPFTUNE
from tests.kernel.namespaces import Pair
from tests.vm.foreign.growth import RMEM, SMALL_RMEM, grow_rmem
from tests.waiting import SCALE


def test_the_machine_is_the_one_meant() -> None:
    assert not Path("/proc/sys/net/ipv6").exists()


def test_it_is_supported(daemon_directory: Path) -> None:
    done = subprocess.run(
        [BPFTUNE, "-S", "--state-dir", daemon_directory / "state"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * SCALE,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bpftune works")
    assert done.stderr == ""


def test_every_tuner_is_there_and_tunes_ipv4(distant: Pair, start_daemon: StartDaemon) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    daemon = start_daemon()

    active = daemon.wait_active()
    assert active.keys() >= {"tcp_buffer", "neigh_table", "net_buffer"}
    assert not [line for line in daemon.lines if "Traceback" in line or "left out" in line]
    grow_rmem(distant)
    daemon.wait_line(f"change {RMEM}")
    assert daemon.stop().exit_code == 0
