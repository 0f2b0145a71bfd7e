# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from bpftune.ipc.declaration import Declaration, MapTable
from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import (
    GLOBAL,
    PROTOCOL_VERSION,
    Answer,
    Deliver,
    Evaluate,
    Evaluation,
    Forget,
    MapRow,
    Netns,
    Outcome,
    Outcomes,
    Ready,
    Report,
    SavedState,
    Start,
    Status,
    Stop,
    Summarize,
    Table,
    ToSupervisor,
    TunableView,
    UseStrategy,
    View,
)
from bpftune.ipc.record import HEADER, Event, Row
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.workers.runner import PolicyRunner
from bpftune.workers.wakeups import SOONEST_NS

DECLARATION = msgspec.convert(
    {
        "name": "example",
        "description": "Made for a test",
        "tunables": [
            {"name": "net.size", "scope": "netns"},
            {"name": "net.total", "scope": "global"},
        ],
        "scenarios": [
            {
                "id": "full",
                "name": "full",
                "tunable": "net.size",
                "why": "It is full.",
                "reason": "fullness",
                "event": ["u32 used"],
            },
            {
                "id": "all_full",
                "name": "all full",
                "tunable": "net.total",
                "why": "All is full.",
                "reason": "fullness",
                "event": ["u32 used"],
                "scope": "global",
            },
        ],
        "probes": [],
        "strategies": [
            {"name": "calm", "description": "d", "timeout_s": 1, "probes": []},
            {"name": "eager", "description": "d", "timeout_s": 1, "probes": []},
        ],
    },
    Declaration,
)
FULL, ALL_FULL = 0, 1


class Log(msgspec.Struct):
    calls: list[str] = []


class Recorder(Policy[Log]):
    """Writes every call into its state; proposes to double the scenario's tunable."""

    State = Log

    def on_event(self, event: Event, situation: Situation, state: Log) -> Decision:
        name = "net.size" if event.scenario == "full" else "net.total"
        if event["used"] == 0:
            name = "net.total"  # a global tunable for the sake of one namespace
        current = situation.tunables[name].current[0]
        state.calls.append(f"event {name} {current}")
        proposal = situation.propose(name, (2 * current,), event.scenario, {})
        return Decision(proposals=[proposal], wake_at_ns=situation.now_ns)

    def on_outcome(self, outcome: Outcome, situation: Situation, state: Log) -> Decision | None:
        name = outcome.proposal.tunable
        state.calls.append(f"outcome {outcome.status} {situation.tunables[name].current[0]}")
        return None

    def on_timer(self, situation: Situation, state: Log) -> Decision:
        state.calls.append(f"timer {situation.netns.cookie} {situation.strategy}".rstrip())
        return Decision()

    def evaluate(self, strategy: str, states: Mapping[int, Log], now_ns: int) -> float:
        if strategy == "calm":
            return now_ns
        return sum(len(state.calls) for state in states.values())

    def tables(self, states: Mapping[int, Log]) -> list[Table]:
        return [Table(title="calls", columns=["netns"], rows=[[cookie] for cookie in sorted(states)])]

    def map_tables(self, maps: Mapping[str, Sequence[Row]], namespaces: Mapping[int, Netns]) -> list[Table]:
        rows: list[list[str | int | float]] = [
            [namespaces[row["netns_cookie"]].name, row["seen"]] for row in maps["places"]
        ]
        return [Table(title="places", columns=["netns", "seen"], rows=rows)]


def view(cookie: int, value: int) -> View:
    tunable = TunableView(original=(1,), current=(value,), floor=(0,), cap=(1 << 30,))
    name = "net.total" if cookie == GLOBAL else "net.size"
    return View(netns=Netns(cookie=cookie), tunables={name: tunable}, memory_bytes=1)


def start(*, saved: list[SavedState] | None = None, views: list[View] | None = None) -> Start:
    return Start(version=PROTOCOL_VERSION, tuner="example", shift=2, saved=saved or [], views=views or [])


def deliver(seq: int, scenario: int, *, cookie: int = 7, used: int = 1, send_view: bool = True) -> Deliver:
    record = HEADER.pack(1, cookie, 0, 0, scenario, 0, 0) + struct.pack("=II", used, 0)
    return Deliver(
        seq=seq,
        record=record,
        netns=Netns(cookie=cookie),
        view=view(cookie, 10) if send_view else None,
        global_view=view(GLOBAL, 1000) if send_view else None,
    )


class Running:
    """A runner and its clock."""

    def __init__(self, declaration: Declaration = DECLARATION) -> None:
        self.lines: list[str] = []
        self.now_ns = 1
        self.runner = PolicyRunner(declaration, Recorder(), log=self.lines.append)

    def say(self, message: Any) -> list[ToSupervisor]:
        return self.runner.handle(message, self.now_ns)

    def answer(self, message: Any) -> Answer:
        (answer,) = self.say(message)
        assert isinstance(answer, Answer)
        return answer


@pytest.fixture
def running() -> Running:
    made = Running()
    assert made.say(start()) == [Ready(version=PROTOCOL_VERSION)]
    return made


def calls(answer: Answer, cookie: int) -> list[str]:
    """What the state record of `cookie` in the answer says."""
    (record,) = [saved.record for saved in answer.saved if saved.netns_cookie == cookie]
    return msgspec.msgpack.decode(record, type=Log).calls


def outcome_of(answer: Answer, status: Status = Status.APPLIED, current: int = 20) -> Outcomes:
    return Outcomes(outcomes=[Outcome(proposal=answer.proposals[0], status=status, current=(current,))])


def test_an_event_is_answered_with_proposals_and_the_changed_state(running: Running) -> None:
    answer = running.answer(deliver(3, FULL))
    proposal = answer.proposals[0]
    assert (answer.seq, proposal.netns_cookie, proposal.expected, proposal.new) == (3, 7, (10,), (20,))
    assert calls(answer, 7) == ["event net.size 10"]


def test_an_outcome_updates_the_view_before_the_policy_hears_of_it(running: Running) -> None:
    answer = running.answer(deliver(1, FULL))
    learned = running.answer(outcome_of(answer))
    assert (learned.seq, calls(learned, 7)[-1]) == (0, "outcome applied 20")
    assert running.answer(deliver(2, FULL, send_view=False)).proposals[0].expected == (20,)


def test_a_stale_outcome_brings_the_value_that_holds(running: Running) -> None:
    answer = running.answer(deliver(1, FULL))
    running.say(outcome_of(answer, Status.STALE, current=77))
    assert running.answer(deliver(2, FULL, send_view=False)).proposals[0].expected == (77,)


def test_a_global_scenario_has_one_record_for_all_namespaces(running: Running) -> None:
    running.say(deliver(1, ALL_FULL, cookie=7))
    answer = running.answer(deliver(2, ALL_FULL, cookie=8))
    assert len(calls(answer, GLOBAL)) == 2
    assert answer.proposals[0].netns_cookie == GLOBAL
    assert calls(running.answer(outcome_of(answer)), GLOBAL)[-1].startswith("outcome")


def test_an_outcome_goes_to_the_record_that_proposed(running: Running) -> None:
    answer = running.answer(deliver(1, FULL, used=0))
    assert answer.proposals[0].netns_cookie == GLOBAL
    assert calls(running.answer(outcome_of(answer)), 7)[-1].startswith("outcome")


def test_a_wake_up_comes_once_and_not_early(running: Running) -> None:
    running.say(deliver(1, FULL))
    assert running.runner.timeout_ms(running.now_ns) == 1000
    assert running.runner.wake(SOONEST_NS) == []
    (answer,) = running.runner.wake(SOONEST_NS + 1)
    assert isinstance(answer, Answer)
    assert (answer.seq, calls(answer, 7)[-1]) == (0, "timer 7")
    assert running.runner.timeout_ms(SOONEST_NS + 1) is None


def test_forgetting_drops_the_wake_up_and_keeps_the_record(running: Running) -> None:
    running.say(deliver(1, FULL))
    assert running.say(Forget(netns_cookie=7, state=False)) == []
    assert running.runner.timeout_ms(running.now_ns) is None
    assert len(calls(running.answer(deliver(2, FULL)), 7)) == 2


def test_forgetting_the_state_starts_over(running: Running) -> None:
    running.say(deliver(1, FULL))
    running.say(Forget(netns_cookie=7, state=True))
    assert len(calls(running.answer(deliver(2, FULL)), 7)) == 1


def test_an_outcome_for_a_forgotten_namespace_is_nobodys(running: Running) -> None:
    answer = running.answer(deliver(1, FULL))
    running.say(Forget(netns_cookie=7, state=True))
    assert running.say(outcome_of(answer)) == []


def test_a_restart_restores_records_and_wakes_every_known_namespace() -> None:
    record = msgspec.msgpack.encode(Log(calls=["before"]))
    running = Running()
    saved = [SavedState(netns_cookie=7, record=record), SavedState(netns_cookie=8, record=record)]
    ready, answer = running.say(start(saved=saved, views=[view(7, 10)]))
    assert isinstance(ready, Ready)
    assert isinstance(answer, Answer)
    assert calls(answer, 7) == ["before", "timer 7"]
    assert calls(running.answer(deliver(1, FULL, cookie=8)), 8) == ["before", "event net.size 10"]


@pytest.mark.parametrize(("scenario", "cookie"), [(0, 7), (1, GLOBAL)], ids=["netns", "global"])
def test_only_records_that_the_scenarios_lead_to_are_woken_at_the_start(scenario: int, cookie: int) -> None:
    one_scope = msgspec.structs.replace(DECLARATION, scenarios=[DECLARATION.scenarios[scenario]])
    running = Running(one_scope)
    _ready, *answers = running.say(start(views=[view(GLOBAL, 1000), view(7, 10)]))
    (answer,) = answers
    assert isinstance(answer, Answer)
    assert [saved.netns_cookie for saved in answer.saved] == [cookie]


def test_the_summary_comes_from_all_records(running: Running) -> None:
    running.say(deliver(1, FULL, cookie=8))
    running.say(deliver(2, FULL, cookie=7))
    (report,) = running.say(Summarize(seq=5))
    assert isinstance(report, Report)
    assert (report.seq, report.tables[0].rows) == (5, [[7], [8]])


def test_every_strategy_is_evaluated_from_all_records(running: Running) -> None:
    running.say(deliver(1, FULL, cookie=8))
    running.say(deliver(2, FULL, cookie=7))
    running.now_ns = 9
    assert running.say(Evaluate(seq=5)) == [Evaluation(seq=5, values={"calm": 9.0, "eager": 2.0})]


def test_evaluating_changes_no_record(running: Running) -> None:
    running.say(deliver(1, FULL))
    running.say(Evaluate(seq=5))
    assert calls(running.answer(deliver(2, FULL)), 7) == ["event net.size 10", "event net.size 10"]


def test_the_situation_tells_the_active_strategy(running: Running) -> None:
    first = start(views=[view(7, 10)])
    _, answer = running.say(msgspec.structs.replace(first, strategy="calm"))
    assert isinstance(answer, Answer)
    assert calls(answer, 7) == ["timer 7 calm"]
    assert running.say(UseStrategy(strategy="eager")) == []
    running.say(deliver(1, FULL))
    (answer,) = running.runner.wake(SOONEST_NS + 1)
    assert isinstance(answer, Answer)
    assert calls(answer, 7)[-1] == "timer 7 eager"


PLACES = MapTable(map="places", key=["u64 netns_cookie"], value=["u64 seen"])


def test_the_summary_has_what_the_maps_hold() -> None:
    running = Running(msgspec.structs.replace(DECLARATION, tables=[PLACES]))
    running.say(start())
    row = MapRow(key=struct.pack("=Q", 7), value=struct.pack("=Q", 3))
    namespaces = [Netns(cookie=7, name="blue")]
    (report,) = running.say(Summarize(seq=5, maps={"places": [row]}, namespaces=namespaces))
    assert isinstance(report, Report)
    assert [(table.title, table.rows) for table in report.tables] == [
        ("calls", []),
        ("places", [["blue", 3]]),
    ]


def test_maps_that_nobody_declared_are_passed_over(running: Running) -> None:
    (report,) = running.say(Summarize(seq=5, maps={"places": []}))
    assert isinstance(report, Report)
    assert [table.title for table in report.tables] == ["calls"]


def test_a_record_that_does_not_decode_is_answered_with_nothing(running: Running) -> None:
    message = msgspec.structs.replace(deliver(9, FULL), record=b"short")
    assert running.say(message) == [Answer(seq=9)]
    assert "cannot decode event record" in running.lines[0]


def test_another_protocol_version_is_refused(running: Running) -> None:
    with pytest.raises(ProtocolError, match="version"):
        running.say(msgspec.structs.replace(start(), version=PROTOCOL_VERSION + 1))


def test_stop_is_not_the_runners_to_handle(running: Running) -> None:
    with pytest.raises(ProtocolError, match="Stop"):
        running.say(Stop())
