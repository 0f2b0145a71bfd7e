# SPDX-License-Identifier: GPL-2.0-or-later
"""Room and time for incoming packets: the backlog of a CPU, and the budget of one processing round.

Both limits lose something when they bind: packets, or the turn at the CPU. One Regulator each
(growth.py) grows them as long as that makes losses rarer; the metric is the time per loss. Flow
limits go along with the backlog and budget_usecs with the budget. Everything is global, so there is
one state record, under cookie 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from bpftune.ipc.messages import Number, Outcome, Status, TunableView
from bpftune.ipc.record import Event
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.evidence import IDLE_NS, Sample
from bpftune.tuners.growth import Limit, Reading, Regulator, expire, react, settle, wake_ns, weigh
from bpftune.tuners.steps import grow

FLOW_LIMIT = "net.core.flow_limit_cpu_bitmap"
BUDGET_USECS = "net.core.netdev_budget_usecs"

BACKLOG = Limit(
    tunable="net.core.netdev_max_backlog",
    field=0,
    near="backlog_drops",
    unpaid="backlog_growth_unpaid",
    idle="backlog_growth_idle",
    metric="time per drop",
)
BUDGET = Limit(
    tunable="net.core.netdev_budget",
    field=0,
    near="time_squeeze",
    unpaid="budget_growth_unpaid",
    delays="budget_growth_delays",
    idle="budget_growth_idle",
    metric="time per squeeze",
    cost="share of waiting tasks",
)

WINDOW_NS = 60_000_000_000
TOLERATED_SHIFT = 5
"""Drops within a window that are no reason to act: a 32nd of the backlog."""


class Window(msgspec.Struct):
    """Drops since `start_ns`, for at most WINDOW_NS."""

    start_ns: int = 0
    drops: int = 0


class NetBufferState(msgspec.Struct):
    backlog: Regulator = msgspec.field(default_factory=Regulator)
    window: Window = msgspec.field(default_factory=Window)
    overflowed_ns: int = 0
    """When a window last had more drops than are tolerated."""
    flow_limit_paused_until_ns: int = 0
    budget: Regulator = msgspec.field(default_factory=Regulator)


class NetBuffer(Policy[NetBufferState]):
    State = NetBufferState

    def on_event(self, event: Event, situation: Situation, state: NetBufferState) -> Decision:
        decision = Decision()
        if event.scenario == BACKLOG.near:
            _dropped(event, situation, state, decision)
        elif event.scenario == BUDGET.near:
            react(BUDGET, _squeezed(event, situation), situation, state.budget, decision)
        elif event["running"]:
            weigh(BUDGET, event["waiting"] / event["running"], situation, state.budget, decision)
        return _with_wake(decision, situation, state)

    def on_outcome(self, outcome: Outcome, situation: Situation, state: NetBufferState) -> Decision:
        decision = Decision()
        tunable = outcome.proposal.tunable
        if tunable == BACKLOG.tunable:
            settle(BACKLOG, outcome, situation, state.backlog)
            state.window = Window()
        elif tunable == FLOW_LIMIT and outcome.status not in (Status.APPLIED, Status.STALE):
            state.flow_limit_paused_until_ns = situation.now_ns + IDLE_NS
        elif tunable == BUDGET.tunable:
            settle(BUDGET, outcome, situation, state.budget)
            _follow_budget(outcome, situation, decision)
        return _with_wake(decision, situation, state)

    def on_timer(self, situation: Situation, state: NetBufferState) -> Decision:
        decision = Decision()
        expire(BACKLOG, situation, state.backlog, decision)
        expire(BUDGET, situation, state.budget, decision)
        if _flow_limits_idle_ns(situation, state) <= situation.now_ns:
            view = situation.tunables[FLOW_LIMIT]
            idle_s = (situation.now_ns - state.overflowed_ns) // 1_000_000_000
            decision.proposals.append(
                situation.propose(FLOW_LIMIT, view.original, "backlog_flow_limit_idle", {"idle_s": idle_s})
            )
        return _with_wake(decision, situation, state)


def _dropped(event: Event, situation: Situation, state: NetBufferState, decision: Decision) -> None:
    view = situation.tunables.get(BACKLOG.tunable)
    if view is None or event.time_ns < state.backlog.evidence.changed_ns:
        return
    _count(state.window, event)
    overflows = state.window.drops > view.current[0] >> TOLERATED_SHIFT
    reading = _Overflow(event=event, window=state.window, overflows=overflows).reading(view, situation.shift)
    react(BACKLOG, reading, situation, state.backlog, decision)
    if overflows:
        state.overflowed_ns = situation.now_ns
        _limit_flows(event["cpu_number"], reading, situation, state, decision)


def _count(window: Window, event: Event) -> None:
    if event.time_ns - window.start_ns > WINDOW_NS:
        window.start_ns = event.time_ns - event["interval_ns"]
        window.drops = 0
    window.drops += event["drops"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overflow:
    """Drops as one event reports them, and as they add up."""

    event: Event
    window: Window
    overflows: bool

    def reading(self, view: TunableView, shift: int) -> Reading:
        return Reading(
            time_ns=self.event.time_ns,
            need=grow(view.current[0], shift) if self.overflows else 0,
            enough=0,
            ceiling=view.cap[0],
            growable=self.overflows,
            amount_per_round=0.0,
            sample=_sample(self.event, self.event["drops"]),
            rtt_us=0,
            numbers=self._numbers(),
        )

    def _numbers(self) -> dict[str, Number]:
        window_ns = self.event.time_ns - self.window.start_ns
        return {
            **self.event.numbers,
            "drops_in_window": self.window.drops,
            "window_ms": window_ns // 1_000_000,
            "suppressed": self.event.suppressed,
        }


def _squeezed(event: Event, situation: Situation) -> Reading:
    view = situation.tunables.get(BUDGET.tunable)
    return Reading(
        time_ns=event.time_ns,
        need=grow(view.current[0], situation.shift) if view is not None else 0,
        enough=0,
        ceiling=view.cap[0] if view is not None else 0,
        growable=True,
        amount_per_round=0.0,
        sample=_sample(event, event["squeezes"]),
        rtt_us=0,
        numbers=dict(event.numbers),
    )


def _sample(event: Event, losses: int) -> Sample | None:
    """Time per loss; the first loss of all, and one after a long time without, tells none."""
    if not event["interval_ns"]:
        return None
    return Sample(
        amount=event["interval_ns"],
        rounds=losses,
        start_ns=event.time_ns - event["interval_ns"],
        end_ns=event.time_ns,
    )


def _limit_flows(
    cpu_number: int, reading: Reading, situation: Situation, state: NetBufferState, decision: Decision
) -> None:
    """Set the bit of the CPU that had to drop. CPUs count from 1 here; 0: it is not known."""
    view = situation.adopted(FLOW_LIMIT)
    if view is None or not 0 < cpu_number <= view.cap[0].bit_length():
        return
    mask = view.current[0] | 1 << cpu_number - 1
    if mask != view.current[0] and situation.now_ns >= state.flow_limit_paused_until_ns:
        decision.proposals.append(
            situation.propose(FLOW_LIMIT, (mask,), "backlog_flow_limit", reading.numbers)
        )


def _follow_budget(outcome: Outcome, situation: Situation, decision: Decision) -> None:
    """budget_usecs moves in the same ratio as the budget has, as far as it may go."""
    budget = situation.tunables[BUDGET.tunable]
    view = situation.adopted(BUDGET_USECS)
    if outcome.status is not Status.APPLIED or view is None:
        return
    proposal = outcome.proposal
    moved = view.current[0] * outcome.current[0] // max(1, proposal.expected[0])
    new = max(view.original[0], min(moved, view.cap[0]))
    if budget.current == budget.original:
        new = view.original[0]
    if new != view.current[0]:
        decision.proposals.append(
            situation.propose(BUDGET_USECS, (new,), proposal.scenario, proposal.evidence)
        )


def _flow_limits_idle_ns(situation: Situation, state: NetBufferState) -> int:
    """When our bits in the mask are to be given back; far off where there are none."""
    view = situation.adopted(FLOW_LIMIT)
    if view is None or view.current == view.original:
        return 1 << 63
    if state.overflowed_ns == 0:
        state.overflowed_ns = situation.now_ns
    return max(state.overflowed_ns + IDLE_NS, state.flow_limit_paused_until_ns)


def _with_wake(decision: Decision, situation: Situation, state: NetBufferState) -> Decision:
    due = [
        wake_ns(BACKLOG, situation, state.backlog),
        wake_ns(BUDGET, situation, state.budget),
        _flow_limits_idle_ns(situation, state),
    ]
    at_ns = min(at_ns for at_ns in due if at_ns is not None)
    decision.wake_at_ns = at_ns if at_ns < 1 << 63 else None
    return decision
