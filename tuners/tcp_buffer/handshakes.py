# SPDX-License-Identifier: GPL-2.0-or-later
"""tcp_max_syn_backlog and tcp_syncookies: room for handshakes that come in at once, none for floods.

A hook tells that a SYN queue is full. What was refused there, and what came about meanwhile, is read from
the kernel's own counters, which go with the event. The kernel looks at the backlog while cookies are off.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bpftune.ipc.messages import Number, Outcome, Status
from bpftune.ipc.record import Event
from bpftune.tuners import flood, loan, shortage
from bpftune.tuners.base import Decision, Situation
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.flood import Flood, Nature
from bpftune.tuners.loan import Loan, Terms
from bpftune.tuners.shortage import Limit, Shortage, Turn, take_turn
from bpftune.tuners.steps import grow, shrink

from .memory import is_short

BACKLOG = Limit(
    tunable="net.ipv4.tcp_max_syn_backlog",
    short="syn_queue_full",
    unpaid="syn_backlog_unpaid",
    idle="syn_backlog_idle",
    metric="connections that come about per handshake refused",
)
FLOOD = "syn_flood"
FLOODED = Terms(tunables=(BACKLOG.tunable,), back="syn_flood_over")
LEAST_BACKLOG = 128

COOKIES = Terms(tunables=("net.ipv4.tcp_syncookies",), back="syncookies_restored")
USELESS_COOKIES = 1024
"""Failed without a single good one."""
COUNTERS = frozenset(
    {
        "listen_drops",
        "listen_overflows",
        "queue_full_drops",
        "cookies_failed",
        "cookies_good",
        "passive_opens",
    }
)
OWN_LIMIT_TEXT = (
    "handshakes are refused by listeners whose own limit, the second argument of listen(2) or"
    " net.core.somaxconn, is lower; a larger backlog would not help them"
)
SPELL_NS = 60_000_000_000
"""What was counted longer ago belongs to something else."""


class Handshakes(msgspec.Struct):
    """What is remembered about the listeners of one namespace."""

    counters: dict[str, int] = {}
    """As last read; empty: not yet."""
    counted_ns: int = 0
    flood: Flood = msgspec.field(default_factory=Flood)
    backlog: Shortage = msgspec.field(default_factory=Shortage)
    lowered: Loan = msgspec.field(default_factory=Loan)
    left: int = 0
    """The backlog that was given up for the original last: a flood does not lower it to that again."""
    own_limit_told: bool = False
    cookies: Loan = msgspec.field(default_factory=Loan)
    cookies_failed: int = 0
    cookies_good: int = 0
    short_ns: int = 0
    """When a queue was full last while memory was short; 0: never."""


def react(event: Event, situation: Situation, state: Handshakes, decision: Decision) -> None:
    """A SYN queue is full, or was a moment ago."""
    counted = _count(situation, state)
    if counted is None:
        return
    state.cookies_failed += counted.cookies_failed
    state.cookies_good += counted.cookies_good
    is_short_now = is_short(event, situation)
    if is_short_now:
        state.short_ns = situation.now_ns
    if _cookies(situation):
        _weigh_cookies(event, situation, state, decision)
    elif counted.refused and is_short_now:
        loan.borrow(
            COOKIES,
            situation,
            state.cookies,
            decision,
            value=1,
            scenario="syncookies_needed",
            numbers={**event.numbers, "refused": counted.refused},
        )
    elif counted.refused:
        _weigh_backlog(event, counted, situation, state, decision)
    elif not counted.unaccepted:
        _credit(counted, state)


def settle(outcome: Outcome, now_ns: int, state: Handshakes) -> None:
    proposal = outcome.proposal
    if proposal.tunable in COOKIES.tunables:
        loan.settle(COOKIES, outcome, now_ns, state.cookies)
    elif proposal.tunable == BACKLOG.tunable:
        shortage.settle(BACKLOG, outcome, now_ns, state.backlog)
    if proposal.scenario in (FLOOD, FLOODED.back):
        loan.settle(FLOODED, outcome, now_ns, state.lowered)
        if proposal.scenario == FLOODED.back and outcome.status is Status.APPLIED:
            state.left = proposal.expected[0]


def expire(situation: Situation, state: Handshakes, decision: Decision) -> None:
    shortage.expire(BACKLOG, situation, state.backlog, decision)
    for terms, borrowed in _loans(situation, state):
        loan.give_back(terms, situation, borrowed, decision)


def due_ns(situation: Situation, state: Handshakes) -> list[int | None]:
    loans = [loan.due_ns(terms, situation, borrowed) for terms, borrowed in _loans(situation, state)]
    return [shortage.wake_ns(BACKLOG, situation, state.backlog), *loans]


def _loans(situation: Situation, state: Handshakes) -> list[tuple[Terms, Loan]]:
    """A backlog below the original is one that a flood lowered; above it, it has grown."""
    backlog = situation.tunables.get(BACKLOG.tunable)
    is_lowered = backlog is not None and backlog.current < backlog.original
    return [(COOKIES, state.cookies), *([(FLOODED, state.lowered)] if is_lowered else [])]


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel counted in a namespace between two events."""

    since_ns: int
    refused: int
    """Handshakes for lack of room in a SYN queue ..."""
    refused_by_listener: int
    """... of these the ones that the application's own listen(2) limit left no room for."""
    unaccepted: int
    """Connections that the application was too slow for."""
    served: int
    cookies_failed: int
    cookies_good: int


def _count(situation: Situation, state: Handshakes) -> Counted | None:
    """None the first time, the first time after a while, and where the kernel does not count."""
    before, now = state.counters, dict(situation.counters)
    since_ns = state.counted_ns
    state.counters, state.counted_ns = now, situation.now_ns
    if situation.now_ns - since_ns > SPELL_NS:
        state.cookies_failed = state.cookies_good = 0
        return None
    if not before or now.keys() != before.keys() or not now.keys() >= COUNTERS:
        return None
    risen = {name: max(0, now[name] - before[name]) for name in now}
    return Counted(
        since_ns=since_ns,
        # The kernel counts a connection that it cannot hand to the application among both.
        refused=max(0, risen["listen_drops"] - risen["listen_overflows"]),
        refused_by_listener=risen["queue_full_drops"],
        unaccepted=risen["listen_overflows"],
        served=risen["passive_opens"],
        cookies_failed=risen["cookies_failed"],
        cookies_good=risen["cookies_good"],
    )


def _cookies(situation: Situation) -> int:
    """0: off, also in kernels built without; 1: when a queue is full; 2: always, to try them out."""
    view = situation.tunables.get(COOKIES.tunables[0])
    return view.current[0] if view is not None else 0


def _weigh_cookies(event: Event, situation: Situation, state: Handshakes, decision: Decision) -> None:
    """Cookies are on: without them the backlog would count, with them it does not.

    Memory that is short now and then would have them switched with it, so they stay for a while.
    """
    if _cookies(situation) != 1:
        return
    save_memory = state.short_ns > 0 and situation.now_ns - state.short_ns < IDLE_NS
    if state.cookies_failed >= USELESS_COOKIES and not state.cookies_good and not save_memory:
        loan.borrow(
            COOKIES,
            situation,
            state.cookies,
            decision,
            value=0,
            scenario="syncookies_useless",
            numbers={**event.numbers, "cookies_failed": state.cookies_failed, "cookies_good": 0},
        )
    else:
        loan.still(state.cookies, situation.now_ns)


def _credit(counted: Counted, state: Handshakes) -> None:
    """A handshake takes a round trip: what came about after the last refusal belongs to it."""
    state.flood.served += counted.served
    if counted.since_ns >= state.backlog.evidence.changed_ns:
        state.backlog.tally.successes += counted.served


def _weigh_backlog(
    event: Event, counted: Counted, situation: Situation, state: Handshakes, decision: Decision
) -> None:
    """Handshakes were refused: of a load that is served, or of a flood."""
    loan.still(state.cookies, situation.now_ns)
    loan.still(state.lowered, situation.now_ns)
    turn = take_turn(BACKLOG, situation, state.backlog, decision)
    if turn is None or counted.unaccepted:
        return  # or it is the application that is slow: neither
    shortage.note_need(turn)
    by_backlog = counted.refused - counted.refused_by_listener
    stops = shortage.weigh(
        turn, successes=counted.served, failures=max(0, by_backlog), start_ns=counted.since_ns
    )
    found = flood.observe(
        state.flood,
        turned_away=counted.refused,
        served=counted.served,
        start_ns=counted.since_ns,
        now_ns=situation.now_ns,
    )
    if found is None or stops:
        return
    numbers = {
        **event.numbers,
        "refused": found.turned_away,
        "established": found.served,
        "correlation": round(found.coefficient, 3),
    }
    if found.nature is Nature.FLOOD:
        _lower_backlog(turn, state, numbers)
    elif by_backlog > 0:
        shortage.grow_to(turn, (grow(turn.view.current[0], situation.shift),), numbers)
    elif not state.own_limit_told:
        state.own_limit_told = True
        turn.note(BACKLOG.short, OWN_LIMIT_TEXT)


def _lower_backlog(turn: Turn, state: Handshakes, numbers: Mapping[str, Number]) -> None:
    current, shift = turn.view.current[0], turn.situation.shift
    new = max(LEAST_BACKLOG, shrink(current, shift))
    if new == state.left:
        new = max(LEAST_BACKLOG, shrink(new, shift))
    if new < current and new != state.left:
        loan.borrow(
            FLOODED,
            turn.situation,
            state.lowered,
            turn.decision,
            value=new,
            scenario=FLOOD,
            numbers=numbers,
        )
