# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the memory for IPv4 and IPv6 reassembly above what fragments take, unless they only fail.

Each namespace has its own limits and counters. The limit grows before it is reached, so for good
traffic there is nothing to weigh. What tells an attack is that reassembly fails more the more memory
there is, or that in the end it does nothing but fail; then the limit goes back step by step, and stays
there until the fragments have gone.
"""

from __future__ import annotations

import msgspec

from bpftune.ipc.messages import Number, Outcome, Proposal, Status
from bpftune.ipc.record import Event
from bpftune.tuners import correlation, evidence
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.correlation import Correlation
from bpftune.tuners.shortage import (
    Limit,
    Shortage,
    Turn,
    expire,
    grow_to,
    lower,
    note_need,
    settle,
    take_turn,
    wake_ns,
    weigh,
)
from bpftune.tuners.steps import grow, shrink

METRIC = "fragments taken per fragment dropped at the limit"

FLOOD_SHARE = 1 / 8
"""Datagrams get lost on the way now and then and fail half a minute later, when the limit may have grown
for other reasons. Where fewer requests than that fail it is no attack."""

FLOOD_TAKEN = 1 / 8
"""Per fragment dropped: where growth ends with less than that, none of it was of use to anyone."""

LOST_SHARE = 1 / (1 + FLOOD_TAKEN)
LOST_WINDOWS = 10
"""Nor where more than that fails for so many windows in a row with all the memory that there may be."""

WINDOW_NS = 1_000_000_000

RECENT_NS = 100_000_000
"""Events further apart tell nothing about the present pace."""

MIXED_SHARE = 1 / 10
"""The part of a count's time that may lie before the newest change."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    limit: Limit
    low: str
    flood: str
    counters: str
    """What the names of its counters begin with."""


IPV4 = Family(
    limit=Limit(
        tunable="net.ipv4.ipfrag_high_thresh",
        short="ipv4_fragments_fill",
        unpaid="ipv4_growth_unpaid",
        idle="ipv4_growth_idle",
        metric=METRIC,
    ),
    low="net.ipv4.ipfrag_low_thresh",
    flood="ipv4_fragment_flood",
    counters="ipv4",
)
IPV6 = Family(
    limit=Limit(
        tunable="net.ipv6.ip6frag_high_thresh",
        short="ipv6_fragments_fill",
        unpaid="ipv6_growth_unpaid",
        idle="ipv6_growth_idle",
        metric=METRIC,
    ),
    low="net.ipv6.ip6frag_low_thresh",
    flood="ipv6_fragment_flood",
    counters="ipv6",
)


class Counts(msgspec.Struct):
    """The namespace's counters at one moment."""

    requests: int
    failures: int
    timeouts: int
    time_ns: int
    memory_bytes: int


class Window(msgspec.Struct):
    """What was counted under one limit."""

    limit: int = 0
    requests: int = 0
    failures: int = 0
    start_ns: int = 0


class Side(msgspec.Struct):
    """One family in one namespace."""

    shortage: Shortage = msgspec.field(default_factory=Shortage)
    window: Window = msgspec.field(default_factory=Window)
    failing: Correlation = msgspec.field(default_factory=Correlation)
    """The limit against the share of requests that fail, one pair per window."""
    lost_windows: int = 0
    """The newest in a row in which nearly everything failed."""
    counts: Counts | None = None
    flooded: bool = False
    """Growth ended because of a flood, and has not gone back to the original yet."""


class IpFragState(msgspec.Struct):
    ipv4: Side = msgspec.field(default_factory=Side)
    ipv6: Side = msgspec.field(default_factory=Side)


class IpFrag(Policy[IpFragState]):
    State = IpFragState

    def on_event(self, event: Event, situation: Situation, state: IpFragState) -> Decision:
        decision = Decision()
        for family, side in _sides(state):
            turn = take_turn(family.limit, situation, side.shortage, decision)
            if turn is not None and event.scenario == family.limit.short:
                _fill(family, event, turn, side)
        return _finish(decision, situation, state)

    def on_outcome(self, outcome: Outcome, situation: Situation, state: IpFragState) -> Decision:
        decision = Decision()
        for family, side in _sides(state):
            if outcome.proposal.tunable == family.limit.tunable:
                settle(family.limit, outcome, situation.now_ns, side.shortage)
                if outcome.status is Status.APPLIED:
                    decision.proposals += _follow(family, outcome.proposal, situation)
        return _finish(decision, situation, state)

    def on_timer(self, situation: Situation, state: IpFragState) -> Decision:
        decision = Decision()
        for family, side in _sides(state):
            expire(family.limit, situation, side.shortage, decision)
        return _finish(decision, situation, state)


def _sides(state: IpFragState) -> tuple[tuple[Family, Side], ...]:
    return (IPV4, state.ipv4), (IPV6, state.ipv6)


def _finish(decision: Decision, situation: Situation, state: IpFragState) -> Decision:
    """Let low_thresh go down first, and ask for the next wake-up."""
    due = [wake_ns(family.limit, situation, side.shortage) for family, side in _sides(state)]
    decision.wake_at_ns = min((at_ns for at_ns in due if at_ns is not None), default=None)
    for family, _ in _sides(state):
        for proposal in [one for one in decision.proposals if one.tunable == family.limit.tunable]:
            if proposal.new < proposal.expected:
                decision.proposals = [*_follow(family, proposal, situation), *decision.proposals]
    return decision


def _follow(family: Family, high: Proposal, situation: Situation) -> list[Proposal]:
    """low_thresh in the proportion that it had to high_thresh before anything changed."""
    low, limit = situation.adopted(family.low), situation.tunables[family.limit.tunable]
    if low is None or limit.original[0] <= 0:
        return []
    new = (max(low.original[0], high.new[0] * low.original[0] // limit.original[0]),)
    if new == low.current:
        return []
    return [situation.propose(family.low, new, high.scenario, {"high_thresh": high.new[0]})]


def _fill(family: Family, event: Event, turn: Turn, side: Side) -> None:
    current = turn.view.current[0]
    if current <= 0 or event.time_ns < turn.state.evidence.changed_ns:
        return
    note_need(turn)
    need = _foresee(event, side.counts)
    numbers, share = _count(family, event, turn, side)
    if _is_flood(turn, side, share):
        _push_back(family, turn, side, share)
    elif not turn.decision.proposals:
        wanted = min(max(grow(current, turn.situation.shift), need), 2 * need)
        numbers = {**event.numbers, **numbers, "need": need, "suppressed": event.suppressed}
        grow_to(turn, (wanted,), numbers)


def _foresee(event: Event, before: Counts | None) -> int:
    """What fragments will take when the next event has come and was acted on, at their present pace."""
    memory_bytes = event["memory_bytes"]
    if before is None or event.time_ns - before.time_ns > RECENT_NS:
        return memory_bytes
    return memory_bytes + 2 * max(0, memory_bytes - before.memory_bytes)


def _count(family: Family, event: Event, turn: Turn, side: Side) -> tuple[dict[str, Number], float]:
    """Weigh what was counted since the last event; the share of requests that failed."""
    before, now = side.counts, _read_counts(family, event, turn.situation)
    side.counts = now
    if before is None or now is None or now.requests <= before.requests:
        return {}, 0.0
    requests = now.requests - before.requests
    failures = min(requests, max(0, now.failures - before.failures))
    dropped = min(failures, max(0, failures - (now.timeouts - before.timeouts)))
    _correlate(side, turn.view.current[0], requests, failures, now.time_ns)
    start_ns = _start_ns(before.time_ns, now.time_ns, turn.state.evidence.changed_ns)
    _weigh(turn, side, taken=requests - dropped, dropped=dropped, start_ns=start_ns)
    share = failures / requests
    return {"requests": requests, "failures": failures, "failed_share": round(share, 4)}, share


def _correlate(side: Side, limit: int, requests: int, failures: int, now_ns: int) -> None:
    """Every limit counts the same, however long it held: a window ends with its limit, or after a while."""
    window = side.window
    if window.requests and (window.limit != limit or now_ns - window.start_ns >= WINDOW_NS):
        share = window.failures / window.requests
        correlation.add(side.failing, window.limit, share)
        side.lost_windows = side.lost_windows + 1 if share > LOST_SHARE else 0
        window = Window()
    if not window.requests:
        side.window = window = Window(limit=limit, start_ns=now_ns)
    window.requests += requests
    window.failures += failures


def _weigh(turn: Turn, side: Side, *, taken: int, dropped: int, start_ns: int) -> None:
    """What was taken until the memory was full for the first time only says how large it is."""
    tally = turn.state.tally
    if dropped and not tally.failures:
        tally.successes = taken = 0
    if weigh(turn, successes=taken, failures=dropped, start_ns=start_ns):
        side.flooded = turn.state.evidence.level < FLOOD_TAKEN


def _read_counts(family: Family, event: Event, situation: Situation) -> Counts | None:
    names = (f"{family.counters}_{what}" for what in ("requests", "failures", "timeouts"))
    found = [situation.counters.get(name) for name in names]
    requests, failures, timeouts = found
    if requests is None or failures is None or timeouts is None:
        return None
    return Counts(
        requests=requests,
        failures=failures,
        timeouts=timeouts,
        time_ns=event.time_ns,
        memory_bytes=event["memory_bytes"],
    )


def _start_ns(before_ns: int, now_ns: int, changed_ns: int) -> int:
    """When a count began. A change follows the event that caused it within a millisecond or so, and
    the count that began there is the new limit's all the same."""
    mixed_ns = changed_ns - before_ns
    return changed_ns if 0 < mixed_ns < MIXED_SHARE * (now_ns - before_ns) else before_ns


def _is_flood(turn: Turn, side: Side, share: float) -> bool:
    side.flooded = side.flooded and turn.is_grown
    if not turn.is_grown or share < FLOOD_SHARE:
        return False
    return side.flooded or correlation.is_harmful(side.failing) or _is_lost(turn, side)


def _is_lost(turn: Turn, side: Side) -> bool:
    """Growth that kept ahead of a flood up to the cap leaves no correlation behind."""
    return turn.is_at_cap and side.lost_windows >= LOST_WINDOWS


def _push_back(family: Family, turn: Turn, side: Side, share: float) -> None:
    """One step back, and no growth from now on; further steps follow for as long as it goes on."""
    if not side.flooded:
        turn.note(family.flood, _flood_text(side, share))
        evidence.freeze(turn.state.evidence)
        side.failing, side.lost_windows = Correlation(), 0
        side.flooded = True
    if not turn.decision.proposals:
        lower(turn, (shrink(turn.view.current[0], turn.situation.shift),), family.flood)


def _flood_text(side: Side, share: float) -> str:
    found = correlation.coefficient(side.failing) or 0.0
    why = (
        f"over {side.failing.samples} samples that share rises with the limit"
        f" (correlation {found:.2f}, above {correlation.THRESHOLD})"
        if correlation.is_harmful(side.failing)
        else f"for {side.lost_windows} seconds with as much memory as there may be"
    )
    return (
        f"growth stops: {100 * share:.0f} % of the fragments come to nothing, {why};"
        " an attack is likely, the memory for it is taken back"
    )
