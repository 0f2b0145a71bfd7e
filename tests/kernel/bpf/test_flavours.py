# SPDX-License-Identifier: GPL-2.0-or-later
"""One body, every rung: whatever hook a kernel offers, the event says the same.

A kernel without kprobes or trampolines shows only some of the rungs; a distribution's has them all.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bpftune.bpf.kernelfs import read_pmu_type
from bpftune.ipc.record import Event
from tests.kernel.bpf.rig import make_tuner, opened
from tests.kernel.namespaces import Namespace
from tests.requirements import is_locked_down, require_rung

RCVBUF = 20_000
SOCK_RCVBUF_LOCK = 2
AF_INET = 2
PAYLOAD = b"x" * 5000
STRUCTS = """
sock = ["__sk_common.skc_net.net", "__sk_common.skc_family", "sk_rcvbuf", "sk_userlocks"]
net = ["ipv4.sysctl_tcp_rmem"]
tcp_sock = ["rcvq_space.space"]
task_struct = ["nsproxy"]
nsproxy = ["net_ns"]
"""
FIELDS = ("u32 rcvbuf", "u32 locks", "u32 family", "u32 rmem[3]", "u32 space", "s32 result")
RECEIVE = """
PROBE(receive, struct sock *sk)
{
	struct net *net = READ(sk, __sk_common.skc_net.net);
	struct tcp_sock *tp = TCP_SOCK(sk);
	struct event_seen e = {};

	if (!tp)
		return 0;
	e.rcvbuf = READ(sk, sk_rcvbuf);
	e.locks = READ_BITS(sk, sk_userlocks);
	e.family = READ(sk, __sk_common.skc_family);
	e.rmem[0] = READ(net, ipv4.sysctl_tcp_rmem[0]);
	e.rmem[1] = READ(net, ipv4.sysctl_tcp_rmem[1]);
	e.rmem[2] = READ(net, ipv4.sysctl_tcp_rmem[2]);
	e.space = READ(tp, rcvq_space.space);
	SEND_ALWAYS(seen, net, &e);
	return 0;
}
"""
RETURNED = """
PROBE(receive, int result)
{
	struct event_seen e = { .result = result };

	SEND_ALWAYS(seen, current_net(), &e);
	return 0;
}
"""


def events_of(hook: str, source: str, tmp_path: Path, netns: Namespace) -> list[Event]:
    """What a probe with that one rung sees of one TCP transfer inside `netns`."""
    folder = make_tuner(
        tmp_path, "flavour", hooks={"receive": [hook]}, source=source, fields=FIELDS, structs=STRUCTS
    )
    with opened(tmp_path / "cache") as rig:
        rig.load(folder)
        (status,) = rig.bpf.hooks("flavour")
        if status.hook is None:
            assert may_lack(hook), status.refused
            require_rung(False, f"{hook}: {status.refused[hook.partition('(')[0]]}")
        with netns.entered():
            transfer()
        return [event for event in rig.events() if event.netns_cookie == cookie(netns)]


def may_lack(hook: str) -> bool:
    return "probe" not in hook or read_pmu_type("kprobe") is None or is_locked_down()


def cookie(netns: Namespace) -> int:
    with netns.entered(), socket.socket() as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, 71, 8), "little")


def transfer() -> None:
    with socket.socket() as listener, socket.socket() as sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RCVBUF)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
        with receiver:
            sender.sendall(PAYLOAD)
            receiver.recv(len(PAYLOAD), socket.MSG_WAITALL)


@pytest.mark.parametrize("kind", ["tp_btf", "fentry", "kprobe", "raw_tp"])
def test_every_rung_reads_the_same(kind: str, tmp_path: Path, netns: Namespace) -> None:
    netns.write_sysctl("net.ipv4.tcp_rmem", "4096 70000 500000")

    events = events_of(f"{kind}:tcp_rcv_space_adjust", RECEIVE, tmp_path, netns)

    assert events
    for event in events:
        assert event["rcvbuf"] == 2 * RCVBUF
        assert event["locks"] & SOCK_RCVBUF_LOCK
        assert event["family"] == AF_INET
        assert event.vectors["rmem"] == (4096, 70000, 500000)
        assert event["space"] > 0


@pytest.mark.parametrize("hook", ["fexit:tcp_recvmsg(5)", "kretprobe:tcp_recvmsg(0)"])
def test_return_values_are_arguments_too(hook: str, tmp_path: Path, netns: Namespace) -> None:
    events = events_of(hook, RETURNED, tmp_path, netns)

    assert len(PAYLOAD) in {event["result"] for event in events}
