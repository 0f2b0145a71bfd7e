# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages in, calls of the policy, messages out. Does no I/O and reads no clock: host.py does.

An exception of the policy passes through: the worker crashes and the supervisor restarts it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bpftune.ipc.declaration import Declaration, Scope
from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import (
    GLOBAL,
    PROTOCOL_VERSION,
    Answer,
    Deliver,
    Evaluate,
    Evaluation,
    Forget,
    Outcome,
    Outcomes,
    Proposal,
    Ready,
    Report,
    Start,
    Summarize,
    Table,
    ToSupervisor,
    ToWorker,
    UseStrategy,
)
from bpftune.ipc.record import Event, RecordDecoder, decode_row
from bpftune.tuners.base import Decision, Policy
from bpftune.workers.states import StateRecords
from bpftune.workers.views import Views
from bpftune.workers.wakeups import WakeUps

UNASKED = 0
"""`seq` of an answer that no event asked for."""


class PolicyRunner:
    def __init__(self, declaration: Declaration, policy: Policy[Any], *, log: Callable[[str], None]) -> None:
        self._declaration = declaration
        self._policy = policy
        self._log = log
        self._records = RecordDecoder(declaration)
        self._states = StateRecords(policy.State, log)
        self._views = Views(declaration, shift=0)
        self._wakeups = WakeUps()
        # An outcome goes to the record that proposed, which its namespace alone does not tell:
        # a global tunable may have been proposed for the sake of one namespace.
        self._proposers: dict[tuple[int, str, str], int] = {}

    def handle(self, message: ToWorker, now_ns: int) -> list[ToSupervisor]:
        """Everything there is to say after `message`; Stop is the caller's."""
        match message:
            case Deliver():
                return [self._deliver(message, now_ns)]
            case Outcomes():
                return [answer for outcome in message.outcomes for answer in self._outcome(outcome, now_ns)]
            case Start():
                return self._start(message, now_ns)
            case Forget():
                self._forget(message)
            case UseStrategy():
                self._views.use(message.strategy)
            case Evaluate():
                return [self._evaluate(message.seq, now_ns)]
            case Summarize():
                return [Report(seq=message.seq, tables=self._tables(message))]
            case _:
                raise ProtocolError(f"cannot handle message: {type(message).__name__} was not expected")
        return []

    def wake(self, now_ns: int) -> list[ToSupervisor]:
        """Grant the wake-ups that are due."""
        return [
            answer
            for cookie in self._wakeups.take_due(now_ns)
            if cookie in self._views
            for answer in self._timer(cookie, now_ns)
        ]

    def timeout_ms(self, now_ns: int) -> int | None:
        return self._wakeups.timeout_ms(now_ns)

    def _start(self, start: Start, now_ns: int) -> list[ToSupervisor]:
        if start.version != PROTOCOL_VERSION:
            raise ProtocolError(f"cannot start: protocol version {start.version}, ours is {PROTOCOL_VERSION}")
        self._views = Views(self._declaration, shift=start.shift, strategy=start.strategy)
        for view in start.views:
            self._views.put(view)
        for saved in start.saved:
            self._states.restore(saved)
        # Also where no state was saved: a supervisor that died left its changes, but not its memory.
        cookies = [view.netns.cookie for view in start.views if self._has_state(view.netns.cookie)]
        answers = [answer for cookie in cookies for answer in self._timer(cookie, now_ns)]
        return [Ready(version=PROTOCOL_VERSION), *answers]

    def _deliver(self, deliver: Deliver, now_ns: int) -> Answer:
        for view in (deliver.global_view, deliver.view):
            if view is not None:
                self._views.put(view)
        try:
            event = self._records.decode(deliver.record)
        except ProtocolError as error:
            self._log(str(error))
            return Answer(seq=deliver.seq)
        cookie = self._cookie(event, deliver)
        situation = self._views.situation(deliver.netns.cookie, now_ns, deliver)
        decision = self._policy.on_event(event, situation, self._states.get(cookie))
        return self._answer(deliver.seq, cookie, decision, now_ns)

    def _has_state(self, cookie: int) -> bool:
        """Whether events of any scenario lead to a record of that cookie: global ones, or a namespace's."""
        scope = Scope.GLOBAL if cookie == GLOBAL else Scope.NETNS
        return any(scenario.scope is scope for scenario in self._declaration.scenarios)

    def _cookie(self, event: Event, deliver: Deliver) -> int:
        scope = self._declaration.scenarios_by_id[event.scenario].scope
        return GLOBAL if scope is Scope.GLOBAL else deliver.netns.cookie

    def _outcome(self, outcome: Outcome, now_ns: int) -> list[ToSupervisor]:
        self._views.apply(outcome)
        cookie = self._proposers.get(_origin(outcome.proposal), outcome.proposal.netns_cookie)
        if cookie not in self._views:
            return []  # forgotten while the proposal was under way
        situation = self._views.situation(cookie, now_ns)
        decision = self._policy.on_outcome(outcome, situation, self._states.get(cookie))
        if decision is None:
            return _worth_sending(Answer(seq=UNASKED, saved=self._states.take_changes(cookie)))
        return _worth_sending(self._answer(UNASKED, cookie, decision, now_ns))

    def _timer(self, cookie: int, now_ns: int) -> list[ToSupervisor]:
        decision = self._policy.on_timer(self._views.situation(cookie, now_ns), self._states.get(cookie))
        return _worth_sending(self._answer(UNASKED, cookie, decision, now_ns))

    def _answer(self, seq: int, cookie: int, decision: Decision, now_ns: int) -> Answer:
        self._wakeups.ask(cookie, decision.wake_at_ns, now_ns)
        for proposal in decision.proposals:
            self._proposers[_origin(proposal)] = cookie
        return Answer(
            seq=seq,
            proposals=decision.proposals,
            notes=decision.notes,
            saved=self._states.take_changes(cookie),
        )

    def _evaluate(self, seq: int, now_ns: int) -> Evaluation:
        return Evaluation(
            seq=seq,
            values={
                strategy.name: float(self._policy.evaluate(strategy.name, self._states.by_cookie, now_ns))
                for strategy in self._declaration.strategies
            },
        )

    def _tables(self, asked: Summarize) -> list[Table]:
        tables = self._policy.tables(self._states.by_cookie)
        declared = [table for table in self._declaration.tables if table.map in asked.maps]
        if not declared:
            return tables
        rows = {
            table.map: [decode_row(table, row.key, row.value) for row in asked.maps[table.map]]
            for table in declared
        }
        return tables + self._policy.map_tables(rows, {one.cookie: one for one in asked.namespaces})

    def _forget(self, forget: Forget) -> None:
        self._views.forget(forget.netns_cookie)
        self._wakeups.ask(forget.netns_cookie, None, 0)
        if forget.state:
            self._states.forget(forget.netns_cookie)
        self._proposers = {
            origin: cookie
            for origin, cookie in self._proposers.items()
            if forget.netns_cookie not in (cookie, origin[0])
        }


def _origin(proposal: Proposal) -> tuple[int, str, str]:
    return proposal.netns_cookie, proposal.tunable, proposal.scenario


def _worth_sending(answer: Answer) -> list[ToSupervisor]:
    return [answer] if answer.proposals or answer.notes or answer.saved else []
