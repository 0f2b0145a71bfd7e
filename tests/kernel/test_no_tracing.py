# SPDX-License-Identifier: GPL-2.0-or-later
"""The last rungs: on a kernel without tracing programs, counters in /proc are read once per second."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.declaration_file import load_declaration
from tests.kernel import no_tracing
from tests.kernel.bpf.rig import ROOT
from tests.kernel.daemon import BPFTUNE, Daemon, running
from tests.kernel.namespaces import INITIAL, Pair
from tests.kernel.traffic import PYTHON
from tests.kernel.tuners.test_ip_frag import HIGH_BYTES, IPV4, LOW_BYTES, PROGRAM, UNFINISHED_PER_S
from tests.kernel.tuners.test_net_buffer import BACKLOG, BACKLOG_PACKETS, flood
from tests.requirements import require_kernel_memory
from tests.waiting import SCALE

WRAPPER = (sys.executable, no_tracing.__file__)


@pytest.fixture
def daemon(initial_restored: None, daemon_directory: Path) -> Iterator[Daemon]:
    INITIAL.write_sysctl(BACKLOG, str(BACKLOG_PACKETS))
    INITIAL.write_sysctl(IPV4.low, str(LOW_BYTES))
    INITIAL.write_sysctl(IPV4.high, str(HIGH_BYTES))
    with running(directory=daemon_directory, wrapper=WRAPPER) as started:
        started.wait_active()
        yield started


def test_every_ladder_ends_at_its_last_rung(daemon: Daemon) -> None:
    require_kernel_memory()
    for name, tuner in {one["name"]: one for one in daemon.ctl("status")["tuners"]}.items():
        ladders = {probe.name: probe.ladder for probe in load_declaration(ROOT / "tuners" / name).probes}
        for status in tuner["hooks"]:
            left = [str(hook) for hook in ladders[status["probe"]] if hook.kind in no_tracing.LEFT]
            assert status["hook"] == (left[0] if left and not status["unused"] else None), status
            if not status["unused"]:
                assert all(why == no_tracing.REASON for why in status["refused"].values()), status
    assert daemon.ctl("status")["support"] == "bpftune works in legacy mode"


def test_dropped_packets_raise_the_backlog(daemon: Daemon, veth: Pair) -> None:
    with flood(veth):
        daemon.wait_line(rf"change {BACKLOG} from \({BACKLOG_PACKETS}\) -> \(\d+\)")


def test_waiting_fragments_raise_their_threshold(daemon: Daemon) -> None:
    argv = [PYTHON, PROGRAM, "127.0.0.1", str(UNFINISHED_PER_S)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
        try:
            daemon.wait_line(rf"change {IPV4.high} from \({HIGH_BYTES}\) -> \(\d+\)$")
        finally:
            process.kill()


def test_support_tells_the_truth(daemon_directory: Path) -> None:
    done = subprocess.run(
        [*WRAPPER, BPFTUNE, "-S", "--state-dir", daemon_directory / "state"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * SCALE,
    )

    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("bpftune: new network namespaces are noticed late: ")
    assert done.stdout.startswith("bpftune works in legacy mode\n")
    assert f"    not tp_btf:napi_poll: {no_tracing.REASON}\n" in done.stdout
