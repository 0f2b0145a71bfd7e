# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings on loan: put back when the reason is gone, not too soon, and only those that are ours."""

from __future__ import annotations

import pytest

from bpftune.ipc.declaration import Declaration, Scenario, Scope, Tunable
from bpftune.ipc.messages import Netns, Outcome, Status, TunableView, Value
from bpftune.tuners import loan
from bpftune.tuners.base import Decision, Situation
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.loan import HOLD_NS, Loan, Terms

FIRST, SECOND = "net.ipv4.first", "net.ipv4.second"
TERMS = Terms(tunables=(FIRST, SECOND, "net.ipv4.missing"), back="over")
DECLARATION = Declaration(
    name="example",
    description="d",
    tunables=[Tunable(name=name, scope=Scope.NETNS, cap=1) for name in TERMS.tunables],
    scenarios=[Scenario(id=name, name="n", why="w", reason="r") for name in ("short", "over")],
    probes=[],
)


class Place:
    """One namespace with two switches."""

    def __init__(self, first: int = 0, second: int = 0) -> None:
        self.originals: dict[str, Value] = {FIRST: (first,), SECOND: (second,)}
        self.values: dict[str, Value] = dict(self.originals)
        self.left_alone: set[str] = set()
        self.now_ns = 1_000_000_000_000
        self.status = Status.APPLIED
        self.loan = Loan()
        self.asked = 0

    def situation(self) -> Situation:
        return Situation(
            declaration=DECLARATION,
            netns=Netns(cookie=7),
            now_ns=self.now_ns,
            shift=2,
            memory_bytes=1,
            tunables={
                name: TunableView(
                    original=self.originals[name],
                    current=value,
                    floor=(0,),
                    cap=(1,),
                    adopted=name not in self.left_alone,
                )
                for name, value in self.values.items()
            },
        )

    def borrow(self) -> None:
        decision = Decision()
        loan.borrow(
            TERMS, self.situation(), self.loan, decision, value=1, scenario="short", numbers={"pages": 1}
        )
        self._settle(decision)

    def give_back(self, after_ns: int = 0) -> None:
        self.now_ns += after_ns
        decision = Decision()
        loan.give_back(TERMS, self.situation(), self.loan, decision)
        self._settle(decision)

    def ease(self) -> None:
        loan.ease(self.loan, self.now_ns)

    def due_in_ns(self) -> int | None:
        due = loan.due_ns(TERMS, self.situation(), self.loan)
        return None if due is None else due - self.now_ns

    def _settle(self, decision: Decision) -> None:
        for proposal in decision.proposals:
            self.asked += 1
            if self.status is Status.APPLIED:
                self.values[proposal.tunable] = proposal.new
            outcome = Outcome(proposal=proposal, status=self.status, current=self.values[proposal.tunable])
            loan.settle(TERMS, outcome, self.now_ns, self.loan)


def test_only_what_is_ours_goes_back() -> None:
    place = Place(first=0, second=1)
    place.borrow()
    assert place.values == {FIRST: (1,), SECOND: (1,)}
    place.ease()
    place.give_back(HOLD_NS)
    assert place.values == place.originals
    assert place.due_in_ns() is None


def test_what_the_administrator_keeps_is_not_touched() -> None:
    place = Place()
    place.left_alone = {SECOND}
    place.borrow()
    assert place.values == {FIRST: (1,), SECOND: (0,)}


def test_it_is_held_for_a_while_after_the_reason() -> None:
    place = Place()
    place.borrow()
    place.ease()
    place.give_back(HOLD_NS - 1)
    assert place.values[FIRST] == (1,)
    place.borrow()
    assert place.due_in_ns() == IDLE_NS, "there again"
    place.ease()
    assert place.due_in_ns() == HOLD_NS


def test_without_a_word_it_ends_as_well() -> None:
    place = Place()
    place.borrow()
    place.give_back(IDLE_NS - 1)
    assert place.values[FIRST] == (1,)
    place.give_back(1)
    assert place.values == place.originals


def test_what_an_earlier_run_left_goes_back_too() -> None:
    place = Place()
    place.values[FIRST] = (1,)
    assert place.due_in_ns() == IDLE_NS
    place.give_back(IDLE_NS)
    assert place.values == place.originals


def test_each_relapse_doubles_the_waits() -> None:
    place = Place()
    for waits in (1, 2, 4, 8):
        place.borrow()
        place.ease()
        assert place.due_in_ns() == HOLD_NS * waits
        place.give_back(HOLD_NS * waits)
        assert place.values == place.originals
    place.now_ns += 1000 * IDLE_NS
    place.borrow()
    place.ease()
    assert place.due_in_ns() == HOLD_NS


def test_observing_asks_once_per_shortage() -> None:
    place = Place()
    place.status = Status.OBSERVED
    for _ in range(5):
        place.borrow()
    assert place.asked == 2
    place.ease()
    place.borrow()
    assert place.asked == 4


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED, Status.STALE])
def test_what_is_refused_is_not_asked_for_at_once(status: Status) -> None:
    place = Place()
    place.status = status
    for _ in range(5):
        place.borrow()
    assert place.asked == 2
