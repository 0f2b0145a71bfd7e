# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes net.core.rmem_max, rmem_default and net.ipv4.udp_mem by the datagrams that are lost for lack of them.

A socket keeps the buffer it was made with, so only sockets made after a growth can say what the growth
bought: those whose buffer is larger than the value before it. Older ones go on losing datagrams, which
keeps the growth from counting as idle, and no more than that. All three tunables are global, but loads
differ: one namespace at a time is the witness, growth is for it and judged by it, and one whose readers
no growth helps is not listened to any more.
"""

from __future__ import annotations

import msgspec

from bpftune.ipc.messages import Number, Outcome
from bpftune.ipc.record import Event
from bpftune.tuners.base import Decision, Policy, Situation
from bpftune.tuners.evidence import IDLE_NS, thaw
from bpftune.tuners.shortage import (
    Limit,
    Shortage,
    Tally,
    Turn,
    expire,
    grow_to,
    note_need,
    settle,
    take_turn,
    wake_ns,
    weigh,
)
from bpftune.tuners.steps import grow, nearly_full

METRIC = "datagrams received per datagram lost"

HANDOVER_NS = 10_000_000_000
"""After that long without a word from the witness another namespace may take its place."""


MOST_HOPELESS = 64


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    limit: Limit
    bytes_per_unit: int
    """Of sk_rcvbuf, for 1 of the tunable."""


SIZED = Kind(
    limit=Limit(
        tunable="net.core.rmem_max",
        short="sized_buffer_full",
        unpaid="rmem_max_unpaid",
        idle="rmem_max_idle",
        metric=METRIC,
    ),
    # sock_setsockopt() doubles what is asked for, see SO_RCVBUF in socket(7).
    bytes_per_unit=2,
)
DEFAULT = Kind(
    limit=Limit(
        tunable="net.core.rmem_default",
        short="default_buffer_full",
        unpaid="rmem_default_unpaid",
        idle="rmem_default_idle",
        metric=METRIC,
    ),
    bytes_per_unit=1,
)
MEMORY = Limit(
    tunable="net.ipv4.udp_mem",
    short="udp_memory_full",
    unpaid="udp_mem_unpaid",
    idle="udp_mem_idle",
    metric=METRIC,
)


class Account(msgspec.Struct):
    """One tunable's history."""

    shortage: Shortage = msgspec.field(default_factory=Shortage)
    witness: int = 0
    """Cookie of the namespace whose sockets are the evidence."""
    witness_ns: int = 0
    """When it was last heard."""
    hopeless: dict[int, int] = {}
    """Namespaces that growth did not help, and until when they are to be quiet to be heard again."""
    told_ns: int = -1
    """The growth about which it was said that older sockets do not profit."""


class UdpBufferState(msgspec.Struct):
    sized: Account = msgspec.field(default_factory=Account)
    default: Account = msgspec.field(default_factory=Account)
    memory: Account = msgspec.field(default_factory=Account)


class UdpBuffer(Policy[UdpBufferState]):
    State = UdpBufferState

    def on_event(self, event: Event, situation: Situation, state: UdpBufferState) -> Decision:
        decision = Decision()
        for kind, account in ((SIZED, state.sized), (DEFAULT, state.default)):
            turn = take_turn(kind.limit, situation, account.shortage, decision)
            if turn is not None and event.scenario == kind.limit.short:
                _buffer_full(kind, event, turn, account)
        turn = take_turn(MEMORY, situation, state.memory.shortage, decision)
        if turn is not None and event.scenario == MEMORY.short:
            _memory_full(event, turn, state.memory)
        return _with_wake(decision, situation, state)

    def on_outcome(self, outcome: Outcome, situation: Situation, state: UdpBufferState) -> Decision:
        for limit, account in _accounts(state):
            if outcome.proposal.tunable == limit.tunable:
                settle(limit, outcome, situation.now_ns, account.shortage)
        return _with_wake(Decision(), situation, state)

    def on_timer(self, situation: Situation, state: UdpBufferState) -> Decision:
        decision = Decision()
        for limit, account in _accounts(state):
            expire(limit, situation, account.shortage, decision)
        return _with_wake(decision, situation, state)


def _accounts(state: UdpBufferState) -> tuple[tuple[Limit, Account], ...]:
    return (SIZED.limit, state.sized), (DEFAULT.limit, state.default), (MEMORY, state.memory)


def _with_wake(decision: Decision, situation: Situation, state: UdpBufferState) -> Decision:
    due = [wake_ns(limit, situation, account.shortage) for limit, account in _accounts(state)]
    decision.wake_at_ns = min((at_ns for at_ns in due if at_ns is not None), default=None)
    return decision


def _buffer_full(kind: Kind, event: Event, turn: Turn, account: Account) -> None:
    current, outgrown = turn.view.current[0], _outgrown(turn)
    made_with = event["sk_rcvbuf"] // kind.bytes_per_unit
    binding = outgrown if made_with <= outgrown else current
    if made_with > binding or not nearly_full(made_with, binding, turn.situation.shift):
        return  # a size of the application's own, or of another time: the limit did not bind
    if _is_hopeless(event, turn, account):
        return
    note_need(turn)
    if made_with <= outgrown:
        _tell_of_older_sockets(turn, account)
    elif _testifies(event, turn, account) and not _weigh(event, turn, account):
        need = (event["sk_rcvbuf"] + event["burst_bytes"]) // kind.bytes_per_unit
        wanted = max(need, grow(current, turn.situation.shift))
        grow_to(turn, (wanted,), _numbers(event, need=need))


def _memory_full(event: Event, turn: Turn, account: Account) -> None:
    """Sockets take part in the memory that there is now: old or new makes no difference."""
    if _is_hopeless(event, turn, account):
        return
    note_need(turn)
    if _testifies(event, turn, account) and not _weigh(event, turn, account):
        wanted = tuple(grow(pages, turn.situation.shift) for pages in turn.view.current)
        grow_to(turn, wanted, _numbers(event))


def _outgrown(turn: Turn) -> int:
    """The value up to which a buffer is older than the newest growth."""
    previous = turn.state.previous
    return previous[0] if previous and previous[0] < turn.view.current[0] else 0


def _is_hopeless(event: Event, turn: Turn, account: Account) -> bool:
    """Whether growth was tried for the event's namespace in vain, and it has not been quiet since."""
    now_ns = turn.situation.now_ns
    if now_ns >= account.hopeless.get(event.netns_cookie, now_ns):
        account.hopeless.pop(event.netns_cookie, None)
        return False
    account.hopeless[event.netns_cookie] = now_ns + IDLE_NS
    return True


def _testifies(event: Event, turn: Turn, account: Account) -> bool:
    """Whether the event's namespace is the one to listen to; it becomes that when the last one is quiet."""
    now_ns = turn.situation.now_ns
    if event.netns_cookie != account.witness:
        if account.witness and now_ns - account.witness_ns < HANDOVER_NS:
            return False
        account.witness = event.netns_cookie
        # What did not pay for another one may for this one: growth need not pause before it goes further.
        turn.state.swung = True
        turn.state.tally = Tally()
        turn.state.evidence.level = 0.0
        turn.state.evidence.before = 0.0
    account.witness_ns = now_ns
    return True


def _weigh(event: Event, turn: Turn, account: Account) -> bool:
    """True when growth ends for this namespace; for others it may go on."""
    start_ns = event.time_ns - event["interval_ns"]
    if not weigh(turn, successes=event["received"], failures=event["drops"], start_ns=start_ns):
        return False
    thaw(turn.state.evidence)
    account.witness = 0
    account.hopeless[event.netns_cookie] = turn.situation.now_ns + IDLE_NS
    if len(account.hopeless) > MOST_HOPELESS:
        del account.hopeless[next(iter(account.hopeless))]
    return True


def _tell_of_older_sockets(turn: Turn, account: Account) -> None:
    if account.told_ns != turn.state.evidence.changed_ns:
        account.told_ns = turn.state.evidence.changed_ns
        turn.note(
            turn.limit.short,
            f"sockets made before it became {turn.view.current[0]} still lose datagrams:"
            " they keep their buffers until their application opens them again",
        )


def _numbers(event: Event, **more: Number) -> dict[str, Number]:
    lost = event["drops"] / max(1, event["drops"] + event["received"])
    return {**event.numbers, **more, "lost_share": round(lost, 4), "suppressed": event.suppressed}
