# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from bpftune.ipc.declaration import Declaration, Scenario, Scope, Tunable
from bpftune.ipc.messages import Netns
from bpftune.ipc.record import HEADER, Event
from bpftune.supervisor.folders import TunerFolder
from bpftune.supervisor.roster import Tuner
from bpftune.supervisor.router import Router

TUNABLE = "net.core.somaxconn"


def declaration(name: str) -> Declaration:
    return Declaration(
        name=name,
        description="d",
        tunables=[Tunable(name=TUNABLE, scope=Scope.NETNS)],
        scenarios=[
            Scenario(id="first", name="n", tunable=TUNABLE, why="w", reason="r", event=["u64 value"]),
            Scenario(id="second", name="n", tunable=TUNABLE, why="w", reason="r", event=["u64 value"]),
        ],
        probes=[],
    )


@dataclass
class Worker:
    delivered: list[tuple[bytes, Netns, str]] = field(default_factory=list)

    def deliver(self, record: bytes, netns: Netns, scenario_id: str) -> None:
        self.delivered.append((record, netns, scenario_id))


class Stage:
    """A router among fakes: one tuner, one watcher."""

    def __init__(self) -> None:
        self.tuned, self.watched = declaration("tuned"), declaration("watched")
        self.worker = Worker()
        self.off: set[tuple[str, int]] = set()
        self.events: list[Event] = []
        self.complaints: list[str] = []
        self.known: set[int] = set()
        self.strangers = 0
        self.followed: list[tuple[str, str, int, bytes]] = []
        folder = TunerFolder(path=Path("/x"), declaration=self.tuned, fingerprint=())
        self.tuner = Tuner(folder=folder, equipper=cast("Any", None), worker=cast("Any", self.worker))
        self.router = Router(
            roster=cast("Any", self),
            registry=cast("Any", self),
            overrides=cast("Any", self),
            repeats=cast("Any", self),
            new_namespace=self.count_stranger,
            debug=self.complaints.append,
        )
        self.router.add_watcher(self.watched, self.events.append)

    def by_id(self, tuner_id: int) -> Tuner | None:
        return self.tuner if tuner_id == self.tuned.id else None

    def __contains__(self, cookie: int) -> bool:
        return cookie in self.known

    def learn(self, cookie: int, inum: int) -> Netns:
        self.known.add(cookie)
        return Netns(cookie=cookie, inum=inum)

    def count_stranger(self) -> None:
        self.strangers += 1

    def follow(
        self,
        declaration: Declaration,
        scenario: Scenario,
        cookie: int,
        record: bytes,
        again: Callable[[bytes], None],
    ) -> None:
        assert again == self.router.route
        self.followed.append((declaration.name, scenario.id, cookie, record))

    def is_off(self, tuner: str, cookie: int) -> bool:
        return (tuner, cookie) in self.off


def record(tuner_id: int, scenario: int = 1, payload: bytes = b"\5" + bytes(7)) -> bytes:
    return HEADER.pack(1, 7, 9, tuner_id, scenario, 0, 0) + payload


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_record_goes_to_its_tuner_undecoded(stage: Stage) -> None:
    sent = record(stage.tuned.id)
    stage.router.route(sent)
    assert stage.worker.delivered == [(sent, Netns(cookie=7, inum=9), "second")]
    assert stage.followed == [("tuned", "second", 7, sent)]


def test_a_namespace_first_heard_of_is_announced_once(stage: Stage) -> None:
    stage.router.route(record(stage.tuned.id))
    stage.router.route(record(stage.tuned.id))
    assert stage.strangers == 1


def test_a_record_of_a_watcher_is_decoded_for_it(stage: Stage) -> None:
    stage.router.route(record(stage.watched.id, scenario=0))
    (event,) = stage.events
    assert (event.scenario, event["value"], event.netns_cookie) == ("first", 5, 7)


def test_where_a_tuner_is_off_late_records_are_dropped(stage: Stage) -> None:
    stage.off.add(("tuned", 7))
    stage.router.route(record(stage.tuned.id))
    assert not stage.worker.delivered
    assert not stage.followed


def test_an_unloaded_tuner_hears_nothing(stage: Stage) -> None:
    stage.tuner.worker = None
    stage.router.route(record(stage.tuned.id))
    stage.router.route(record(stage.tuned.id ^ 1))
    assert not stage.worker.delivered


@pytest.mark.parametrize("garbage", [b"", b"x" * 31])
def test_garbage_is_only_worth_a_debugging_line(stage: Stage, garbage: bytes) -> None:
    stage.router.route(garbage)
    assert "cannot decode" in stage.complaints[0]


def test_an_unknown_scenario_is_only_worth_a_debugging_line(stage: Stage) -> None:
    stage.router.route(record(stage.tuned.id, scenario=2))
    stage.router.route(record(stage.watched.id, scenario=0, payload=b""))
    assert len(stage.complaints) == 2
    assert not stage.worker.delivered
