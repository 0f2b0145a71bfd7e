# SPDX-License-Identifier: GPL-2.0-or-later
"""Small declarations, units and objects for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from bpftune.bpf.unit import Flavour, MapSpec, Object, Unit
from bpftune.ipc.declaration import Declaration, Probe, Scenario

PROBE_TEXT = """\
// a comment: PROBE(commented, int a)
#include "bpftune.h"

PROBE(create, struct neigh_table *tbl,
      struct net_device *dev, int rc)
{
	return 0;
}

PROBE_CTX(established, struct bpf_sock_ops *ctx)
{
	return 1;
}
"""


def probe(name: str, *hooks: str) -> Probe:
    return Probe(name=name, scenarios=["full"], hooks=list(hooks))


def declaration(*probes: Probe, name: str = "small") -> Declaration:
    return Declaration(
        name=name,
        description="a tuner for tests",
        tunables=[],
        scenarios=[
            Scenario(id="idle", name="idle", why="why", reason="reason"),
            Scenario(
                id="full", name="full", why="why", reason="reason", event=["u32 entries", "u8 name[16]"]
            ),
        ],
        probes=list(probes),
        structs={"neigh_table": ["gc_thresh3"], "net": ["ipv4.sysctl_tcp_rmem"]},
        enums={"skb_drop_reason": ["SKB_DROP_REASON_CPU_BACKLOG"]},
    )


def folder(parent: Path, text: str = PROBE_TEXT, name: str = "small") -> Path:
    made = parent / name
    made.mkdir()
    (made / "probe.bpf.c").write_text(text)
    return made


def unit(tuner: str = "small", *, body: str = "int a;") -> Unit:
    return Unit(
        tuner=tuner,
        flavour=Flavour.TYPED,
        head="",
        body=body,
        structs={},
        enums={},
        functions=["a__0"],
        signatures=[],
        needs={},
    )


def compiled(code: bytes = b"\x95" + bytes(7)) -> Object:
    spec = MapSpec(name="shared_events", type=27, key_size=0, value_size=0, max_entries=4096, flags=0)
    return Object(maps=[spec], programs={"a__0": code}, btf_ids={"a__0": 7}, refusals={})
