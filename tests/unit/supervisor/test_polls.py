# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from bpftune.ipc.declaration import Declaration, Poll, Probe, Scenario, Scope, Tunable
from bpftune.ipc.messages import Value
from bpftune.ipc.record import RecordDecoder
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.polls import Poller, parse_counter
from tests.unit.supervisor.still_loop import StillLoop

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


def test_a_counter_that_outgrew_its_field_is_as_large_as_it_can_be(tmp_path: Path) -> None:
    (record,), failures = turn(recorded(tmp_path, 1 << 36), (1 << 33,))
    event = RecordDecoder(DECLARATION).decode(record)
    assert (event["entries"], event["limit"]) == (2**32 - 1, 2**32 - 1)
    assert not failures


def test_a_counter_far_from_its_limit_is_silent(tmp_path: Path) -> None:
    assert turn(recorded(tmp_path, 700), (1024,)) == ([], [])


def test_without_the_limit_nothing_is_judged(tmp_path: Path) -> None:
    assert turn(recorded(tmp_path, 800), None) == ([], [])


def test_an_unreadable_counter_is_said(tmp_path: Path) -> None:
    records, failures = turn(tmp_path, (1024,))
    assert not records
    assert "scenario 'full' is lost" in failures[0]


RISING = Poll(
    file="/proc/net/softnet_stat",
    match=r"^\S+ \S+ ([0-9a-f]+)",
    base=16,
    rise=4,
    value_event_field="squeezes",
    interval_event_field="interval_ns",
    scenario="squeezed",
)
FOLLOWING = replace(RISING, follows="busy", follow_s=3)
RX = Declaration(
    name="rx",
    description="d",
    tunables=[],
    scenarios=[
        Scenario(id="busy", name="n", why="w", reason="r", event=["u32 packets"]),
        Scenario(id="squeezed", name="n", why="w", reason="r", event=["u64 interval_ns", "u64 squeezes"]),
    ],
    probes=[Probe(name="p", scenarios=["busy", "squeezed"], hooks=["tp_btf:x", "poll"], poll=FOLLOWING)],
)


@dataclass
class Rig:
    """A poller over a recorded softnet_stat of two CPUs."""

    path: Path
    poll: Poll
    loop: StillLoop = field(default_factory=StillLoop)
    records: list[bytes] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def start(self) -> Poller:
        return Poller(
            loop=self.loop,
            declaration=RX,
            poll=self.poll,
            shift=2,
            netns_cookie=5,
            read_limit=lambda tunable: None,
            emit=self.records.append,
            failed=self.failures.append,
            root=self.path,
        )

    def squeeze(self, *per_cpu: int) -> None:
        path = self.path / "proc/net/softnet_stat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"00000100 00000000 {count:08x} 00000000\n" for count in per_cpu))

    @property
    def rises(self) -> list[int]:
        return [RecordDecoder(RX).decode(record)["squeezes"] for record in self.records]


def test_a_counter_that_grew_becomes_a_record(tmp_path: Path) -> None:
    rig = Rig(tmp_path, RISING)
    rig.squeeze(0xFF, 1)
    rig.start()
    rig.squeeze(0x100, 20)
    rig.loop.fire()
    rig.squeeze(0x101, 21)
    rig.loop.fire()
    assert rig.rises == [20]
    assert RecordDecoder(RX).decode(rig.records[0])["interval_ns"] > 0
    assert len(rig.loop.due) == 1


def test_a_following_poller_sleeps_until_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 10**12
    monkeypatch.setattr("bpftune.supervisor.polls.time.monotonic_ns", lambda: now_ns)
    rig = Rig(tmp_path, FOLLOWING)
    rig.squeeze(1, 1)
    poller = rig.start()
    poller.follow("squeezed")
    assert not rig.loop.due

    poller.follow("busy")
    poller.follow("busy")
    rig.squeeze(100, 1)
    now_ns += 10**9
    rig.loop.fire()
    assert (rig.rises, len(rig.loop.due)) == ([99], 1)

    now_ns += 3 * 10**9
    rig.loop.fire()
    assert not rig.loop.due

    rig.squeeze(1000, 1)
    poller.follow("busy")
    rig.loop.fire()
    assert rig.rises == [99], "what happened while it slept does not count"


def test_a_closed_poller_stays_closed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FOLLOWING)
    rig.squeeze(1)
    poller = rig.start()
    poller.close()
    poller.follow("busy")
    assert not rig.loop.due


def test_a_rising_counter_that_cannot_be_read_is_said_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, RISING)
    rig.start()
    assert len(rig.failures) == 1
    assert not rig.loop.due


def test_all_matches_are_added_up() -> None:
    assert parse_counter("x 1\nx 2\ny 9\n", re.compile(r"^x (\d+)", re.MULTILINE), 10) == 3
