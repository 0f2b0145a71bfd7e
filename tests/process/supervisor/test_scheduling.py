# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that asked for short slices has them, and so have its children."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bpftune.supervisor.scheduling import SHORT_SLICE_NS, ask_for_short_slices

ASK_THEN_FORK = """
import subprocess
from bpftune.supervisor.scheduling import ask_for_short_slices
assert ask_for_short_slices()
print(subprocess.run(["cat", "/proc/self/sched"], capture_output=True, text=True).stdout)
"""


def test_children_inherit_it_and_the_share_stays() -> None:
    shown = Path("/proc/self/sched")
    if not shown.exists() or "se.slice" not in shown.read_text():
        pytest.skip("this kernel does not show time slices in /proc/PID/sched")
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 12):
        pytest.skip("kernels before 6.12 have no time slice of a task's own")

    done = subprocess.run([sys.executable, "-c", ASK_THEN_FORK], capture_output=True, text=True, check=True)
    fields = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in fields.items()}

    assert int(values["se.slice"]) == SHORT_SLICE_NS
    assert values["policy"] == "0"
    assert values["prio"] == "120"


def test_a_machine_with_unknown_call_numbers_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpftune.supervisor.scheduling._NUMBERS", {})

    assert not ask_for_short_slices()
