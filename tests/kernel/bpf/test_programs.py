# SPDX-License-Identifier: GPL-2.0-or-later
"""Every map type and program type that tuners use, loaded and run."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bpftune.ipc.errors import CompileError
from tests.kernel.bpf.rig import WATCH_NETNS_CALLS, make_tuner, opened, read_source
from tests.kernel.namespaces import Namespace

SOCKET = 'sock_common = ["skc_net.net", "skc_state"]\nsock = ["__sk_common"]\ntcp_sock = ["srtt_us"]\n'
MAPS = """
BPF_HASH(hash, u64, u64, 64);
BPF_TABLE("lru_hash", u64, u64, recent, 64);
BPF_ARRAY(array, u64, 4);
BPF_PERCPU_ARRAY(per_cpu, u64, 4);
BPF_PERCPU_HASH(per_cpu_hash, u64, u64, 64);
BPF_SK_STORAGE(storage, u64);

static __always_inline u64 touch_all(u64 key)
{
	int zero = 0;
	u64 one = 1, sum = 0, *slot;

	hash.update(&key, &one);
	recent.update(&key, &one);
	per_cpu_hash.update(&key, &one);
	array.update(&zero, &one);
	per_cpu.update(&zero, &one);
	if ((slot = hash.lookup(&key)))
		sum += *slot;
	if ((slot = recent.lookup(&key)))
		sum += *slot;
	if ((slot = per_cpu_hash.lookup(&key)))
		sum += *slot;
	if ((slot = array.lookup(&zero)))
		sum += *slot;
	if ((slot = per_cpu.lookup(&zero)))
		sum += *slot;
	hash.delete(&key);
	return sum;
}

PROBE_CTX(connected, struct bpf_sock_ops *ctx)
{
	struct event_seen e = {};
	struct bpf_sock *sk = ctx->sk;
	struct tcp_sock *tp;
	u64 *stored;

	if (ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || !sk)
		return 1;
	tp = TCP_SOCK(sk);
	stored = storage.sk_storage_get(sk, 0, 1);
	if (!tp || !stored)
		return 1;
	*stored += 1;
	e.value = touch_all(7) + *stored;
	e.port = ctx->remote_port >> 16;
	SEND_ALWAYS(seen, READ((struct sock *)tp, __sk_common.skc_net.net), &e);
	return 1;
}
"""
LISTENERS = """
PROBE_CTX(each, struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct event_seen e = {};

	if (!skc)
		return 0;
	e.value = READ(skc, skc_state);
	SEND_ALWAYS(seen, READ(skc, skc_net.net), &e);
	return 0;
}
"""
CREATED = """
PROBE_CTX(created, struct bpf_sock *ctx)
{
	struct event_seen e = { .value = ctx->family };

	if (bpf_get_current_pid_tgid() >> 32 == %d)
		SEND_ALWAYS(seen, current_net(), &e);
	return 1;
}
"""
TCP_LISTEN = 10


def test_every_map_type_works_from_sockops(tmp_path: Path, netns: Namespace) -> None:
    folder = make_tuner(
        tmp_path,
        "maps",
        hooks={"connected": ["sockops"]},
        source=MAPS,
        fields=("u64 value", "u32 port"),
        structs=SOCKET,
    )
    with opened(tmp_path / "cache") as rig, netns.entered(), socket.socket() as listener:
        rig.load(folder)
        assert rig.bpf.hooks("maps")[0].hook == "sockops"
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        values = [event["value"] for event in rig.events() if socket.ntohs(event["port"]) == port]

    assert values == [6]


def test_an_iterator_runs_over_the_current_namespace(tmp_path: Path, netns: Namespace) -> None:
    structs = 'bpf_iter__tcp = ["sk_common"]\n' + SOCKET
    folder = make_tuner(tmp_path, "sockets", hooks={"each": ["iter:tcp"]}, source=LISTENERS, structs=structs)
    with opened(tmp_path / "cache") as rig:
        rig.load(folder)
        rig.events()
        with netns.entered(), socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            rig.bpf.run_iterators("sockets")

            assert [event["value"] for event in rig.events()] == [TCP_LISTEN]


def test_other_cgroup_hooks_attach_and_fire(tmp_path: Path) -> None:
    structs = 'task_struct = ["nsproxy"]\nnsproxy = ["net_ns"]'
    folder = make_tuner(
        tmp_path,
        "creations",
        hooks={"created": ["cgroup:sock_create"]},
        source=CREATED % os.getpid(),
        structs=structs,
    )
    with opened(tmp_path / "cache") as rig:
        rig.load(folder)
        socket.socket(socket.AF_INET6).close()

        if rig.bpf.hooks("creations")[0].hook is not None:
            assert [event["value"] for event in rig.events()] == [socket.AF_INET6]


def test_broken_c_costs_its_own_tuner_only(tmp_path: Path) -> None:
    source = "PROBE(receive, struct sock *sk)\n{\n\treturn READ(sk, nonsense);\n}\n"
    hooks = {"receive": ["tp_btf:tcp_rcv_space_adjust"]}
    broken = make_tuner(tmp_path, "broken", hooks=hooks, source=source, structs='sock = ["sk_rcvbuf"]')
    lacking = make_tuner(tmp_path, "lacking", hooks=hooks, source=source, structs='sock = ["nonsense"]')
    with opened(tmp_path / "cache") as rig:
        failures = rig.bpf.load([read_source(folder) for folder in (broken, WATCH_NETNS_CALLS, lacking)])

        assert set(failures) == {"broken", "lacking"}
        assert all(isinstance(failure, CompileError) for failure in failures.values())
        assert "broken/probe.bpf.c:5:18: error: no member named 'nonsense'" in str(failures["broken"])
        assert str(failures["lacking"]).endswith("this kernel's struct sock has no member nonsense")
        assert rig.bpf.attach("watch_netns_calls")[0].hook is not None


@pytest.mark.parametrize("field", ["u8 name[16]", "u16 name[3]", "s64 name"])
def test_records_are_decoded_as_the_compiler_laid_them_out(tmp_path: Path, field: str) -> None:
    fields = ("u8 first", field, "u32 middle", "u8 tail[5]", "u64 last")
    source = (
        CREATED.replace("= { .value = ctx->family }", "= { .first = 1, .middle = 2, .last = 3 }")
        % os.getpid()
    )
    folder = make_tuner(
        tmp_path,
        "layouts",
        hooks={"created": ["cgroup:sock_create"]},
        source=source,
        fields=fields,
        structs='task_struct = ["nsproxy"]\nnsproxy = ["net_ns"]',
    )
    with opened(tmp_path / "cache") as rig:
        rig.load(folder)
        socket.socket().close()

        for event in rig.events():
            assert (event["first"], event["middle"], event["last"]) == (1, 2, 3)
