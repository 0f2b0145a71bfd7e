# SPDX-License-Identifier: GPL-2.0-or-later
"""tcp_mem: room for what all sockets hold together, and what to do where there is no more of it.

Memory is one for all namespaces, so tcp_mem and what else is global are remembered once, as a Pool. Each
namespace keeps to itself what it does about a shortage.
"""

from __future__ import annotations

from mmap import PAGESIZE

import msgspec
from msgspec.structs import replace

from bpftune.ipc.messages import Number, Outcome
from bpftune.ipc.record import Event
from bpftune.tuners import loan, shortage
from bpftune.tuners.base import Decision, Situation
from bpftune.tuners.loan import Loan, Terms
from bpftune.tuners.shortage import Limit, Shortage, take_turn
from bpftune.tuners.steps import grow, nearly_full

PRESSURE = Limit(
    tunable="net.ipv4.tcp_mem", short="memory_near_pressure", unpaid="", idle="memory_idle", metric=""
)
"""There is no metric to weigh: what room in memory is for is that nothing happens."""
EXHAUSTION = replace(PRESSURE, short="memory_near_exhaustion")

LARGE_PAGES = Terms(tunables=("net.core.high_order_alloc_disable",), back="large_pages_allowed")
METRICS = Terms(
    tunables=("net.ipv4.tcp_no_metrics_save", "net.ipv4.tcp_no_ssthresh_metrics_save"), back="metrics_saved"
)

PRESSURE_SHARE = 16
"""The kernel starts TCP memory pressure near a sixteenth of memory: tcp_init_mem() in
net/ipv4/tcp.c."""


class Pool(msgspec.Struct):
    """What is remembered about all of TCP's memory."""

    limits: Shortage = msgspec.field(default_factory=Shortage)
    large_pages: Loan = msgspec.field(default_factory=Loan)


def react(event: Event, situation: Situation, state: Pool, decision: Decision) -> None:
    """All sockets together came near a limit, or are far from them again."""
    match event.scenario:
        case PRESSURE.short:
            _make_room(PRESSURE, event, situation, state.limits, decision)
        case EXHAUSTION.short:
            _make_room(EXHAUSTION, event, situation, state.limits, decision)
            loan.borrow(
                LARGE_PAGES,
                situation,
                state.large_pages,
                decision,
                value=1,
                scenario="large_pages_avoided",
                numbers=numbers(event),
            )
        case LARGE_PAGES.back:
            loan.ease(state.large_pages, situation.now_ns)
            loan.give_back(LARGE_PAGES, situation, state.large_pages, decision)


def react_here(event: Event, situation: Situation, metrics: Loan, decision: Decision) -> None:
    """The same, as far as it concerns one namespace."""
    if event.scenario == METRICS.back:
        loan.ease(metrics, situation.now_ns)
        loan.give_back(METRICS, situation, metrics, decision)
    else:
        loan.borrow(
            METRICS, situation, metrics, decision, value=1, scenario=event.scenario, numbers=numbers(event)
        )


def may_grow(situation: Situation) -> bool:
    """Whether there can be more memory in all."""
    view = situation.adopted(PRESSURE.tunable)
    return view is not None and view.current[2] < view.cap[2]


def pressure_pages(situation: Situation) -> int:
    """Where the kernel begins to be sparing with memory for TCP."""
    view = situation.tunables.get(PRESSURE.tunable)
    return view.current[1] if view is not None else situation.memory_bytes // PAGESIZE // PRESSURE_SHARE


def is_short(event: Event, situation: Situation) -> bool:
    return nearly_full(event["allocated_pages"], pressure_pages(situation), situation.shift)


def numbers(event: Event) -> dict[str, Number]:
    least, pressure, most = event.vectors["tcp_mem"]
    limits = {"tcp_mem_min": least, "tcp_mem_pressure": pressure, "tcp_mem_max": most}
    return {**event.numbers, **limits, "suppressed": event.suppressed}


def settle(outcome: Outcome, now_ns: int, state: Pool) -> None:
    if outcome.proposal.tunable == PRESSURE.tunable:
        limit = EXHAUSTION if outcome.proposal.scenario == EXHAUSTION.short else PRESSURE
        shortage.settle(limit, outcome, now_ns, state.limits)
    elif outcome.proposal.tunable in LARGE_PAGES.tunables:
        loan.settle(LARGE_PAGES, outcome, now_ns, state.large_pages)


def settle_here(outcome: Outcome, now_ns: int, metrics: Loan) -> None:
    if outcome.proposal.tunable in METRICS.tunables:
        loan.settle(METRICS, outcome, now_ns, metrics)


def expire(situation: Situation, state: Pool, decision: Decision) -> None:
    shortage.expire(PRESSURE, situation, state.limits, decision)
    loan.give_back(LARGE_PAGES, situation, state.large_pages, decision)


def expire_here(situation: Situation, metrics: Loan, decision: Decision) -> None:
    loan.give_back(METRICS, situation, metrics, decision)


def due_ns(situation: Situation, state: Pool) -> list[int | None]:
    return [
        shortage.wake_ns(PRESSURE, situation, state.limits),
        loan.due_ns(LARGE_PAGES, situation, state.large_pages),
    ]


def due_here_ns(situation: Situation, metrics: Loan) -> list[int | None]:
    return [loan.due_ns(METRICS, situation, metrics)]


def _make_room(limit: Limit, event: Event, situation: Situation, state: Shortage, decision: Decision) -> None:
    """Raise all of tcp_mem so that the pages in use are near none of its limits."""
    turn = take_turn(limit, situation, state, decision)
    if turn is None or event.time_ns < state.evidence.changed_ns:
        return
    shortage.note_need(turn)
    pages, shift = event["allocated_pages"], situation.shift
    least, pressure, most = turn.view.current
    need = pages + pages // ((1 << shift) - 1) + 1
    if nearly_full(pages, pressure, shift):
        raised = max(grow(pressure, shift), need)
        in_proportion = most * raised // max(1, pressure)
        wanted = (
            least * raised // max(1, pressure),
            raised,
            max(grow(most, shift), min(in_proportion, 2 * need)),
        )
    else:
        wanted = (least, pressure, max(grow(most, shift), need))
    shortage.grow_to(turn, wanted, numbers(event))
