# SPDX-License-Identifier: GPL-2.0-or-later
"""Says what the probes did about congestion control, and shows what they learned.

The probes decide by themselves, connection by connection. A policy that had to be asked would answer
when the connection is over; this one only tells people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import msgspec

from bpftune.ipc.messages import Netns, Table
from bpftune.ipc.record import Event, Row
from bpftune.tuners.base import Decision, Policy, Situation

CONGESTION_CONTROL = "net.persock.tcp.congestion_control"

ALGORITHMS = (
    "cubic",
    "bbr",
    "htcp",
    "reno",
    "dctcp",
    "bic",
    "westwood",
    "illinois",
    "hstcp",
    "hybla",
    "scalable",
    "vegas",
    "nv",
    "veno",
    "yeah",
    "(other)",
)
"""The elements of the vectors in a row of map `paths`."""

PATHS_SHOWN = 20
"""The busiest ones; a machine may know hundreds."""

UNMEASURED = "-"

REMOTES_NAMED = 10
NAMED_NS = 3_600_000_000_000
"""So many remotes have lines of their own in the log of a namespace, for so long. A server on the internet
always has some that lose packets."""


class TcpConnState(msgspec.Struct):
    """What is learned stays in the kernel, where it is used. These are the remotes that the log names."""

    named: list[str] = []
    named_since_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One algorithm on one path."""

    algorithm: str
    used: int
    greedy: int
    moved: int
    cost: float | None
    """Shares of the best round trip time and rate that are missing; None: nothing was measured yet, what
    follows neither."""
    min_rtt_us: int
    max_rate: int
    """bytes per ms"""


class TcpConn(Policy[TcpConnState]):
    State = TcpConnState

    def on_event(self, event: Event, situation: Situation, state: TcpConnState) -> Decision:
        verb = "would change" if event["dry_run"] else "change"
        reason = situation.declaration.scenarios_by_id[event.scenario].reason
        text = (
            f"Due to {reason} {verb} {CONGESTION_CONTROL} from ({event.text('old') or 'other'}) -> (bbr)"
            f" for {_remote(event, situation.now_ns, state)}"
        )
        note = situation.note(CONGESTION_CONTROL, event.scenario, text, acts=event["connections"])
        return Decision(notes=[note])

    def map_tables(self, maps: Mapping[str, Sequence[Row]], namespaces: Mapping[int, Netns]) -> list[Table]:
        rows = sorted(maps["paths"], key=lambda row: -row["connections"])
        return [_totals(rows), _paths(rows, namespaces)]


def _remote(event: Event, now_ns: int, state: TcpConnState) -> str:
    """All beyond those that are named read the same, so that the log folds them."""
    address = _address(event["family"], event.vectors["remote"])
    if now_ns - state.named_since_ns > NAMED_NS:
        state.named, state.named_since_ns = [], now_ns
    if address not in state.named:
        if len(state.named) == REMOTES_NAMED:
            return "further remotes"
        state.named.append(address)
    return f"remote {address}"


def uses(row: Row) -> Iterator[Use]:
    """The algorithms in use on a path, most used first."""
    vectors = row.vectors
    order = sorted(range(len(ALGORITHMS)), key=lambda i: -vectors["used"][i])
    for index in order:
        if vectors["used"][index]:
            yield Use(
                algorithm=ALGORITHMS[index],
                used=vectors["used"][index],
                greedy=vectors["greedy"][index],
                moved=vectors["moved"][index],
                cost=_cost(row, index) if vectors["measured"][index] else None,
                min_rtt_us=vectors["min_rtt_us"][index],
                max_rate=vectors["max_rate"][index],
            )


def _cost(row: Row, index: int) -> float:
    """As in probe.bpf.c, without its rounding."""
    best_rtt_us, best_rate = row["best_rtt_us"] or 1, row["best_rate"] or 1
    late = (row.vectors["rtt_us"][index] - best_rtt_us) / best_rtt_us
    slow = (best_rate - row.vectors["rate"][index]) / best_rate
    return max(0.0, late) + max(0.0, slow)


def _totals(rows: Sequence[Row]) -> Table:
    used = [sum(row.vectors["used"][i] for row in rows) for i in range(len(ALGORITHMS))]
    moved = [sum(row.vectors["moved"][i] for row in rows) for i in range(len(ALGORITHMS))]
    order = sorted(range(len(ALGORITHMS)), key=lambda i: -used[i])
    return Table(
        title="Connections by congestion control",
        columns=["algorithm", "connections", "moved to bbr"],
        rows=[[ALGORITHMS[i], used[i], moved[i]] for i in order if used[i]],
    )


def _paths(rows: Sequence[Row], namespaces: Mapping[int, Netns]) -> Table:
    left_out = len(rows) - PATHS_SHOWN
    return Table(
        title="Congestion control by path" + (f" (the busiest of {len(rows)})" if left_out > 0 else ""),
        columns=["netns", "path", "algorithm", "cost", "count", "greedy %", "min RTT ms", "max Mbit/s"],
        rows=[
            [
                _netns(row["netns_cookie"], namespaces),
                _path(row),
                use.algorithm,
                UNMEASURED if use.cost is None else round(use.cost, 3),
                use.used,
                round(100 * use.greedy / use.used, 1),
                UNMEASURED if use.cost is None else round(use.min_rtt_us / 1000, 3),
                UNMEASURED if use.cost is None else round(use.max_rate * 8 / 1000, 2),
            ]
            for row in rows[:PATHS_SHOWN]
            for use in uses(row)
        ],
    )


def _netns(cookie: int, namespaces: Mapping[int, Netns]) -> str:
    netns = namespaces.get(cookie)
    return netns.name if netns is not None and netns.name else f"cookie {cookie}"


def _path(row: Row) -> str:
    """ "via GATEWAY", or the network of the remotes on the link."""
    address = _address(row["family"], row.vectors["address"])
    if row["prefix_bits"]:
        return f"{address}/{row['prefix_bits']}"
    # A link-local gateway names nobody without its device, which has no name here.
    zone = f"%{row['ifindex']}" if address.startswith("fe80:") else ""
    return f"via {address}{zone}"


def _address(family: int, octets: Sequence[int]) -> str:
    packed = bytes(octets)
    return str(IPv4Address(packed[:4]) if family == 4 else IPv6Address(packed))
