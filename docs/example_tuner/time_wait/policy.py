# SPDX-License-Identifier: GPL-2.0-or-later
"""Raises tcp_max_tw_buckets while connections close faster than they are forgotten.

One step up per event; after a minute without one, one step back per minute down to the
administrator's value.
"""

from __future__ import annotations

import msgspec

from bpftune.ipc.record import Event
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.steps import grow, shrink

MAX_TW_BUCKETS = "net.ipv4.tcp_max_tw_buckets"
IDLE_NS = 60_000_000_000


class TimeWaitState(msgspec.Struct):
    """Saved after every call, one per namespace."""

    neared_ns: int = 0
    """When the limit was last neared."""


class TimeWaitPolicy(Policy[TimeWaitState]):
    State = TimeWaitState

    def on_event(self, event: Event, situation: Situation, state: TimeWaitState) -> Decision:
        state.neared_ns = event.time_ns
        view = situation.tunables[MAX_TW_BUCKETS]
        wanted = min(grow(view.current[0], situation.shift), view.cap[0])
        return _move(situation, state, wanted, "time_wait_near_limit", event["time_wait"])

    def on_timer(self, situation: Situation, state: TimeWaitState) -> Decision:
        view = situation.tunables[MAX_TW_BUCKETS]
        if situation.now_ns - state.neared_ns < IDLE_NS:
            return Decision(wake_at_ns=state.neared_ns + IDLE_NS)
        state.neared_ns = situation.now_ns
        wanted = max(shrink(view.current[0], situation.shift), view.original[0])
        return _move(situation, state, wanted, "time_wait_idle", 0)


def _move(situation: Situation, state: TimeWaitState, wanted: int, scenario: str, time_wait: int) -> Decision:
    """Propose `wanted` unless it holds already, and look again a minute after the last event."""
    view = situation.tunables[MAX_TW_BUCKETS]
    decision = Decision()
    if wanted != view.current[0]:
        decision.proposals = [
            situation.propose(MAX_TW_BUCKETS, (wanted,), scenario, {"time_wait": time_wait})
        ]
    if max(wanted, view.current[0]) > view.original[0]:
        decision.wake_at_ns = state.neared_ns + IDLE_NS
    return decision
