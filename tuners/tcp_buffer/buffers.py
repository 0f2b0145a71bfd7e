# SPDX-License-Identifier: GPL-2.0-or-later
"""tcp_rmem and tcp_wmem: as large as the paths in use can fill.

Turns the probes' events into readings for one Regulator per direction; growth.py decides. A socket
that its buffer limit holds back shows the bytes it moves per round trip; the limit has to hold
twice that. What round trips take longer than the path itself needs, a quarter more allowed, is
queueing, which no buffer cures, so it does not count towards the need.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from bpftune.ipc.messages import Number, Outcome, Status
from bpftune.ipc.record import Event
from bpftune.tuners import growth, loan
from bpftune.tuners.base import Decision, Situation
from bpftune.tuners.evidence import Sample
from bpftune.tuners.growth import Limit, Reading, Regulator
from bpftune.tuners.loan import Loan, Terms

from .memory import pressure_pages

MODERATE_RCVBUF = "net.ipv4.tcp_moderate_rcvbuf"
MODERATION = Terms(tunables=(MODERATE_RCVBUF,), back="rcvbuf_moderation_done")

RECEIVE = Limit(
    tunable="net.ipv4.tcp_rmem",
    field=2,
    default_field=1,
    near="rcvbuf_near_limit",
    unpaid="rmem_growth_unpaid",
    delays="rmem_growth_delays",
    idle="rmem_growth_idle",
)
SEND = Limit(
    tunable="net.ipv4.tcp_wmem",
    field=2,
    default_field=1,
    near="sndbuf_near_limit",
    unpaid="wmem_growth_unpaid",
    delays="wmem_growth_delays",
    idle="wmem_growth_idle",
)

PATHS_PER_LIMIT = 16
"""The limit may hold this many bandwidth-delay products ..."""
LEAST_CEILING_BYTES = 6 << 20
"""... or tcp_rmem's classic maximum: Linux kernel Documentation/networking/ip-sysctl.rst, tcp_rmem."""

RATIO_ONE = 256
"""scaling_ratio of a buffer without overhead: Linux kernel commit dfa2f0483360 ("tcp: get rid of
sysctl_tcp_adv_win_scale") (in v6.6)."""
RATIO_ASSUMED = 128
RATIO_LEAST = 64

NO_RTT_US = 2**32 - 1
"""What struct minmax holds while nothing was measured."""

SHORT_OF_MEMORY = ("rmem_memory_short", "wmem_memory_short")


class Buffers(msgspec.Struct):
    receive: Regulator = msgspec.field(default_factory=Regulator)
    send: Regulator = msgspec.field(default_factory=Regulator)
    moderation: Loan = msgspec.field(default_factory=Loan)


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """One socket at one moment, whichever way its data goes."""

    rtt_us: int
    min_rtt_us: int
    bytes_per_rtt: int
    """At the smoothed RTT, queueing included."""
    ratio: int
    """Payload in 256 bytes of buffer."""

    @property
    def need_bytes(self) -> int:
        """Buffer for twice what the path itself takes per round trip."""
        unqueued_us = min(self.rtt_us, self.min_rtt_us + self.min_rtt_us // 4)
        return 2 * self.bytes_per_rtt * unqueued_us // self.rtt_us * RATIO_ONE // self.ratio

    @property
    def enough_bytes(self) -> int:
        """The same without any allowance for queueing; 0 where nothing tells the path from its queues."""
        if self.min_rtt_us == self.rtt_us:
            return 0
        return 2 * self.bandwidth_delay_bytes * RATIO_ONE // self.ratio

    @property
    def bandwidth_delay_bytes(self) -> int:
        return self.bytes_per_rtt * self.min_rtt_us // self.rtt_us


def react(event: Event, situation: Situation, state: Buffers, decision: Decision) -> None:
    """A socket was held back by its buffer."""
    if event.scenario == RECEIVE.near:
        reading = _reading(RECEIVE, event, _receiving(event), situation)
        growth.react(RECEIVE, reading, situation, state.receive, decision)
    else:
        reading = _reading(SEND, event, _sending(event), situation)
        growth.react(SEND, reading, situation, state.send, decision)


def take_back(
    numbers: Mapping[str, Number], situation: Situation, state: Buffers, decision: Decision
) -> None:
    """Memory is short: what sockets were given beyond the administrator's limits goes back, step by step."""
    for (limit, regulator), scenario in zip(_sides(state), SHORT_OF_MEMORY, strict=True):
        proposal = growth.step_back(limit, scenario, situation, regulator)
        if proposal is not None:
            decision.proposals.append(replace(proposal, evidence={**proposal.evidence, **numbers}))


def settle(outcome: Outcome, situation: Situation, state: Buffers, decision: Decision) -> None:
    for limit, regulator in _sides(state):
        if outcome.proposal.tunable == limit.tunable:
            growth.settle(limit, outcome, situation, regulator)
    if outcome.proposal.tunable in MODERATION.tunables:
        loan.settle(MODERATION, outcome, situation.now_ns, state.moderation)
    elif outcome.proposal.tunable == RECEIVE.tunable:
        if outcome.proposal.scenario == RECEIVE.near and outcome.status in (Status.APPLIED, Status.OBSERVED):
            _moderate(outcome, situation, state, decision)
        if outcome.status is Status.APPLIED:
            _unmoderate(situation, state, decision)


def expire(situation: Situation, state: Buffers, decision: Decision) -> None:
    for limit, regulator in _sides(state):
        growth.expire(limit, situation, regulator, decision)
    _unmoderate(situation, state, decision)


def due_ns(situation: Situation, state: Buffers) -> list[int | None]:
    sides = [growth.wake_ns(limit, situation, regulator) for limit, regulator in _sides(state)]
    return [*sides, _unmoderate_ns(situation, state)]


def _sides(state: Buffers) -> tuple[tuple[Limit, Regulator], ...]:
    return (RECEIVE, state.receive), (SEND, state.send)


def _receiving(event: Event) -> Flow:
    rtt_us = event["rcv_rtt_us"] or event["srtt_us"] or 1
    ratio = event["scaling_ratio"] or RATIO_ASSUMED
    return Flow(
        rtt_us=rtt_us,
        min_rtt_us=_least_rtt_us(event["min_rtt_us"], rtt_us),
        bytes_per_rtt=_per_rtt(event, rtt_us, event["space_bytes"]),
        ratio=max(RATIO_LEAST, ratio),
    )


def _sending(event: Event) -> Flow:
    rtt_us = event["srtt_us"] or 1
    window_bytes = event["snd_cwnd"] * event["mss_bytes"]
    most = window_bytes if event["interval_ns"] else min(window_bytes, event["queued_bytes"])
    return Flow(
        rtt_us=rtt_us,
        min_rtt_us=_least_rtt_us(event["min_rtt_us"], rtt_us),
        bytes_per_rtt=_per_rtt(event, rtt_us, most),
        ratio=RATIO_ASSUMED,
    )


def _least_rtt_us(measured_us: int, rtt_us: int) -> int:
    """The path's RTT without queues; where it was not measured, the smoothed one."""
    return min(measured_us, rtt_us) if 0 < measured_us < NO_RTT_US else rtt_us


def _per_rtt(event: Event, rtt_us: int, most: int) -> int:
    """Bytes per RTT: the measured rate if there is one yet, in no case more than the kernel's own count.

    Either is noisy upwards: the rate over few round trips, the kernel's count by being a maximum.
    """
    if not event["interval_ns"]:
        return most
    return min(most, event["moved_bytes"] * rtt_us * 1000 // event["interval_ns"])


def _reading(limit: Limit, event: Event, flow: Flow, situation: Situation) -> Reading:
    view = situation.tunables.get(limit.tunable)
    original = view.original[limit.field] if view is not None else 0
    return Reading(
        time_ns=event.time_ns,
        need=flow.need_bytes,
        enough=flow.enough_bytes,
        ceiling=max(original, PATHS_PER_LIMIT * flow.bandwidth_delay_bytes, LEAST_CEILING_BYTES),
        growable=event["allocated_pages"] < pressure_pages(situation),
        amount_per_round=flow.bandwidth_delay_bytes,
        sample=_sample(event, flow),
        rtt_us=flow.rtt_us,
        numbers=_numbers(event, flow),
    )


def _sample(event: Event, flow: Flow) -> Sample | None:
    if not event["interval_ns"]:
        return None
    return Sample(
        amount=event["moved_bytes"],
        rounds=event["interval_ns"] / (1000 * flow.min_rtt_us),
        start_ns=event.time_ns - event["interval_ns"],
        end_ns=event.time_ns,
    )


def _numbers(event: Event, flow: Flow) -> dict[str, Number]:
    return {
        **event.numbers,
        "rtt_us": flow.rtt_us,
        "bytes_per_rtt": flow.bytes_per_rtt,
        "bandwidth_delay_bytes": flow.bandwidth_delay_bytes,
        "need_bytes": flow.need_bytes,
        "suppressed": event.suppressed,
    }


def _moderate(outcome: Outcome, situation: Situation, state: Buffers, decision: Decision) -> None:
    """A raised limit means nothing to sockets that do not adjust themselves."""
    loan.borrow(
        MODERATION,
        situation,
        state.moderation,
        decision,
        value=1,
        scenario="rcvbuf_moderation_off",
        numbers={"rmem_max": outcome.current[RECEIVE.field]},
    )


def _unmoderate(situation: Situation, state: Buffers, decision: Decision) -> None:
    """Once the limit is the administrator's again, so is moderation."""
    if _is_raised(situation):
        return
    loan.ease(state.moderation, situation.now_ns)
    loan.give_back(MODERATION, situation, state.moderation, decision)


def _unmoderate_ns(situation: Situation, state: Buffers) -> int | None:
    return None if _is_raised(situation) else loan.due_ns(MODERATION, situation, state.moderation)


def _is_raised(situation: Situation) -> bool:
    limit = situation.tunables.get(RECEIVE.tunable)
    return limit is not None and limit.current != limit.original
