# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps net.ipv6.route.max_size above the number of IPv6 destination entries.

There is no metric to weigh: an entry that the old limit would have refused is what the growth was
for. A limit that nothing comes near decays.
"""

from __future__ import annotations

import msgspec

from bpftune.ipc.messages import Outcome, Status, TunableView
from bpftune.ipc.record import Event
from bpftune.tuners import evidence
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.evidence import Evidence
from bpftune.tuners.steps import grow, shrink

MAX_SIZE = "net.ipv6.route.max_size"
NEAR = "routes_near_limit"
IDLE = "routes_growth_idle"
REFUSED_PAUSE_NS = 60_000_000_000


class RouteTableState(msgspec.Struct):
    evidence: Evidence = msgspec.field(default_factory=Evidence)
    observed: int = 0
    """Largest value that --dry-run kept from being written."""
    paused_until_ns: int = 0
    at_cap: bool = False


class RouteTable(Policy[RouteTableState]):
    State = RouteTableState

    def on_event(self, event: Event, situation: Situation, state: RouteTableState) -> Decision:
        decision = Decision()
        view = situation.adopted(MAX_SIZE)
        if view is not None and event.time_ns >= state.evidence.changed_ns:
            state.evidence.near_ns = situation.now_ns
            _grow(event, view, situation, state, decision)
        return _with_wake(decision, situation, state)

    def on_outcome(self, outcome: Outcome, situation: Situation, state: RouteTableState) -> Decision:
        proposal = outcome.proposal
        if outcome.status is Status.APPLIED and proposal.scenario == NEAR:
            previous = proposal.expected[0]
            evidence.record_growth(state.evidence, previous=previous, now_ns=situation.now_ns)
            evidence.settle_quiet(state.evidence)
        elif outcome.status is Status.APPLIED:
            evidence.record_decay(state.evidence, now_ns=situation.now_ns)
        elif proposal.scenario == IDLE:
            state.evidence.near_ns = situation.now_ns
        elif outcome.status is Status.OBSERVED:
            state.observed = max(state.observed, proposal.new[0])
        elif outcome.status is not Status.STALE:
            state.paused_until_ns = situation.now_ns + REFUSED_PAUSE_NS
        return _with_wake(Decision(), situation, state)

    def on_timer(self, situation: Situation, state: RouteTableState) -> Decision:
        decision = Decision()
        view = situation.adopted(MAX_SIZE)
        if view is not None and _is_grown(view) and situation.now_ns >= _idle_ns(situation, state):
            new = max(shrink(view.current[0], situation.shift), view.original[0])
            idle_s = (situation.now_ns - state.evidence.near_ns) // 1_000_000_000
            decision.proposals.append(situation.propose(MAX_SIZE, (new,), IDLE, {"idle_s": idle_s}))
        return _with_wake(decision, situation, state)


def _is_grown(view: TunableView) -> bool:
    return view.current[0] > view.original[0]


def _grow(
    event: Event, view: TunableView, situation: Situation, state: RouteTableState, decision: Decision
) -> None:
    """One step up, or at once to where the entries are no longer near the limit."""
    current, cap = view.current[0], view.cap[0]
    need = _roomy(event["entries"], situation.shift)
    new = min(max(grow(current, situation.shift), need), 2 * need, cap)
    if situation.now_ns < state.paused_until_ns or need <= current:
        return
    if new > max(current, state.observed):
        numbers = {**event.numbers, "need": need, "suppressed": event.suppressed}
        decision.proposals.append(situation.propose(MAX_SIZE, (new,), NEAR, numbers))
    elif cap <= current and not state.at_cap and not _is_grown(view):
        # Of a growth that came to the cap the supervisor has told already.
        state.at_cap = True
        text = f"{current} is as far as it may go; {need} would be needed for {event['entries']} entries"
        decision.notes.append(situation.note(MAX_SIZE, NEAR, text))


def _roomy(entries: int, shift: int) -> int:
    """The least limit that `entries` are not nearly full of."""
    limit = max(1, (entries << shift) // ((1 << shift) - 1))
    while entries + (limit >> shift) >= limit:
        limit += 1
    return limit


def _with_wake(decision: Decision, situation: Situation, state: RouteTableState) -> Decision:
    view = situation.adopted(MAX_SIZE)
    if view is not None and _is_grown(view):
        decision.wake_at_ns = _idle_ns(situation, state)
    return decision


def _idle_ns(situation: Situation, state: RouteTableState) -> int:
    """State may have been lost with a grown limit left behind: then the idle period begins now."""
    if state.evidence.near_ns == 0:
        state.evidence.near_ns = situation.now_ns
    return evidence.idle_ns(state.evidence)
