# SPDX-License-Identifier: GPL-2.0-or-later
"""tcp_conn with a real daemon, real paths and real loss.

Everything begins with reno: it is in every kernel, and the one that any namespace may have as default.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import namespaces
from tests.kernel.conftest import StartDaemon
from tests.kernel.connections import Told, connect, connecting, serving
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import INITIAL, Pair, checked
from tests.requirements import has_late_callbacks, require, require_kernel_memory, require_late_callbacks
from tests.waiting import PACE, wait_for

CONGESTION_CONTROL = "net.persock.tcp.congestion_control"
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
ALLOW = ("--allow", "tcp_conn")
LOSSY_BYTES = 500_000
"""350 segments: with 5 % loss all but one connection in thousands retransmit more than 1/64 of them."""
BEHIND_IPV4, BEHIND_IPV6 = "203.0.113.1", "2001:db8:2::1"
BY_FAMILY = pytest.mark.parametrize("address", ["b_ipv4", "b_ipv6"])


@contextlib.contextmanager
def with_reno(pair: Pair) -> Iterator[Pair]:
    for end in (pair.a, pair.b):
        end.write_sysctl("net.ipv4.tcp_congestion_control", "reno")
        end.write_sysctl("net.ipv4.tcp_thin_linear_timeouts", "0")
    yield pair


@pytest.fixture
def lossy() -> Iterator[Pair]:
    require("bbr" in AVAILABLE.read_text(), "needs bbr among the available congestion controls")
    with namespaces.distant_pair(rtt_ms=20, mbit_per_s=50, loss=0.05) as far, with_reno(far):
        yield far


@pytest.fixture
def clean() -> Iterator[Pair]:
    """A path on which nothing is lost."""
    with namespaces.distant_pair(rtt_ms=20, mbit_per_s=50) as far, with_reno(far):
        yield far


def available() -> set[str]:
    return set(AVAILABLE.read_text().split())


def summary(daemon: Daemon) -> dict[str, list[dict[str, Any]]]:
    """The tuner's tables: title -> rows by column."""
    return {
        table["title"]: [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        for table in daemon.ctl("summary")["tables"]
    }


def paths(daemon: Daemon, netns: str) -> list[dict[str, Any]]:
    rows = summary(daemon).get("Congestion control by path", [])
    return [row for row in rows if row["netns"] == netns]


@BY_FAMILY
def test_lossy_connections_move_to_bbr(lossy: Pair, start_daemon: StartDaemon, address: str) -> None:
    remote = getattr(lossy, address)
    daemon = start_daemon(*ALLOW)
    with serving(lossy.b, remote):
        told = connect(lossy.a, remote, count=3, payload_bytes=LOSSY_BYTES)

    assert [one.first for one in told] == ["reno"] * 3
    assert [one.last for one in told] == ["bbr"] * 3
    assert all(one.linear_timeouts for one in told)
    daemon.wait_line(
        f"Scenario 'connection retransmits too much' occurred for tunable '{CONGESTION_CONTROL}'"
    )
    daemon.wait_line(
        rf"retransmits.* change {CONGESTION_CONTROL} from \(reno\) -> \(bbr\)"
        rf" for remote {remote} in netns '{lossy.a.name}'"
    )
    ended = daemon.stop()
    assert ended.exit_code == 0
    assert any("'connection retransmits too much' occurred" in line for line in ended.summary)
    assert "bpftune: Connections by congestion control:" in ended.summary
    # The other ends send little, and may have to send that again.
    assert any(re.search(r"^bpftune:   reno +\d+ +[3-6]$", line) for line in ended.summary), "all three"
    assert "bpftune: Congestion control by path:" in ended.summary


def test_in_the_initial_namespace_too(start_daemon: StartDaemon) -> None:
    require("bbr" in AVAILABLE.read_text(), "needs bbr among the available congestion controls")
    with namespaces.distant_from_initial(rtt_ms=20, mbit_per_s=50, loss=0.05) as far:
        with_reno_by_route(far)
        daemon = start_daemon(*ALLOW)
        with serving(far.a, far.a_ipv4):
            (told,) = connect(INITIAL, far.a_ipv4, payload_bytes=LOSSY_BYTES)
        daemon.wait_line(rf"{CONGESTION_CONTROL}' in global ns\. ")
        daemon.wait_line(rf"change {CONGESTION_CONTROL} from \(reno\) -> \(bbr\) for remote {far.a_ipv4}$")

    assert (told.first, told.last) == ("reno", "bbr")


@pytest.mark.parametrize("sysctl", ["0", "1"])
def test_timeouts_become_linear_unless_they_are(lossy: Pair, start_daemon: StartDaemon, sysctl: str) -> None:
    """Where the sysctl is on, every connection has them, so the socket's own switch is left alone."""
    lossy.a.write_sysctl("net.ipv4.tcp_thin_linear_timeouts", sysctl)
    start_daemon(*ALLOW)
    with serving(lossy.b, lossy.b_ipv4):
        (told,) = connect(lossy.a, lossy.b_ipv4, payload_bytes=LOSSY_BYTES)

    assert told == Told("reno", "bbr", linear_timeouts=sysctl == "0")


def test_older_connections_move_too(lossy: Pair, start_daemon: StartDaemon) -> None:
    require_late_callbacks()
    with (
        serving(lossy.b, lossy.b_ipv4),
        connecting(lossy.a, lossy.b_ipv4, count=2, concurrent=2, seconds=2 + 4 * PACE) as old,
    ):
        wait_for(lambda: lossy.a.run("ss", "-Htni").count("reno") == 2, 5, "two connections with reno")
        daemon = start_daemon(*ALLOW)
        wait_for(lambda: lossy.a.run("ss", "-Htni").count("bbr") == 2, 10, "both with bbr")
        told = old.finish()

    assert [one.first for one in told] == ["reno", "reno"]
    assert daemon.tuner("tcp_conn")["counters"][0]["sent"] == 1, "one event for both: it is the same remote"


def test_connections_made_while_the_tuner_was_off_move_too(lossy: Pair, start_daemon: StartDaemon) -> None:
    require_late_callbacks()
    daemon = start_daemon(*ALLOW)
    daemon.ctl("disable", "tcp_conn")
    with (
        serving(lossy.b, lossy.b_ipv4),
        connecting(lossy.a, lossy.b_ipv4, count=2, concurrent=2, seconds=2 + 4 * PACE) as made,
    ):
        wait_for(lambda: lossy.a.run("ss", "-Htni").count("reno") == 2, 5, "two connections with reno")
        daemon.ctl("enable", "tcp_conn")
        told = made.finish()

    assert [(one.first, one.last) for one in told] == [("reno", "bbr")] * 2


def test_nothing_moves_where_the_tuner_is_off(lossy: Pair, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*ALLOW)
    daemon.ctl("disable", "tcp_conn", "--netns", lossy.a.name)
    with serving(lossy.b, lossy.b_ipv4):
        told = connect(lossy.a, lossy.b_ipv4, count=6, concurrent=2, payload_bytes=LOSSY_BYTES)
        assert {(one.first, one.last, one.linear_timeouts) for one in told} == {("reno", "reno", False)}

        daemon.ctl("enable", "tcp_conn", "--netns", lossy.a.name)
        (told_again,) = connect(lossy.a, lossy.b_ipv4, payload_bytes=LOSSY_BYTES)
        assert told_again.last == "bbr"


def test_dry_run_says_what_it_would_do(lossy: Pair, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*ALLOW, "--dry-run")
    with serving(lossy.b, lossy.b_ipv4):
        told = connect(lossy.a, lossy.b_ipv4, count=6, concurrent=2, payload_bytes=LOSSY_BYTES)

    assert {(one.first, one.last, one.linear_timeouts) for one in told} == {("reno", "reno", False)}
    daemon.wait_line(rf"would change {CONGESTION_CONTROL} .* for remote {lossy.b_ipv4}")


def test_what_the_application_chose_stays(lossy: Pair, start_daemon: StartDaemon) -> None:
    start_daemon(*ALLOW)
    with serving(lossy.b, lossy.b_ipv4):
        told = connect(
            lossy.a, lossy.b_ipv4, count=6, concurrent=2, payload_bytes=LOSSY_BYTES, algorithm="reno"
        )

        (other,) = connect(lossy.a, lossy.b_ipv4, payload_bytes=LOSSY_BYTES)

    assert {(one.first, one.last) for one in told} == {("reno", "reno")}
    assert other.last == "bbr"


def test_ten_thousand_short_lossy_connections_send_few_events(start_daemon: StartDaemon) -> None:
    require("bbr" in AVAILABLE.read_text(), "needs bbr among the available congestion controls")
    with (
        namespaces.distant_pair(rtt_ms=2, mbit_per_s=1000, loss=0.02) as far,
        with_reno(far),
        serving(far.b, far.b_ipv4),
    ):
        daemon = start_daemon(*ALLOW)
        connect(far.a, far.b_ipv4, count=10_000, concurrent=200, payload_bytes=6_000)
        counted = daemon.tuner("tcp_conn")
        totals = summary(daemon)["Connections by congestion control"]

    assert sum(row["moved to bbr"] for row in totals) > 200
    assert sum(row["connections"] for row in totals) > 20_000, "both ends are counted, and moved ones again"
    assert 1 <= counted["events_in"] <= 20
    assert [one["dropped"] for one in counted["counters"]] == [0]


@pytest.mark.parametrize(
    ("behind", "gateway", "prefix"),
    [(BEHIND_IPV4, "b_ipv4", "10.77.0.0/24"), (BEHIND_IPV6, "b_ipv6", "fd77::/64")],
    ids=["IPv4", "IPv6"],
)
def test_paths_are_learned_per_gateway(
    clean: Pair, start_daemon: StartDaemon, behind: str, gateway: str, prefix: str
) -> None:
    """The first three keep what they have, then everything is tried once, then the best is taken."""
    require_kernel_memory()
    hop = getattr(clean, gateway)
    put_behind(clean, behind, hop)
    candidates = (available() - {"dctcp"}) & {"cubic", "bbr", "reno"}
    daemon = start_daemon(*ALLOW)
    with serving(clean.b, behind), serving(clean.b, hop):
        told = connect(clean.a, behind, count=30, payload_bytes=500_000)
        near = connect(clean.a, hop, count=3, payload_bytes=1000)
    rows = {row["algorithm"]: row for row in paths(daemon, clean.a.name) if row["path"] == f"via {hop}"}

    firsts = [one.first for one in told]
    assert firsts[:3] == ["reno"] * 3
    # A slow machine repeats segments that only came late: what such a connection is moved to is tried too.
    moved = {one.last for one in told if one.last != one.first}
    assert {"reno", *firsts[3 : 3 + len(candidates) - 1]} | moved >= candidates, "each was tried once"
    assert {one.first for one in near} == {"reno"}, "another path, where too little is known"
    assert any(row["path"] == prefix and row["count"] >= 3 for row in paths(daemon, clean.a.name))
    assert rows.keys() >= candidates
    chosen = firsts[3 + len(candidates) - 1 :]
    # Which is best may change here, where none of them is bad.
    chosen_for_cost = sum(row["greedy %"] * row["count"] / 100 for row in rows.values())
    assert 0.7 * len(chosen) < chosen_for_cost <= len(chosen) + 0.1
    favourite = max(rows.values(), key=lambda row: row["greedy %"] * row["count"])
    assert 19 < favourite["min RTT ms"] < 60
    assert 1 < favourite["max Mbit/s"] < 100


def test_on_a_path_with_some_loss_bbr_wins(start_daemon: StartDaemon) -> None:
    """Too little loss to be moved, enough to hold reno and cubic back to a fifth of a rate that any machine
    keeps up with."""
    require("bbr" in AVAILABLE.read_text(), "needs bbr among the available congestion controls")
    with (
        namespaces.distant_pair(rtt_ms=80, mbit_per_s=20, loss=0.008) as far,
        with_reno(far),
        serving(far.b, far.b_ipv4),
    ):
        daemon = start_daemon(*ALLOW)
        told = connect(far.a, far.b_ipv4, count=20, payload_bytes=1_500_000)
        rows = {row["algorithm"]: row for row in paths(daemon, far.a.name)}
        print({name: (row["cost"], row["count"]) for name, row in rows.items()})

    assert [one.first for one in told[:3]] == ["reno"] * 3
    later = [one.first for one in told[3 + len(available()) :]]
    assert later.count("bbr") >= len(later) * 0.7
    assert rows["bbr"]["cost"] < rows["reno"]["cost"]
    assert rows["bbr"]["greedy %"] > 50


def test_what_the_kernel_lacks_is_never_chosen(veth: Pair, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*ALLOW)
    with with_reno(veth), serving(veth.b, veth.b_ipv4):
        told = connect(veth.a, veth.b_ipv4, count=300, concurrent=4, payload_bytes=100_000)
    rows = paths(daemon, veth.a.name)

    assert {one.first for one in told} <= available()
    assert {row["algorithm"] for row in rows} <= available()
    assert {one.first for one in told} >= available() & {"reno", "cubic", "bbr"}


def test_rows_go_with_their_namespace(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(*ALLOW)
    with namespaces.pair() as near:
        with serving(near.b, near.b_ipv4):
            connect(near.a, near.b_ipv4, count=2)
        assert paths(daemon, near.a.name)

    def gone() -> bool:
        daemon.ctl("status")
        return not summary(daemon).get("Congestion control by path")

    wait_for(gone, 10, "no rows of namespaces that are gone", interval_s=0.2)


def test_it_gets_along_with_tcp_buffer(start_daemon: StartDaemon) -> None:
    """Both have a sockops program and flags of their own on the same sockets, old and new."""
    require("bbr" in AVAILABLE.read_text(), "needs bbr among the available congestion controls")
    with (
        namespaces.distant_pair(rtt_ms=40, mbit_per_s=100, loss=0.02) as far,
        with_reno(far),
        serving(far.b, far.b_ipv4),
    ):
        far.a.write_sysctl("net.ipv4.tcp_wmem", "4096 16384 65536")
        with connecting(far.a, far.b_ipv4, seconds=6 + 4 * PACE) as old:
            daemon = start_daemon(*ALLOW, "--allow", "tcp_buffer")
            (new,) = connect(far.a, far.b_ipv4, seconds=8)
            (older,) = old.finish()

    assert (older.last, new.last) == ("bbr" if has_late_callbacks() else "reno", "bbr")
    daemon.wait_line(rf"change net\.ipv4\.tcp_wmem.* in netns '{far.a.name}'")


def with_reno_by_route(pair: Pair) -> None:
    """The initial namespace keeps its default; only its connections to `a` begin with reno."""
    checked(["ip", "route", "change", "10.77.0.0/24", "dev", pair.device, "congctl", "reno"])


def put_behind(pair: Pair, address: str, gateway: str) -> None:
    """`b` has `address` too, and `a` reaches it through `gateway`."""
    length = 128 if ":" in address else 32
    pair.b.run("ip", "address", "add", f"{address}/{length}", "dev", "lo", *(["nodad"] * (length == 128)))
    pair.a.run("ip", "route", "add", f"{address}/{length}", "via", gateway)
