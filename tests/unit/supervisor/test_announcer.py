# SPDX-License-Identifier: GPL-2.0-or-later
"""Every change is two lines: what happened, and what was done about it."""

from __future__ import annotations

from msgspec.structs import replace

from bpftune.ipc.control import Change, LogEvent, Override
from bpftune.ipc.declaration import Declaration, Scenario, Scope, Tunable
from bpftune.ipc.messages import Netns, Status
from bpftune.supervisor.announcer import Announcer
from bpftune.supervisor.logger import Logger
from bpftune.supervisor.loop import Loop

BLUE = Netns(cookie=7, name="blue")
FIRST, SECOND = (Tunable(name=name, scope=Scope.NETNS) for name in ("net.first", "net.second"))
DECLARATION = Declaration(
    name="example",
    description="d",
    tunables=[FIRST, SECOND],
    scenarios=[Scenario(id="full", name="no room", tunable=FIRST.name, why="It waits.", reason="waiting")],
    probes=[],
)


class Stage:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.announcer = Announcer(Logger(self, loop=Loop(), now_ns=lambda: 0))

    def write(self, event: LogEvent, message_id: str) -> None:
        self.texts.append(event.message)

    def close(self) -> None:
        pass

    def change(self, tunable: Tunable, *, number: int = 1, outcome: Status = Status.APPLIED) -> str:
        change = Change(
            id=0 if outcome == Status.OBSERVED else number,
            time_s=0.0,
            tuner=DECLARATION.name,
            tunable=tunable.name,
            netns=BLUE,
            old=(number,),
            new=(number + 1,),
            scenario="full",
            reason="waiting",
            evidence={},
            outcome=outcome,
        )
        return self.announcer.changed(DECLARATION, change, tunable)


def test_a_change_follows_what_it_is_due_to() -> None:
    stage = Stage()
    line = stage.change(FIRST)
    assert stage.texts == [
        "Scenario 'no room' occurred for tunable 'net.first' in netns 'blue'. It waits.",
        "Due to waiting change net.first from (1) -> (2) in netns 'blue'",
    ]
    assert line == stage.texts[1]


def test_another_tunable_than_the_scenarios_own_has_both_lines_too() -> None:
    stage = Stage()
    stage.change(SECOND)
    assert stage.texts == [
        "Scenario 'no room' occurred for tunable 'net.second' in netns 'blue'. It waits.",
        "Due to waiting change net.second from (1) -> (2) in netns 'blue'",
    ]


def test_no_change_is_folded_away() -> None:
    stage = Stage()
    for number in (1, 2, 3):
        stage.change(FIRST, number=number)
    assert len(stage.texts) == 6


def test_changes_that_were_only_observed_are_folded() -> None:
    stage = Stage()
    for number in (1, 2, 3):
        stage.change(FIRST, number=number, outcome=Status.OBSERVED)
    assert len(stage.texts) == 2
    assert stage.texts[1] == "Due to waiting would change net.first from (1) -> (2) in netns 'blue'"


def override(netns: Netns) -> Override:
    return Override(netns=netns, by="pid 5", tunable=FIRST.name, old="1", new="2")


def test_overrides_in_one_namespace_after_another_are_folded_by_tuner() -> None:
    stage = Stage()
    for number in range(5):
        for tuner in ("example", "other"):
            stage.announcer.turned_off(tuner, override(Netns(cookie=9, name=f"box{number}")), None)
    assert [text.rsplit("disabling ")[1] for text in stage.texts] == [
        "'example' in netns 'box0'",
        "'other' in netns 'box0'",
    ]


def test_what_is_done_in_the_initial_namespace_or_on_request_is_always_said() -> None:
    stage = Stage()
    for number in range(3):
        home = Netns(cookie=1, name="global", initial=True)
        stage.announcer.turned_off("example", replace(override(home), new=str(number)), None)
        box = Netns(cookie=9, name=f"box{number}")
        stage.announcer.turned_off("example", Override(netns=box, by="bpftune-ctl"), None)
    assert len(stage.texts) == 6
