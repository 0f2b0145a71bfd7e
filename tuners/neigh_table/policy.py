# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the neighbour tables of IPv4 and IPv6 larger than what they hold.

The limits are global, so everything is remembered under cookie 0, one record per family. The three
thresholds of a family keep their proportions and never cross on the way: up from the largest, down
from the smallest. There is no metric to weigh: an entry that the old limit would have refused is
what the growth was for.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from bpftune.ipc.messages import Number, Outcome, Proposal, Status
from bpftune.ipc.record import Event
from bpftune.tuners import evidence
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.evidence import Evidence
from bpftune.tuners.steps import grow, nearly_full, shrink

LARGEST = 1 << 20
HORIZON_NS = 50_000_000
"""Room for what comes in during two event intervals: one until the next event may leave, one to act."""
STEP_DOWN_NS = 1_000_000_000
REFUSED_PAUSE_NS = 60_000_000_000


class Table(msgspec.Struct):
    """What is remembered about one family's table."""

    evidence: Evidence = msgspec.field(default_factory=Evidence)
    emptied: int | None = None
    """Entries when it was last seen mostly empty; None: it has been filling since."""
    filled_ns: int = 0
    """When it was last seen to fill."""
    paused_until_ns: int = 0
    observed: int = 0
    """Largest gc_thresh3 that --dry-run kept from being written."""


class NeighTableState(msgspec.Struct):
    arp: Table = msgspec.field(default_factory=Table)
    nd: Table = msgspec.field(default_factory=Table)


class Family(msgspec.Struct, frozen=True, kw_only=True):
    prefix: str
    filling: str
    emptied: str
    idle: str

    @property
    def thresholds(self) -> tuple[str, str, str]:
        """gc_thresh1, 2, 3."""
        return f"{self.prefix}1", f"{self.prefix}2", f"{self.prefix}3"


ARP = Family(
    prefix="net.ipv4.neigh.default.gc_thresh",
    filling="arp_table_filling",
    emptied="arp_table_emptied",
    idle="arp_growth_idle",
)
ND = Family(
    prefix="net.ipv6.neigh.default.gc_thresh",
    filling="nd_table_filling",
    emptied="nd_table_emptied",
    idle="nd_growth_idle",
)


class NeighTable(Policy[NeighTableState]):
    State = NeighTableState

    def on_event(self, event: Event, situation: Situation, state: NeighTableState) -> Decision:
        decision = Decision()
        for family, table in _families(state):
            if not _is_ours(family, situation):
                continue
            is_old = event.time_ns < table.evidence.changed_ns
            if event.scenario == family.filling:
                _refill(event, table)
                if not is_old:
                    _fill(family, event, situation, table, decision)
            # Of the two scenarios one may overtake the other on the way here.
            elif event.scenario == family.emptied and not is_old and event.time_ns >= table.filled_ns:
                _empty(family, event["entries"], situation, table, decision)
        return _with_wake(decision, situation, state)

    def on_outcome(self, outcome: Outcome, situation: Situation, state: NeighTableState) -> Decision:
        decision = Decision()
        for family, table in _families(state):
            if outcome.proposal.tunable != family.thresholds[2]:
                continue
            if outcome.proposal.scenario == family.filling:
                _settle_growth(family, outcome, situation, table, decision)
            else:
                _settle_shrink(outcome.status, situation.now_ns, table)
        return _with_wake(decision, situation, state)

    def on_timer(self, situation: Situation, state: NeighTableState) -> Decision:
        decision = Decision()
        for family, table in _families(state):
            if _is_grown(family, situation):
                _expire(family, situation, table, decision)
        return _with_wake(decision, situation, state)


def _families(state: NeighTableState) -> tuple[tuple[Family, Table], ...]:
    return (ARP, state.arp), (ND, state.nd)


def _is_ours(family: Family, situation: Situation) -> bool:
    """Whether all three thresholds exist and none is the administrator's."""
    return all(situation.adopted(name) is not None for name in family.thresholds)


def _is_grown(family: Family, situation: Situation) -> bool:
    if not _is_ours(family, situation):
        return False
    view = situation.tunables[family.thresholds[2]]
    return view.current[0] > view.original[0]


def _refill(event: Event, table: Table) -> None:
    """Whatever the limits were then, the table is not as empty any more as it was."""
    table.emptied = None
    table.filled_ns = max(table.filled_ns, event.time_ns)


def _fill(family: Family, event: Event, situation: Situation, table: Table, decision: Decision) -> None:
    table.evidence.near_ns = situation.now_ns
    current = situation.tunables[family.thresholds[2]].current[0]
    need = event["entries"] + _arrivals(event)
    if need < current and not nearly_full(event["entries"], current, situation.shift):
        return
    new = min(max(grow(current, situation.shift), need), 2 * need, LARGEST)
    if new <= max(current, table.observed) or situation.now_ns < table.paused_until_ns:
        return
    numbers: dict[str, Number] = {**event.numbers, "need": need, "suppressed": event.suppressed}
    decision.proposals.append(
        situation.propose(family.thresholds[2], (new,), family.filling, numbers, device=event["ifindex"])
    )


def _arrivals(event: Event) -> int:
    """Entries that come in within the horizon at the pace of the last burst."""
    return event["created"] * HORIZON_NS // event["interval_ns"] if event["interval_ns"] else 0


def _empty(family: Family, entries: int, situation: Situation, table: Table, decision: Decision) -> None:
    """Remember it; steps down are a second apart, so that a burst of removals is one step."""
    table.emptied = entries
    if _is_grown(family, situation):
        _expire(family, situation, table, decision)


def _may_step_down(family: Family, situation: Situation, table: Table) -> bool:
    """Not where the table filled up again soon after an earlier shrink: that one waits to be idle."""
    current = situation.tunables[family.thresholds[2]].current[0]
    return (
        table.emptied is not None
        and table.evidence.regrown == 0
        and table.emptied <= current >> situation.shift
    )


def _expire(family: Family, situation: Situation, table: Table, decision: Decision) -> None:
    if _may_step_down(family, situation, table):
        if situation.now_ns >= table.evidence.changed_ns + STEP_DOWN_NS:
            _lower(family, family.emptied, {"entries": table.emptied or 0}, situation, decision)
    elif situation.now_ns >= _idle_ns(situation, table):
        idle_s = (situation.now_ns - table.evidence.near_ns) // 1_000_000_000
        _lower(family, family.idle, {"idle_s": idle_s}, situation, decision)


def _lower(
    family: Family,
    scenario: str,
    numbers: Mapping[str, Number],
    situation: Situation,
    decision: Decision,
) -> None:
    """One step down for all three, never below the originals."""
    view = situation.tunables[family.thresholds[2]]
    new = max(shrink(view.current[0], situation.shift), view.original[0])
    for name, value in _scaled(family, situation, new):
        decision.proposals.append(situation.propose(name, (value,), scenario, numbers))


def _scaled(family: Family, situation: Situation, largest: int) -> list[tuple[str, int]]:
    """The thresholds in the administrator's proportions with `largest` as gc_thresh3, without those that
    are there already."""
    views = [situation.tunables[name] for name in family.thresholds]
    original = views[2].original[0]
    wanted = [min(largest, view.original[0] * largest // max(1, original)) for view in views[:2]]
    values = [max(view.original[0], value) for view, value in zip(views, wanted, strict=False)] + [largest]
    return [
        (name, value)
        for name, view, value in zip(family.thresholds, views, values, strict=True)
        if value != view.current[0]
    ]


def _settle_growth(
    family: Family, outcome: Outcome, situation: Situation, table: Table, decision: Decision
) -> None:
    """gc_thresh3 leads: only where it has gone do the other two follow."""
    proposal = outcome.proposal
    if outcome.status is Status.APPLIED:
        evidence.record_growth(table.evidence, previous=proposal.expected[0], now_ns=situation.now_ns)
        for name, value in reversed(_scaled(family, situation, outcome.current[0])):
            view = situation.tunables[name]
            decision.proposals.append(replace(proposal, tunable=name, expected=view.current, new=(value,)))
    elif outcome.status is Status.OBSERVED:
        table.observed = max(table.observed, proposal.new[0])
    elif outcome.status is Status.REFUSED:
        _ask_for_less(proposal, situation, table, decision)
    elif outcome.status is Status.FAILED:
        table.paused_until_ns = situation.now_ns + REFUSED_PAUSE_NS


def _ask_for_less(proposal: Proposal, situation: Situation, table: Table, decision: Decision) -> None:
    """The cap of the event's device is known to the supervisor alone, and the table may be filling right
    now: halve the step until it fits, down to one step of the ordinary size."""
    current = proposal.expected[0]
    step = grow(current, situation.shift)
    new = max(step, (current + proposal.new[0]) // 2)
    if proposal.new[0] > step:
        decision.proposals.append(replace(proposal, new=(new,)))
    else:
        table.paused_until_ns = situation.now_ns + REFUSED_PAUSE_NS


def _settle_shrink(status: Status, now_ns: int, table: Table) -> None:
    if status is Status.APPLIED:
        evidence.record_decay(table.evidence, now_ns=now_ns)
    else:
        table.emptied = None
        table.evidence.near_ns = now_ns


def _with_wake(decision: Decision, situation: Situation, state: NeighTableState) -> Decision:
    due = [
        _wake_ns(family, situation, table)
        for family, table in _families(state)
        if _is_grown(family, situation)
    ]
    decision.wake_at_ns = min(due, default=None)
    return decision


def _wake_ns(family: Family, situation: Situation, table: Table) -> int:
    if _may_step_down(family, situation, table):
        return table.evidence.changed_ns + STEP_DOWN_NS
    return _idle_ns(situation, table)


def _idle_ns(situation: Situation, table: Table) -> int:
    """State may have been lost with a grown table left behind: then the idle period begins now."""
    if table.evidence.near_ns == 0:
        table.evidence.near_ns = situation.now_ns
    return evidence.idle_ns(table.evidence)
