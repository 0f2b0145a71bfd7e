# SPDX-License-Identifier: GPL-2.0-or-later
"""Start, status, reload, restart, stop: what systemctl and its user see."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests import leftovers
from tests.kernel import bpf_objects
from tests.kernel.namespaces import Pair
from tests.requirements import refused_by_lockdown
from tests.vm.foreign.growth import RMEM, SMALL_RMEM, grow_rmem
from tests.vm.service import unit
from tests.waiting import SCALE, wait_for


def test_ready_means_that_every_probe_is_attached(stopped: None) -> None:
    unit.systemctl("start")
    seen = unit.tuners()

    assert unit.is_active()
    assert seen.keys() >= {"tcp_buffer", "neigh_table", "net_buffer", "route_table"}
    without = {
        (name, hook["probe"]): hook["refused"]
        for name, tuner in seen.items()
        for hook in tuner["hooks"]
        if hook["hook"] is None and not hook["unused"]
    }
    assert without.keys() == refused_by_lockdown(), without
    assert unit.wait_active_tuners().keys() >= {"tcp_buffer", "neigh_table", "net_buffer"}


def test_status_tells_what_it_does(started: int) -> None:
    unit.wait_active_tuners()
    count = len(unit.tuners())
    wait_for(lambda: "starting" not in unit.show("StatusText"), 5, "a status of active tuners")

    text = unit.show("StatusText")

    assert text.startswith(f"auto: {count} tuners (")
    assert text.endswith(" 0 changes")
    assert f'Status: "{text}"' in unit.run("systemctl", "status", "--no-pager", unit.NAME).stdout


def test_only_the_supervisor_and_its_fork_server_are_root(started: int) -> None:
    workers = {tuner["pid"] for tuner in unit.wait_active_tuners().values()}
    owners = {pid: Path(f"/proc/{pid}").stat().st_uid for pid in unit.pids()}

    assert workers <= owners.keys()
    assert len(owners) == len(workers) + 2
    for pid, owner in owners.items():
        assert (owner != 0) == (pid in workers), pid
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        if pid in workers:
            assert "CapEff:\t0000000000000000" in status
            assert "CapBnd:\t0000000000000000" in status


def test_reload_keeps_the_process_and_reads_tuner_folders_again(started: int) -> None:
    before = unit.wait_active_tuners()

    unit.systemctl("reload")

    assert unit.main_pid() == started
    assert {name: one["pid"] for name, one in unit.wait_active_tuners().items()} == {
        name: one["pid"] for name, one in before.items()
    }


def test_restart(started: int) -> None:
    unit.wait_active_tuners()

    unit.systemctl("restart")

    assert unit.main_pid() != started
    assert not Path(f"/proc/{started}").exists()
    assert unit.show("NRestarts") == "0"
    assert unit.wait_active_tuners()


def test_stop_is_quick_and_leaves_the_summary_in_the_journal(stopped: None, distant: Pair) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    unit.systemctl("start")
    unit.wait_active_tuners()
    grow_rmem(distant)
    invocation = unit.show("InvocationID")
    now = distant.b.read_sysctl(RMEM)
    since = time.monotonic()

    unit.systemctl("stop")

    assert (time.monotonic() - since) / SCALE < 5
    assert unit.show("Result") == "success"
    said = [line["MESSAGE"] for line in unit.journal(f"_SYSTEMD_INVOCATION_ID={invocation}")]
    assert f"sysctl '{RMEM}' changed from ({SMALL_RMEM}) -> ({now}) in netns '{distant.b.name}'" in said
    assert any(
        line.startswith("Summary: scenario ") and f"for tunable '{RMEM}' in netns '{distant.b.name}'" in line
        for line in said
    )


def test_nothing_is_left_after_a_stop(started: int) -> None:
    unit.wait_active_tuners()
    held = bpf_objects.held(started)
    namespaces = leftovers.namespaces()
    processes = unit.pids()
    assert {kind for kind, _ in held} == {"prog", "link", "map"}

    unit.systemctl("stop")

    wait_for(lambda: not bpf_objects.existing(held), 5, "programs, links and maps are gone")
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert leftovers.namespaces() == namespaces
    assert not unit.CGROUP.exists()
    assert not Path("/run/bpftune").exists()


def test_a_second_one_by_hand_is_told_who_is_there(started: int) -> None:
    second = unit.run(unit.BPFTUNE, "-s")

    assert second.returncode == 1
    assert second.stderr == (
        f"bpftune: bpftune is already running as pid {started} (/run/bpftune/bpftune.pid)\n"
    )


@pytest.mark.parametrize("arguments", [("support",), ("status",)])
def test_ctl_finds_the_service(started: int, arguments: tuple[str, ...]) -> None:
    assert unit.ctl(*arguments)
    assert os.stat("/run/bpftune/control.sock").st_uid == 0
