# SPDX-License-Identifier: GPL-2.0-or-later
"""One namespace with one tunable, and a supervisor that does as it is asked: for tests of what grows it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from bpftune.ipc.declaration import Declaration
from bpftune.ipc.messages import Netns, Outcome, Proposal, Status, TunableView, Value
from bpftune.tuners.base import Decision, Situation
from bpftune.tuners.evidence import Verdict

SECOND = 1_000_000_000


class LoneTunable:
    """The rest is the business of the subclass: what is asked of `module`, growth or shortage, and how it
    hears of outcomes."""

    def __init__(
        self, module: ModuleType, declaration: Declaration, *, limit: Any, state: Any, original: Value
    ) -> None:
        self.module = module
        self.declaration = declaration
        self.limit = limit
        self.state = state
        self.original = original
        self.current = original
        self.adopted = True
        self.there = True
        self.now_ns = 1_000 * SECOND
        self.status = Status.APPLIED
        self.proposals: list[Proposal] = []
        self.notes: list[str] = []

    @property
    def caps(self) -> Value:
        raise NotImplementedError

    def proposed(self, proposal: Proposal) -> None:
        """Check what must hold for each, and take note of a change before it is made."""
        raise NotImplementedError

    def tell(self, outcome: Outcome) -> None:
        raise NotImplementedError

    @property
    def scenarios(self) -> list[str]:
        return [proposal.scenario for proposal in self.proposals]

    def verdict(self) -> Verdict:
        verdict: Verdict = self.state.evidence.verdict
        return verdict

    def is_frozen(self) -> bool:
        return bool(self.state.evidence.frozen)

    def situation(self) -> Situation:
        view = TunableView(
            original=self.original,
            current=self.current,
            floor=self.original,
            cap=self.caps,
            adopted=self.adopted,
        )
        return Situation(
            declaration=self.declaration,
            netns=Netns(cookie=7),
            now_ns=self.now_ns,
            shift=2,
            memory_bytes=1,
            tunables={self.limit.tunable: view} if self.there else {},
        )

    def expire(self, after_ns: int = 0) -> None:
        self.now_ns += after_ns
        decision = Decision()
        self.module.expire(self.limit, self.situation(), self.state, decision)
        self.settle(decision)

    def due_in_ns(self) -> int | None:
        due_ns: int | None = self.module.wake_ns(self.limit, self.situation(), self.state)
        return None if due_ns is None else due_ns - self.now_ns

    def rest(self) -> None:
        """Let time pass until nothing is left to do."""
        while (due_ns := self.due_in_ns()) is not None:
            self.expire(max(due_ns, SECOND))

    def settle(self, decision: Decision) -> None:
        self.notes += [note.text for note in decision.notes]
        for proposal in decision.proposals:
            assert proposal.expected == self.current
            self.proposed(proposal)
            self.proposals.append(proposal)
            if self.status is Status.APPLIED:
                self.current = proposal.new
            self.tell(Outcome(proposal=proposal, status=self.status, current=self.current))
