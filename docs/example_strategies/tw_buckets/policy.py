# SPDX-License-Identifier: GPL-2.0-or-later
"""Raises tcp_max_tw_buckets before it is reached, and says how closely that has to be watched.

A sample will do until the limit was neared; then every closing connection is worth a look, for as
long as that goes on and a minute longer. Unused room goes back step by step.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bpftune.ipc.record import Event
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.steps import grow, shrink

MAX_TW_BUCKETS = "net.ipv4.tcp_max_tw_buckets"
SAMPLED = "sampled"
IDLE_NS = 60_000_000_000


class BucketsState(msgspec.Struct):
    """Saved after every call, one per namespace. Both strategies know it: a switch forgets nothing."""

    neared_ns: int = 0
    """When the limit was last neared; 0: never."""
    shrunk_ns: int = 0


class BucketsPolicy(Policy[BucketsState]):
    State = BucketsState

    def on_event(self, event: Event, situation: Situation, state: BucketsState) -> Decision:
        state.neared_ns = event.time_ns
        view = situation.tunables[MAX_TW_BUCKETS]
        wanted = grow(view.current[0], situation.shift)
        if situation.strategy == SAMPLED:
            # Several connections closed since the last look, so the next look is as late again.
            wanted = grow(wanted, situation.shift)
        return _move(situation, state, min(wanted, view.cap[0]), "tw_near_limit", event["time_wait"])

    def on_timer(self, situation: Situation, state: BucketsState) -> Decision:
        quiet_since_ns = max(state.neared_ns, state.shrunk_ns)
        if situation.now_ns - quiet_since_ns < IDLE_NS:
            return Decision(wake_at_ns=quiet_since_ns + IDLE_NS)
        state.shrunk_ns = situation.now_ns
        view = situation.tunables[MAX_TW_BUCKETS]
        wanted = max(shrink(view.current[0], situation.shift), view.original[0])
        return _move(situation, state, wanted, "tw_idle", 0)

    def evaluate(self, strategy: str, states: Mapping[int, BucketsState], now_ns: int) -> float:
        if strategy == SAMPLED:
            return 1.0
        neared_ns = [state.neared_ns for state in states.values() if state.neared_ns]
        return 2.0 if neared_ns and now_ns - max(neared_ns) < IDLE_NS else 0.0


def _move(situation: Situation, state: BucketsState, wanted: int, scenario: str, time_wait: int) -> Decision:
    """Propose `wanted` unless it holds already, and look again after a quiet minute."""
    view = situation.tunables[MAX_TW_BUCKETS]
    decision = Decision()
    if wanted != view.current[0]:
        decision.proposals = [
            situation.propose(MAX_TW_BUCKETS, (wanted,), scenario, {"time_wait": time_wait})
        ]
    if max(wanted, view.current[0]) > view.original[0]:
        decision.wake_at_ns = max(state.neared_ns, state.shrunk_ns) + IDLE_NS
    return decision
