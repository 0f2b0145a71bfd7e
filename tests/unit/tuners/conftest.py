# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel and a supervisor that consist of a dictionary, for policies of all tuners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from bpftune.ipc.declaration import Declaration
from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.messages import GLOBAL, Netns, Note, Outcome, Proposal, Status, TunableView, Value
from bpftune.ipc.record import Event
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.evidence import IDLE_NS

TUNERS = Path(__file__).parents[3] / "tuners"
COOKIE = 4711
MEMORY_BYTES = 16 << 30


class FakeKernel:
    """Carries out what a policy proposes in one namespace, and checks every proposal on the way."""

    def __init__(
        self, tuner: str, policy: Policy[Any], values: Mapping[str, Value], *, cap: int = 2**31 - 1
    ) -> None:
        self.declaration: Declaration = load_declaration(TUNERS / tuner)
        self.policy = policy
        self.states: dict[int, Any] = {COOKIE: policy.State(), GLOBAL: policy.State()}
        self.originals = dict(values)
        self.values = dict(values)
        self.now_ns = 1_000_000_000_000
        self.cap = cap
        self.caps: dict[str, int] = {}
        self.status = Status.APPLIED
        self.proposals: list[Proposal] = []
        self.changes: list[tuple[str, Value, Value]] = []
        self.applied: list[tuple[int, Proposal]] = []
        """When, and what."""
        self.notes: list[Note] = []
        self.wakes: dict[int, int] = {}
        self.adopted = True
        self.left_alone: set[str] = set()
        """What sysctl.d sets."""
        self.counters: dict[str, int] = {}
        self.shift = 2

    @property
    def state(self) -> Any:
        """The record of a tuner that has but one in use."""
        return self.states[self._only_record]

    @property
    def wake_at_ns(self) -> int | None:
        return min(self.wakes.values(), default=None)

    @wake_at_ns.setter
    def wake_at_ns(self, at_ns: int) -> None:
        self.wakes[self._only_record] = at_ns

    def situation(self, cookie: int = COOKIE) -> Situation:
        """With GLOBAL, what a timer or an outcome of the global record sees."""
        declared = self.declaration.tunables_by_name
        visible = [name for name in self.values if cookie != GLOBAL or declared[name].scope == "global"]
        return Situation(
            declaration=self.declaration,
            netns=Netns(cookie=cookie),
            now_ns=self.now_ns,
            shift=self.shift,
            memory_bytes=MEMORY_BYTES,
            tunables={name: self._view(name) for name in visible},
            counters=self.counters,
        )

    def send(self, scenario: str, numbers: Mapping[str, int], **vectors: tuple[int, ...]) -> None:
        event = Event(scenario, self.now_ns, COOKIE, 0, dict(numbers), vectors)
        record = GLOBAL if self.declaration.scenarios_by_id[scenario].scope == "global" else COOKIE
        self._take(self.policy.on_event(event, self.situation(), self.states[record]), record)

    def run_until(self, at_ns: int) -> None:
        """Let time pass, granting the wake-ups that come due."""
        while self.wakes and min(self.wakes.values()) <= at_ns:
            record = min(self.wakes, key=lambda cookie: self.wakes[cookie])
            self.now_ns = max(self.now_ns + 1_000_000_000, self.wakes.pop(record))
            self._take(self.policy.on_timer(self.situation(record), self.states[record]), record)
        self.now_ns = max(self.now_ns, at_ns)

    def history(self, tunable: str, field: int = 0) -> list[int]:
        """Every value the field had, oldest first."""
        changed = [new[field] for name, _, new in self.changes if name == tunable]
        return [self.originals[tunable][field], *changed]

    def swings(self, tunable: str, *eases: str, field: int = 0, causes: Sequence[int] = ()) -> bool:
        """A -> B -> A -> B, but where B was left under one of the scenarios `eases`, as for lack of need,
        and is taken again an idle period after it was taken first, or later.

        With `causes`, one for each in `applied`, what was done for another is not compared.
        """
        moves = [
            (at_ns, proposal, cause)
            for (at_ns, proposal), cause in zip(self.applied, causes or repeat(0), strict=False)
            if proposal.tunable == tunable and proposal.new[field] != proposal.expected[field]
        ]
        return any(
            one == other
            and (first.expected[field], first.new[field]) == (third.expected[field], third.new[field])
            and not (
                min(first, second, key=lambda move: move.new[field] - move.expected[field]).scenario in eases
                and (first.new < first.expected or end_ns - start_ns >= IDLE_NS)
            )
            for (start_ns, first, one), (_, second, _), (end_ns, third, other) in zip(
                moves, moves[1:], moves[2:], strict=False
            )
        )

    @property
    def _only_record(self) -> int:
        scopes = {scenario.scope for scenario in self.declaration.scenarios}
        return GLOBAL if scopes == {"global"} else COOKIE

    def _take(self, decision: Decision, record: int | None = None) -> None:
        record = self._only_record if record is None else record
        self.notes.extend(decision.notes)
        self.wakes.pop(record, None)
        if decision.wake_at_ns is not None:
            self.wakes[record] = decision.wake_at_ns
        for proposal in decision.proposals:
            self._settle(proposal, record)

    def _settle(self, proposal: Proposal, record: int) -> None:
        self.proposals.append(proposal)
        old = self.values[proposal.tunable]
        self._check(proposal, old)
        status = Status.REFUSED if max(proposal.new) > self._cap(proposal.tunable) else self.status
        if status is Status.APPLIED:
            self.values[proposal.tunable] = proposal.new
            self.changes.append((proposal.tunable, old, proposal.new))
            self.applied.append((self.now_ns, proposal))
        self.now_ns += 500_000
        outcome = Outcome(proposal=proposal, status=status, current=self.values[proposal.tunable])
        decision = self.policy.on_outcome(outcome, self.situation(record), self.states[record])
        if decision is not None:
            self._take(decision, record)

    def _check(self, proposal: Proposal, old: Value) -> None:
        declared = self.declaration.tunables_by_name[proposal.tunable]
        assert proposal.expected == old
        assert proposal.new != old
        assert proposal.netns_cookie == (GLOBAL if declared.scope == "global" else COOKIE)
        assert proposal.evidence
        for index, (before, after) in enumerate(zip(old, proposal.new, strict=True)):
            if declared.moves is not None and index not in declared.moves:
                assert before == after

    def _view(self, name: str) -> TunableView:
        current = self.values[name]
        return TunableView(
            original=self.originals[name],
            current=current,
            floor=(0,) * len(current),
            cap=(self._cap(name),) * len(current),
            adopted=self.adopted and name not in self.left_alone,
        )

    def _cap(self, name: str) -> int:
        return self.caps.get(name, self.cap)


@pytest.fixture(scope="session")
def make_kernel() -> Callable[..., FakeKernel]:
    return FakeKernel
