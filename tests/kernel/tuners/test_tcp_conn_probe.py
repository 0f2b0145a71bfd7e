# SPDX-License-Identifier: GPL-2.0-or-later
"""The probes of tcp_conn without a daemon, where a variant of them shows what cannot be had here.

The kernel may lack dctcp, and is not locked down: so reno takes dctcp's place, and the program that
reads the gateway is made one that the verifier refuses.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.record import Row, decode_row
from tests.kernel import namespaces
from tests.kernel.bpf.rig import ROOT, Rig, opened
from tests.kernel.connections import connect, serving
from tests.kernel.namespaces import INITIAL, Namespace, Pair, checked
from tests.requirements import require, require_kernel_memory
from tests.waiting import wait_for

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
TCP_CONN = ROOT / "tuners" / "tcp_conn"
RENO, DCTCP = "NAME('r', 'e', 'n', 'o', 0, 0, 0, 0)", "NAME('d', 'c', 't', 'c', 'p', 0, 0, 0)"
RENO_SLOT, DCTCP_SLOT = 3, 4
ENOUGH = 12
"""Connections after which everything was tried that may be."""

Variant = Callable[[dict[str, str]], Rig]


@pytest.fixture
def variant(tmp_path: Path) -> Iterator[Variant]:
    """Call it with what is to be replaced in probe.bpf.c."""
    with opened(tmp_path / "cache") as rig:

        def load(replacements: dict[str, str]) -> Rig:
            folder = tmp_path / "tcp_conn"
            shutil.copytree(TCP_CONN, folder)
            text = (folder / "probe.bpf.c").read_text()
            for old, new in replacements.items():
                assert text.count(old) == 1, f"{old} is not unique in the probe"
                text = text.replace(old, new)
            (folder / "probe.bpf.c").write_text(text)
            rig.load(folder)
            return rig

        yield load


def rows(rig: Rig, netns: Namespace) -> list[Row]:
    (table,) = load_declaration(TCP_CONN).tables
    cookie = namespaces.cookie(netns)
    decoded = [decode_row(table, key, value) for key, value in rig.bpf.rows("tcp_conn", "paths").items()]
    return [row for row in decoded if row["netns_cookie"] == cookie]


def renos_after_many(near: Pair, rig: Rig) -> int:
    """How many of many connections were given reno, which stands where dctcp does."""
    with serving(near.b, near.b_ipv4):
        told = connect(near.a, near.b_ipv4, count=ENOUGH)
    (row,) = rows(rig, near.a)
    found = sum(one.first == "reno" for one in told)
    assert row["connections"] == ENOUGH
    assert row.vectors["used"][DCTCP_SLOT] == found
    return found


def with_ecn(pair: Pair, value: str) -> Pair:
    for end in (pair.a, pair.b):
        end.write_sysctl("net.ipv4.tcp_ecn", value)
    return pair


@pytest.fixture
def reno_for_dctcp(variant: Variant) -> Rig:
    return variant({f"each(3, {RENO})": f"each(3, {DCTCP})", f"each(4, {DCTCP})": f"each(4, {RENO})"})


def test_dctcp_is_tried_on_a_short_path_with_ecn(veth: Pair, reno_for_dctcp: Rig) -> None:
    assert renos_after_many(with_ecn(veth, "1"), reno_for_dctcp) >= 1


def test_dctcp_needs_ecn(veth: Pair, reno_for_dctcp: Rig) -> None:
    assert renos_after_many(with_ecn(veth, "0"), reno_for_dctcp) == 0


def test_dctcp_needs_a_short_path(reno_for_dctcp: Rig) -> None:
    with namespaces.distant_pair(rtt_ms=5) as far:
        assert renos_after_many(with_ecn(far, "1"), reno_for_dctcp) == 0


def test_bbr_needs_its_pacing_to_survive_the_way_out_of_a_namespace(veth: Pair, variant: Variant) -> None:
    """On a kernel that drops the time at which a packet shall leave, only the initial one has bbr."""
    require("bbr" in AVAILABLE.read_text(), "needs bbr among the available congestion controls")
    rig = variant({"defined(HAVE_sk_buff__mono_delivery_time) || defined(HAVE_sk_buff__tstamp_type)": "0"})
    for end in (veth.a, veth.b):
        end.write_sysctl("net.ipv4.tcp_congestion_control", "reno")
    with serving(veth.b, veth.b_ipv4):
        inside = connect(veth.a, veth.b_ipv4, count=ENOUGH)
    with namespaces.distant_from_initial(rtt_ms=2) as far:
        checked(["ip", "route", "change", "10.77.0.0/24", "dev", far.device, "congctl", "reno"])
        with serving(far.a, far.a_ipv4):
            outside = connect(INITIAL, far.a_ipv4, count=ENOUGH)

    assert rig.bpf.hooks("tcp_conn")[1].refused == {}
    assert "bbr" not in {one.first for one in inside}
    assert "bbr" in {one.first for one in outside}


def test_without_the_gateway_program_paths_are_prefixes(clean_route: Pair, variant: Variant) -> None:
    rig = variant({"READ_UNTYPED(rt, rt_gw_family)": "READ(rt, rt_gw_family)"})
    refused = {status.probe: status.refused for status in rig.bpf.hooks("tcp_conn")}
    with serving(clean_route.b, "203.0.113.1"):
        told = connect(clean_route.a, "203.0.113.1", count=ENOUGH, payload_bytes=100_000)
    (row,) = rows(rig, clean_route.a)

    assert "verifier" in refused["gateway"]["sockops"]
    assert refused["connection"] == {}
    assert (bytes(row.vectors["address"][:4]), row["prefix_bits"]) == (bytes([203, 0, 113, 0]), 24)
    assert len({one.first for one in told}) > 1, "it learns all the same"


def test_an_ipv4_route_may_have_an_ipv6_gateway(veth: Pair, variant: Variant) -> None:
    require_kernel_memory()
    rig = variant({})
    veth.b.run("ip", "address", "add", "203.0.113.1/32", "dev", "lo")
    veth.a.run("ip", "route", "add", "203.0.113.1/32", "via", "inet6", veth.b_ipv6)
    with serving(veth.b, "203.0.113.1"):
        connect(veth.a, "203.0.113.1")
    (row,) = rows(rig, veth.a)

    assert (row["family"], row["prefix_bits"]) == (6, 0)
    assert bytes(row.vectors["address"]).hex() == "fd77" + 27 * "0" + "2"


def test_an_ipv4_mapped_connection_counts_as_ipv4(veth: Pair, variant: Variant) -> None:
    rig = variant({})
    with serving(veth.b, veth.b_ipv4):
        connect(veth.a, f"::ffff:{veth.b_ipv4}", count=2)
        connect(veth.a, veth.b_ipv4, count=1)
    (row,) = rows(rig, veth.a)

    assert (row["family"], row["prefix_bits"], row["connections"]) == (4, 24, 3)


def test_a_namespaces_rows_can_be_dropped(veth: Pair, variant: Variant) -> None:
    rig = variant({})
    with serving(veth.b, veth.b_ipv4):
        connect(veth.a, veth.b_ipv4)
    assert rows(rig, veth.a)
    wait_for(lambda: rows(rig, veth.b), 2, "the passive end's row")

    rig.bpf.forget(namespaces.cookie(veth.a), "tcp_conn")

    assert not rows(rig, veth.a)
    assert rows(rig, veth.b), "the other namespace keeps its own"


@pytest.fixture
def clean_route(veth: Pair) -> Pair:
    veth.b.run("ip", "address", "add", "203.0.113.1/32", "dev", "lo")
    veth.a.run("ip", "route", "add", "203.0.113.1/32", "via", veth.b_ipv4)
    return veth
