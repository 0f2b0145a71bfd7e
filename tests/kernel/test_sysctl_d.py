# SPDX-License-Identifier: GPL-2.0-or-later
"""What /run/sysctl.d sets is the administrator's from the start, unless --adopt-sysctl-d says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel import traffic
from tests.kernel.conftest import StartDaemon
from tests.kernel.namespaces import Pair

RMEM, WMEM = "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"
SMALL_RMEM, SMALL_WMEM = "4096 65536 131072", "4096 16384 65536"
FOLDER = Path("/run/sysctl.d")
FILE = FOLDER / "zz-bpftune-tests.conf"


@pytest.fixture
def rmem_in_sysctl_d() -> Iterator[None]:
    is_new = not FOLDER.exists()
    FOLDER.mkdir(exist_ok=True)
    FILE.write_text(f"# made by a test\n{RMEM} = {SMALL_RMEM}\n")
    yield
    FILE.unlink()
    if is_new:
        FOLDER.rmdir()


def test_only_that_tunable_is_left_alone(
    rmem_in_sysctl_d: None, distant: Pair, start_daemon: StartDaemon
) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    distant.a.write_sysctl(WMEM, SMALL_WMEM)
    daemon = start_daemon()
    with traffic.receiver(distant.b, distant.b_ipv4) as to:
        with traffic.sending(distant.a, to, seconds=20):
            daemon.wait_line(rf"change {WMEM}.* in netns '{distant.a.name}'$")
        traffic.send(distant.a, to, seconds=0.8)
        traffic.send(distant.a, to, seconds=0.8)

    tuner = daemon.tuner("tcp_buffer")
    assert tuner["left_alone"] == [RMEM]
    assert next(one for one in tuner["counters"] if one["scenario"] == "rcvbuf_near_limit")["sent"] > 0
    assert distant.b.read_sysctl(RMEM) == SMALL_RMEM


def test_adopted(rmem_in_sysctl_d: None, distant: Pair, start_daemon: StartDaemon) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    daemon = start_daemon("--adopt-sysctl-d")
    with traffic.receiver(distant.b, distant.b_ipv4) as to, traffic.sending(distant.a, to, seconds=20):
        daemon.wait_line(rf"change {RMEM}.* in netns '{distant.b.name}'$")

    assert daemon.tuner("tcp_buffer")["left_alone"] == []
