# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs that tune the same sysctls: stand-ins with their names, beside a real daemon."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.kernel.conftest import StartDaemon


@contextlib.contextmanager
def program(directory: Path, name: str) -> Iterator[int]:
    """A process that the kernel knows by `name`; its pid."""
    path = shutil.copy(str(shutil.which("sleep")), directory / name)
    with subprocess.Popen([path, "600"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_running_tuned_and_the_bpftune_in_c_are_noticed_and_said(
    tmp_path: Path, start_daemon: StartDaemon
) -> None:
    with program(tmp_path, "tuned") as tuned, program(tmp_path, "bpftune") as other:
        daemon = start_daemon("--allow", "neigh_table")
        told = [
            f"TuneD is running as pid {tuned}: a tuner turns itself off where TuneD writes its sysctls",
            f"another bpftune is running as pid {other}: a tuner turns itself off where another bpftune"
            " writes its sysctls",
        ]
        for line in told:  # in the order of their pids
            daemon.wait_line(f"^bpftune: {line}$")
        assert set(told) <= set(daemon.ctl("status")["rivals"])
        assert "notice" in daemon.run_ctl("status").stdout


def test_alone_nothing_is_said(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--allow", "neigh_table")
    assert daemon.ctl("status")["rivals"] == []
    assert not any("is running as pid" in line for line in daemon.lines)
