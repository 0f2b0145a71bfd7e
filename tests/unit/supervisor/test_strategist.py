# SPDX-License-Identifier: GPL-2.0-or-later
"""The clock and the choice, with a loop whose time is ours."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Declaration, Probe, Scenario, Strategy
from bpftune.supervisor.loop import Loop, Timer
from bpftune.supervisor.strategist import Evaluated, Strategist, Values

HOOK = "tp_btf:x"


def declaration(*, second_probes: tuple[str, ...] = ("b",)) -> Declaration:
    return Declaration(
        name="choosy",
        description="d",
        tunables=[],
        scenarios=[Scenario(id="seen", name="n", why="w", reason="r", event=["u64 value"])],
        probes=[Probe(name=name, scenarios=["seen"], hooks=[HOOK]) for name in ("a", "b", "always")],
        strategies=[
            Strategy(name="first", description="d", timeout_s=10, probes=["a"]),
            Strategy(name="second", description="d", timeout_s=30, probes=[*second_probes]),
        ],
    )


def hooks(**accepted: bool) -> list[HookStatus]:
    return [
        HookStatus(
            probe=name, scenarios=["seen"], hook=HOOK if accepted.get(name, True) else None, refused={}
        )
        for name in ("a", "b", "always")
    ]


class FakeLoop(Loop):
    """Timers go off when `advance` passes them."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.timers: list[tuple[float, Timer]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(0, callback)
        self.timers.append((self.now_s + delay_s, timer))
        return timer

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for at_s, timer in [*self.timers]:
            if at_s <= self.now_s:
                timer.fire()

    @property
    def due_s(self) -> list[float]:
        """How far off the pending timers are."""
        return [at_s - self.now_s for at_s, timer in self.timers if timer.pending]


class Owner:
    """Answers what it is told to, at once unless `slow`; remembers what it heard."""

    def __init__(self) -> None:
        self.answer: Evaluated | None = {"first": 0, "second": 0}
        self.slow = False
        self.asked: list[Callable[[Evaluated | None], None]] = []
        self.heard: list[str] = []

    def evaluate(self, done: Callable[[Evaluated | None], None]) -> None:
        self.asked.append(done)
        if not self.slow:
            done(self.answer)

    def switched(self, old: Strategy, new: Strategy, values: Values) -> None:
        self.heard.append(f"{old.name} -> {new.name} {dict(values)}")

    def kept(self, active: Strategy, values: Values | None) -> None:
        self.heard.append(f"kept {active.name} {values}")

    def refused(self, active: Strategy, fault: str) -> None:
        self.heard.append(f"refused, {active.name} stays: {fault}")


class Stage:
    def __init__(self, given: Declaration | None = None, where: list[HookStatus] | None = None) -> None:
        self.loop = FakeLoop()
        self.owner = Owner()
        self.strategist = Strategist(
            declaration=given or declaration(), hooks=where or hooks(), loop=self.loop, owner=self.owner
        )
        self.strategist.start()

    @property
    def active(self) -> str:
        return self.strategist.active.name


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_the_first_declared_is_active_at_the_start(stage: Stage) -> None:
    assert (stage.active, stage.loop.due_s, stage.strategist.values) == ("first", [10], {})


def test_nobody_is_asked_before_the_time_is_over(stage: Stage) -> None:
    stage.loop.advance(9.9)

    assert not stage.owner.asked


def test_the_highest_value_wins_and_gets_its_own_time(stage: Stage) -> None:
    stage.owner.answer = {"first": -1.5, "second": 2.25}
    stage.loop.advance(10)

    assert stage.owner.heard == ["first -> second {'first': -1.5, 'second': 2.25}"]
    assert (stage.active, stage.loop.due_s) == ("second", [30])
    assert stage.strategist.values == {"first": -1.5, "second": 2.25}


def test_between_equals_the_active_one_goes_on(stage: Stage) -> None:
    stage.owner.answer = {"first": 0, "second": 1}
    stage.loop.advance(10)
    stage.owner.answer = {"first": 1, "second": 1}
    stage.loop.advance(30)

    assert (stage.active, stage.loop.due_s) == ("second", [30])
    assert stage.owner.heard[1:] == ["kept second {'first': 1, 'second': 1}"]


def test_it_goes_back_and_forth_as_the_values_say(stage: Stage) -> None:
    for seconds, best in ((10, "second"), (30, "first"), (10, "second")):
        stage.owner.answer = {"first": 0, "second": 0, best: 1}
        stage.loop.advance(seconds)
        assert stage.active == best


@pytest.mark.parametrize(
    ("answer", "faulty"),
    [
        ({"first": 1, "second": None}, "second"),
        ({"first": None, "second": 7}, "first"),
        ({"first": 1, "second": math.nan}, "second"),
        ({"first": 1, "second": math.inf}, "second"),
        ({"first": -math.inf, "second": 1}, "first"),
        ({"first": 1}, "second"),
        ({}, "first"),
    ],
)
def test_values_that_cannot_be_compared_change_nothing(stage: Stage, answer: Evaluated, faulty: str) -> None:
    stage.owner.answer = answer
    stage.loop.advance(10)

    assert stage.owner.heard == [f"refused, first stays: '{faulty}' has no finite value"]
    assert (stage.active, stage.loop.due_s, stage.strategist.values) == ("first", [10], {})


def test_a_value_for_a_stranger_is_passed_over(stage: Stage) -> None:
    stage.owner.answer = {"first": 0, "second": 1, "third": 9}
    stage.loop.advance(10)

    assert (stage.active, stage.strategist.values) == ("second", {"first": 0, "second": 1})


def test_without_a_worker_it_tries_again_after_the_next_timeout(stage: Stage) -> None:
    stage.owner.answer = None
    stage.loop.advance(10)
    assert (stage.active, stage.owner.heard, stage.loop.due_s) == ("first", ["kept first None"], [10])

    stage.owner.answer = {"first": 0, "second": 1}
    stage.loop.advance(10)
    assert stage.active == "second"


def test_the_clock_stands_while_the_answer_is_awaited(stage: Stage) -> None:
    stage.owner.slow = True
    stage.loop.advance(10)
    assert stage.loop.due_s == []

    stage.owner.asked[0]({"first": 0, "second": 1})
    assert (stage.active, stage.loop.due_s) == ("second", [30])


def test_stopped_it_neither_asks_nor_switches(stage: Stage) -> None:
    stage.strategist.stop()
    stage.loop.advance(100)

    assert not stage.owner.asked


def test_an_answer_after_the_stop_counts_no_more(stage: Stage) -> None:
    stage.owner.slow = True
    stage.loop.advance(10)
    stage.strategist.stop()
    stage.owner.asked[0]({"first": 0, "second": 1})

    assert (stage.active, stage.owner.heard, stage.loop.due_s) == ("first", [], [])


def test_started_again_it_has_its_whole_time(stage: Stage) -> None:
    stage.loop.advance(9)
    stage.strategist.stop()
    stage.strategist.start()

    assert stage.loop.due_s == [10]


def test_a_strategy_whose_probes_are_all_refused_is_never_active() -> None:
    stage = Stage(where=hooks(a=False))
    stage.loop.advance(1000)

    assert (stage.active, stage.owner.asked, stage.loop.due_s) == ("second", [], [])


def test_one_accepted_probe_will_do() -> None:
    stage = Stage(declaration(second_probes=("a", "b")), hooks(a=False))

    assert stage.active == "second"


def test_a_strategy_without_probes_relies_on_those_always_attached() -> None:
    assert Stage(declaration(second_probes=()), hooks(a=False)).active == "second"
    assert Stage(declaration(second_probes=()), hooks(a=False, b=False, always=False)).active == "first"
