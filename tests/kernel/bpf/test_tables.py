# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps declared under [[tables]]: read while probes write them, and rid of dead namespaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bpftune.ipc.declaration import load_declaration
from bpftune.ipc.record import decode_row
from tests.kernel import namespaces
from tests.kernel.bpf.rig import make_tuner, opened, read_source
from tests.kernel.namespaces import Namespace, sysctl_path

TASK = 'task_struct = ["nsproxy"]\nnsproxy = ["net_ns"]'
TABLE = """
[[tables]]
map = "writes"
key = ["u64 netns_cookie", "u32 pid"]
value = ["u32 seen", "u64 squares[3]"]
"""
COUNT = """
BPF_TABLE("%s", struct writes_key, struct writes_value, writes, 64);

PROBE_CTX(count, struct bpf_sysctl *ctx)
{
	struct writes_key key = { .pid = bpf_get_current_pid_tgid() >> 32 };
	struct writes_value first = { .squares = { 1, 4, 9 } };
	struct writes_value *value;
	struct net *net = current_net();

	if (!net || !ctx->write || key.pid != %d)
		return 1;
	key.netns_cookie = READ(net, net_cookie);
	value = writes.lookup_or_try_init(&key, &first);
	if (value)
		value->seen++;
	return 1;
}
"""


def make_counter(parent: Path, *, kind: str = "hash", table: str = TABLE) -> Path:
    folder = make_tuner(
        parent,
        "counter",
        hooks={"count": ["cgroup:sysctl"]},
        source=COUNT % (kind, os.getpid()),
        structs=TASK,
    )
    with (folder / "tuner.toml").open("a") as file:
        file.write(table)
    return folder


def write_in(netns: Namespace, times: int) -> None:
    with netns.entered():
        for _ in range(times):
            sysctl_path("net.ipv4.tcp_fin_timeout").write_text("50")


@pytest.mark.parametrize("kind", ["hash", "lru_hash"])
def test_rows_are_read_and_go_with_their_namespace(tmp_path: Path, netns: Namespace, kind: str) -> None:
    folder = make_counter(tmp_path, kind=kind)
    (table,) = load_declaration(folder).tables
    with opened(tmp_path / "cache") as rig, namespaces.namespace() as other:
        rig.load(folder)
        assert rig.bpf.rows("counter", "writes") == {}
        write_in(netns, 3)
        write_in(other, 1)

        rows = [decode_row(table, *row) for row in rig.bpf.rows("counter", "writes").items()]
        cookie, other_cookie = namespaces.cookie(netns), namespaces.cookie(other)
        assert {row["netns_cookie"]: row["seen"] for row in rows} == {cookie: 3, other_cookie: 1}
        assert {row["pid"] for row in rows} == {os.getpid()}
        assert {row.vectors["squares"] for row in rows} == {(1, 4, 9)}

        rig.bpf.forget(cookie, "counter")
        (left,) = [decode_row(table, *row) for row in rig.bpf.rows("counter", "writes").items()]
        assert left["netns_cookie"] == other_cookie


def test_rows_survive_a_detached_tuner(tmp_path: Path, netns: Namespace) -> None:
    with opened(tmp_path / "cache") as rig:
        rig.load(make_counter(tmp_path))
        write_in(netns, 1)
        rig.bpf.detach("counter")
        assert len(rig.bpf.rows("counter", "writes")) == 1


@pytest.mark.parametrize(
    ("kind", "more", "cause"),
    [
        ("hash", TABLE.replace('"writes"', '"reads"'), "the probes have none of that name"),
        ("percpu_hash", "", "not a hash of struct writes_key and writes_value"),
    ],
)
def test_a_table_that_does_not_fit_the_probes_is_refused(
    tmp_path: Path, kind: str, more: str, cause: str
) -> None:
    folder = make_counter(tmp_path, kind=kind, table=TABLE + more)
    with opened(tmp_path / "cache") as rig:
        failures = rig.bpf.load([read_source(folder)])
    assert cause in str(failures["counter"])
