# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes TCP's buffers, its memory and its backlog of handshakes to what is in use.

Each concern is a module: buffers.py, memory.py, handshakes.py. Here events, outcomes and timers find
theirs.
"""

from __future__ import annotations

import msgspec

from bpftune.ipc.declaration import Scope
from bpftune.ipc.messages import GLOBAL, Outcome
from bpftune.ipc.record import Event
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.loan import Loan

from . import buffers, handshakes, memory
from .buffers import Buffers
from .handshakes import Handshakes
from .memory import Pool


class TcpBufferState(msgspec.Struct):
    """The record of cookie 0 holds the pool, that of a namespace the rest."""

    pool: Pool = msgspec.field(default_factory=Pool)
    metrics: Loan = msgspec.field(default_factory=Loan)
    buffers: Buffers = msgspec.field(default_factory=Buffers)
    handshakes: Handshakes = msgspec.field(default_factory=Handshakes)


class TcpBuffer(Policy[TcpBufferState]):
    State = TcpBufferState

    def on_event(self, event: Event, situation: Situation, state: TcpBufferState) -> Decision:
        decision = Decision()
        match event.scenario:
            case "rcvbuf_near_limit" | "sndbuf_near_limit":
                buffers.react(event, situation, state.buffers, decision)
            case "memory_near_pressure" | "memory_near_exhaustion" | "large_pages_allowed":
                memory.react(event, situation, state.pool, decision)
            case "metrics_unsaved" | "metrics_saved":
                memory.react_here(event, situation, state.metrics, decision)
            case "syn_queue_full":
                handshakes.react(event, situation, state.handshakes, decision)
        if event.scenario == "metrics_unsaved" and not memory.may_grow(situation):
            buffers.take_back(memory.numbers(event), situation, state.buffers, decision)
        # Its tunables do not tell whose record this is: every situation has the global ones as well.
        scope = situation.declaration.scenarios_by_id[event.scenario].scope
        return _with_wake(scope, decision, situation, state)

    def on_outcome(self, outcome: Outcome, situation: Situation, state: TcpBufferState) -> Decision:
        decision = Decision()
        memory.settle(outcome, situation.now_ns, state.pool)
        memory.settle_here(outcome, situation.now_ns, state.metrics)
        buffers.settle(outcome, situation, state.buffers, decision)
        handshakes.settle(outcome, situation.now_ns, state.handshakes)
        return _with_wake(_scope(situation), decision, situation, state)

    def on_timer(self, situation: Situation, state: TcpBufferState) -> Decision:
        decision = Decision()
        if _scope(situation) is Scope.GLOBAL:
            memory.expire(situation, state.pool, decision)
        else:
            memory.expire_here(situation, state.metrics, decision)
            buffers.expire(situation, state.buffers, decision)
            handshakes.expire(situation, state.handshakes, decision)
        return _with_wake(_scope(situation), decision, situation, state)


def _scope(situation: Situation) -> Scope:
    return Scope.GLOBAL if situation.netns.cookie == GLOBAL else Scope.NETNS


def _with_wake(scope: Scope, decision: Decision, situation: Situation, state: TcpBufferState) -> Decision:
    if scope is Scope.GLOBAL:
        due = memory.due_ns(situation, state.pool)
    else:
        due = [
            *memory.due_here_ns(situation, state.metrics),
            *buffers.due_ns(situation, state.buffers),
            *handshakes.due_ns(situation, state.handshakes),
        ]
    decision.wake_at_ns = min((at_ns for at_ns in due if at_ns is not None), default=None)
    return decision
