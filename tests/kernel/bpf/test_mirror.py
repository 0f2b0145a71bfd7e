# SPDX-License-Identifier: GPL-2.0-or-later
"""A program reads global tunables that it could not find in kernel memory."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.bpf.rig import make_tuner, opened
from tests.kernel.namespaces import Namespace

STRUCTS = 'sock_common = ["skc_net.net"]\nsock = ["__sk_common"]'
SOURCE = """
PROBE(changed, struct sock *sk)
{
	struct event_seen e = {};

	e.pressure = TUNABLE(net_ipv4_tcp_mem, 1);
	e.other = TUNABLE(net_core_other_thing, 0);
	SEND_ALWAYS(seen, READ(sk, __sk_common.skc_net.net), &e);
	return 0;
}
"""
TUNABLES = """
[[tunables]]
name = "net.ipv4.tcp_mem"
scope = "global"
width = 3
mirror = true

[[tunables]]
name = "net.core.other-thing"
scope = "global"
mirror = true
"""


def test_a_program_reads_what_was_written_last(tmp_path: Path, netns: Namespace) -> None:
    folder = make_tuner(
        tmp_path,
        "mirrored",
        hooks={"changed": ["tp_btf:inet_sock_set_state"]},
        source=SOURCE,
        fields=["s64 pressure", "s64 other"],
        structs=STRUCTS,
    )
    path = folder / "tuner.toml"
    path.write_text(
        path.read_text().replace("tunables = []\n", "").replace("[structs]", f"{TUNABLES}[structs]")
    )
    with opened(tmp_path / "cache") as rig:
        rig.load(folder)
        _listen(netns)
        rig.bpf.write_mirror("mirrored", "net.ipv4.tcp_mem", (1, -2, 1 << 40))
        rig.bpf.write_mirror("mirrored", "net.core.other-thing", (7,))
        _listen(netns)
        events = [event for event in rig.events() if event.netns_inum == netns.inum]

    seen = [(event["pressure"], event["other"]) for event in events]
    assert seen[0] == (0, 0)
    assert seen[-1] == (-2, 7)


def _listen(netns: Namespace) -> None:
    netns.run("/usr/bin/python3", "-c", "import socket; socket.create_server(('127.0.0.1', 0))")
