# SPDX-License-Identifier: GPL-2.0-or-later
"""--dry-run under traffic that would change something: nothing is written, and the log says what would be.

The witness is a second BPF program of the kind that the daemon itself watches sysctls with.
"""

from __future__ import annotations

from pathlib import Path

from tests.kernel import sysctl_guard, traffic
from tests.kernel.bpf.rig import WATCH_SYSCTL, opened
from tests.kernel.conftest import StartDaemon
from tests.kernel.namespaces import Pair

RMEM, MODERATE = "net.ipv4.tcp_rmem", "net.ipv4.tcp_moderate_rcvbuf"
SMALL_RMEM = "4096 131072 131072"
CONNECTIONS = 3


def test_dry_run_writes_nothing(distant: Pair, start_daemon: StartDaemon, tmp_path: Path) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    distant.b.write_sysctl(MODERATE, "0")
    keys = sysctl_guard.declared_sysctls()
    before = [sysctl_guard.read(keys), distant.b.read_sysctl(RMEM), distant.b.read_sysctl(MODERATE)]
    with opened(tmp_path / "cache") as rig:
        rig.load(WATCH_SYSCTL)
        daemon = start_daemon("--dry-run")
        distant.a.write_sysctl("net.ipv4.tcp_fin_timeout", "59")
        with traffic.receiver(distant.b, distant.b_ipv4) as to:
            for _ in range(CONNECTIONS):
                traffic.send(distant.a, to, seconds=0.8)
        line = daemon.wait_line(
            rf"^bpftune: Due to .+ would change {RMEM}\(min default max\) from \({SMALL_RMEM}\) -> \(.+\)"
            rf" in netns '{distant.b.name}'$"
        )
        daemon.wait_line(rf"would change {MODERATE} from \(0\) -> \(1\) in netns '{distant.b.name}'$")
        tuner, pid = daemon.tuner("tcp_buffer"), daemon.pid
        ended = daemon.stop()
        written = [(event["pid"], event.text("key")) for event in rig.events()]

    assert [key for writer, key in written if writer == pid] == []
    assert "net/ipv4/tcp_fin_timeout" in [key for _, key in written]
    assert [sysctl_guard.read(keys), distant.b.read_sysctl(RMEM), distant.b.read_sysctl(MODERATE)] == before
    assert tuner["events_in"] > 0
    assert tuner["changes"] == 0
    assert sum(text == line.string for text in ended.lines) == 1
    assert not any(" change net." in text and "would" not in text for text in ended.lines)
