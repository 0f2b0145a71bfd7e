# SPDX-License-Identifier: GPL-2.0-or-later
"""bpftune.service as an administrator has it: installed, started with systemctl, read in the journal."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.waiting import SCALE, wait_for

ROOT = Path(__file__).resolve().parents[3]
NAME = "bpftune.service"
PREFIX = Path("/usr/local")
BPFTUNE = str(PREFIX / "sbin/bpftune")
BPFTUNE_CTL = str(PREFIX / "bin/bpftune-ctl")
CGROUP = Path("/sys/fs/cgroup/system.slice") / NAME
DROP_IN = Path("/run/systemd/system") / f"{NAME}.d" / "test.conf"


def install() -> None:
    """`make install`, offline: the machine has the wheels that it needs."""
    wheels = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels"}
    subprocess.run(
        ["tools/install", "", str(PREFIX)],
        cwd=ROOT,
        check=True,
        env={**os.environ, **wheels},
        timeout=60 * SCALE,
    )


def run(*argv: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=timeout_s * SCALE
    )


def checked(*argv: str) -> str:
    done = run(*argv)
    assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}\n{tail()}"
    return done.stdout


def systemctl(*arguments: str) -> str:
    return checked("systemctl", *arguments, NAME)


def show(name: str) -> str:
    """A property of the unit."""
    return systemctl("show", "--value", "--property", name).strip()


def main_pid() -> int:
    return int(show("MainPID"))


def is_active() -> bool:
    return show("ActiveState") == "active"


def pids() -> set[int]:
    """Every process of the service."""
    try:
        return {int(pid) for pid in (CGROUP / "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def wait_restarted(old_pid: int, timeout_s: float) -> int:
    """Wait until another supervisor is ready; its pid."""

    def restarted() -> int:
        return main_pid() if main_pid() not in (0, old_pid) and is_active() else 0

    return wait_for(restarted, timeout_s, "the service is active again", interval_s=0.2)


def ctl(*arguments: str) -> Any:
    return json.loads(checked(BPFTUNE_CTL, *arguments, "--json"))


def tuners() -> dict[str, Any]:
    return {tuner["name"]: tuner for tuner in ctl("status")["tuners"]}


def wait_active_tuners() -> dict[str, Any]:
    """Wait until every tuner has its worker, or nothing to do here; those that have one."""

    def waiting() -> dict[str, str]:
        states = {name: f"{one['state']} {one['why']}" for name, one in tuners().items()}
        return {name: state for name, state in states.items() if not state.startswith(("active", "inactive"))}

    try:
        wait_for(lambda: not waiting(), 10, "all tuners are active", interval_s=0.2)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{waiting()}\n{tail()}") from None
    return {name: one for name, one in tuners().items() if one["state"] == "active"}


def wait_settled_tuners() -> dict[str, str]:
    """Wait until no worker is on its way; the tuners' states."""

    def settled() -> dict[str, str]:
        states = {name: str(one["state"]) for name, one in tuners().items()}
        return {} if {"starting", "restarting"} & set(states.values()) else states

    return wait_for(settled, 20, "no worker is starting", interval_s=0.5)


def journal(*matches: str) -> list[dict[str, Any]]:
    """What bpftune itself logged in this boot, oldest first."""
    lines = checked("journalctl", "--boot", "--output=json", *matches).splitlines()
    return [json.loads(line) for line in lines]


def tail() -> str:
    return run("journalctl", "--boot", "--no-pager", "--lines=30", "--unit", NAME).stdout


def configure(text: str) -> None:
    """Settings of [Service] for this test; `unconfigure` takes them back."""
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\n{text}\n")
    checked("systemctl", "daemon-reload")


def forget_ledger() -> None:
    """Overrides of earlier tests among it; compiled programs stay."""
    for path in Path("/var/lib/bpftune").glob("ledger*"):
        path.unlink()


def unconfigure() -> None:
    if DROP_IN.exists():
        DROP_IN.unlink()
        checked("systemctl", "daemon-reload")
