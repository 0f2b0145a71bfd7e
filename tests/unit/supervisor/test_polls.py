# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import re
import time
from pathlib import Path

from bpftune.ipc.declaration import Declaration, Poll, Probe, Scenario, Scope, Tunable
from bpftune.ipc.messages import Value
from bpftune.ipc.record import RecordDecoder
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.polls import Poller, parse_counter

POLL = Poll(
    file="/proc/net/stat/arp_cache",
    match=r"^([0-9a-f]+) ",
    base=16,
    limit="net.ipv4.neigh.default.gc_thresh3",
    value_event_field="entries",
    limit_event_field="limit",
    scenario="full",
)
DECLARATION = Declaration(
    name="neigh",
    description="d",
    tunables=[Tunable(name=POLL.limit, scope=Scope.GLOBAL)],
    scenarios=[
        Scenario(
            id="full", name="n", tunable=POLL.limit, why="w", reason="r", event=["u32 limit", "u32 entries"]
        )
    ],
    probes=[Probe(name="p", scenarios=["full"], hooks=["poll"], poll=POLL)],
)


def turn(root: Path, limit: Value | None) -> tuple[list[bytes], list[str]]:
    """One due reading of the counter."""
    records: list[bytes] = []
    failures: list[str] = []
    poller = Poller(
        loop=Loop(),
        declaration=DECLARATION,
        poll=POLL,
        shift=2,
        netns_cookie=5,
        read_limit=lambda tunable: limit,
        emit=records.append,
        failed=failures.append,
        root=root,
    )
    poller._turn()
    return records, failures


def recorded(tmp_path: Path, entries: int) -> Path:
    path = tmp_path / "proc/net/stat/arp_cache"
    path.parent.mkdir(parents=True)
    path.write_text(f"entries  allocs\n{entries:08x}  00000001\n")
    return tmp_path


def test_a_nearly_full_counter_becomes_a_record(tmp_path: Path) -> None:
    before_ns = time.monotonic_ns()
    records, failures = turn(recorded(tmp_path, 800), (1024,))
    (record,) = records
    event = RecordDecoder(DECLARATION).decode(record)
    assert (event.scenario, event.netns_cookie, event["entries"], event["limit"]) == ("full", 5, 800, 1024)
    assert event.time_ns >= before_ns
    assert not failures


def test_a_counter_far_from_its_limit_is_silent(tmp_path: Path) -> None:
    assert turn(recorded(tmp_path, 700), (1024,)) == ([], [])


def test_without_the_limit_nothing_is_judged(tmp_path: Path) -> None:
    assert turn(recorded(tmp_path, 800), None) == ([], [])


def test_an_unreadable_counter_is_said(tmp_path: Path) -> None:
    records, failures = turn(tmp_path, (1024,))
    assert not records
    assert "scenario 'full' is lost" in failures[0]


def test_all_matches_are_added_up() -> None:
    assert parse_counter("x 1\nx 2\ny 9\n", re.compile(r"^x (\d+)", re.MULTILINE), 10) == 3
