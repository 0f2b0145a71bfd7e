# SPDX-License-Identifier: GPL-2.0-or-later
"""The worked example of HACKING.md sees real connections close, in their own namespace."""

from __future__ import annotations

from pathlib import Path

from bpftune.bpf.runtime import Bpf, ProbeSource
from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.record import Event, RecordDecoder
from tests.kernel.namespaces import Namespace

FOLDER = Path(__file__).resolve().parents[3] / "docs/example_tuner/time_wait"
CLOSE_60_CONNECTIONS = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
for _ in range(60):
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    client.close()
    server.close()
"""


def test_closing_connections_near_the_limit_are_seen(netns: Namespace, tmp_path: Path) -> None:
    declaration = load_declaration(FOLDER)
    bpf = Bpf(cache_dir=tmp_path / "cache", shift=2, log=lambda line: None)
    events: list[Event] = []
    try:
        assert not bpf.load([ProbeSource(declaration=declaration, folder=FOLDER)])
        assert [status.hook for status in bpf.attach("time_wait")] != [None]
        netns.write_sysctl("net.ipv4.tcp_max_tw_buckets", "40")

        netns.run("/usr/bin/python3", "-c", CLOSE_60_CONNECTIONS)

        decoder = RecordDecoder(declaration)
        bpf.consume(lambda record: events.append(decoder.decode(record)))
    finally:
        bpf.close()
    assert events
    assert events[0]["limit"] == 40
    assert 30 <= events[0]["time_wait"] <= 40
