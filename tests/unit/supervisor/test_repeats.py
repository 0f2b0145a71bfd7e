# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from typing import Any, cast

import pytest

from bpftune.ipc.declaration import Declaration, Scenario
from bpftune.ipc.record import HEADER, unpack_header
from bpftune.supervisor.repeats import Repeats
from tests.unit.supervisor.still_loop import StillLoop

COOKIE = 4711


class Stage:
    def __init__(self) -> None:
        self.scenario = Scenario(
            id="full",
            name="n",
            why="w",
            reason="r",
            event=[],
            counters=["lost", "found"],
            repeat_while_rising=["lost"],
        )
        self.declaration = Declaration(
            name="example", description="d", tunables=[], scenarios=[self.scenario], probes=[]
        )
        self.counts = {"lost": 0, "found": 0}
        self.reads = 0
        self.loop = StillLoop()
        self.repeats = Repeats(loop=self.loop, counters=cast("Any", self))
        self.records: list[bytes] = []

    def read(self, declaration: Declaration, scenario_id: str, cookie: int) -> dict[str, int]:
        assert (declaration.name, scenario_id, cookie) == ("example", "full", COOKIE)
        self.reads += 1
        return dict(self.counts)

    def deliver(self, record: bytes) -> None:
        """As the router does."""
        self.records.append(record)
        self.repeats.follow(self.declaration, self.scenario, COOKIE, record, self.deliver)


def record(payload: bytes = b"first") -> bytes:
    return HEADER.pack(1, COOKIE, 9, 5, 0, 33, 0) + payload


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_it_is_repeated_until_nothing_rises(stage: Stage) -> None:
    stage.deliver(record())
    for _ in range(3):
        stage.counts["lost"] += 1
        stage.loop.fire()
    stage.loop.fire()
    stage.loop.fire()
    assert len(stage.records) == 4
    assert not stage.loop.due


def test_other_counters_do_not_repeat_it(stage: Stage) -> None:
    stage.deliver(record())
    stage.counts["found"] += 1
    stage.loop.fire()
    assert len(stage.records) == 1


def test_the_newest_event_is_repeated_with_a_new_time(stage: Stage) -> None:
    stage.deliver(record())
    stage.deliver(record(b"second"))
    assert len(stage.loop.due) == 1
    stage.counts["lost"] += 1
    stage.loop.fire()
    repeated = stage.records[-1]
    assert repeated.endswith(b"second")
    header = unpack_header(repeated)
    assert (header.netns_cookie, header.netns_inum, header.tuner_id, header.suppressed) == (COOKIE, 9, 5, 0)
    assert header.time_ns > 1


def test_where_the_namespace_is_gone_it_ends(stage: Stage) -> None:
    stage.deliver(record())
    stage.counts.clear()
    stage.loop.fire()
    assert len(stage.records) == 1


def test_a_scenario_that_names_no_counter_costs_nothing(stage: Stage) -> None:
    stage.scenario = Scenario(id="full", name="n", why="w", reason="r", event=[])
    stage.deliver(record())
    assert (stage.reads, stage.loop.due) == (0, [])
