# SPDX-License-Identifier: GPL-2.0-or-later
"""One field of one tunable that grows on demand, and only as long as growing pays.

Policies whose limit is a size (a buffer, a queue) keep one Regulator per limit in their state and
pass it their readings; this decides between growing, holding, taking back and decaying. Pure, like
every policy: what it wants is added to the Decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from bpftune.ipc.messages import Number, Outcome, Proposal, Status, TunableView
from bpftune.tuners import correlation, evidence
from bpftune.tuners.base import Decision, Situation
from bpftune.tuners.correlation import Correlation
from bpftune.tuners.evidence import Evidence, Sample, Verdict
from bpftune.tuners.steps import grow, shrink

REFUSED_PAUSE_NS = 1_000_000_000
STEP_BACK_NS = 1_000_000_000

HELD = 1.75
STRIDE = 3
"""A need of nearly twice the limit means that the limit is all that the event can show. The step is wider
then, for a connection that sits at its limit is slow to notice that there is room again: the kernel
grows a receive buffer only when more arrives per round trip than ever before."""


class Regulator(msgspec.Struct):
    """What is remembered about one limit in one namespace."""

    evidence: Evidence = msgspec.field(default_factory=Evidence)
    rtt: Correlation = msgspec.field(default_factory=Correlation)
    round_ns: int = 0
    observed: int = 0
    """Largest value that --dry-run kept from being written."""
    at_cap: bool = False
    paused_until_ns: int = 0
    held_until_ns: int = 0
    """After a step back for a reason of the policy's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Which field, and under which scenarios it moves."""

    tunable: str
    field: int
    default_field: int | None = None
    """The limit never goes below this field of the same tunable."""
    near: str
    unpaid: str
    delays: str = ""
    """Empty: nothing is known that could get worse."""
    idle: str
    metric: str = "amount per round trip"
    """What a growth has to raise; for a limit that loses things where it binds, the time per loss."""
    cost: str = "round trip time"
    """What must not rise with the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One event, in terms of the limit."""

    time_ns: int
    need: int
    """The value at which the limit would stop to bind."""
    enough: int
    """Up to here growing is right even if delays grow with it."""
    ceiling: int
    """The policy's own cap, beside the declared one."""
    growable: bool
    """False: growing is out of the question now, whatever the need."""
    amount_per_round: float
    sample: Sample | None
    rtt_us: int
    """0 where there is none."""
    numbers: Mapping[str, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """All that one decision about one limit is made of."""

    limit: Limit
    view: TunableView
    situation: Situation
    state: Regulator
    decision: Decision

    @property
    def current(self) -> int:
        return self.view.current[self.limit.field]

    @property
    def lowest(self) -> int:
        original = self.view.original[self.limit.field]
        if self.limit.default_field is None:
            return original
        return max(original, self.view.current[self.limit.default_field])

    @property
    def at_rest(self) -> bool:
        return self.current <= self.lowest and not self.state.evidence.frozen

    @property
    def came_to_cap(self) -> bool:
        """By a growth, of which the supervisor has told."""
        return self.view.original[self.limit.field] < self.current == self.view.cap[self.limit.field]

    @property
    def idle_ns(self) -> int:
        """State may have been lost with a grown limit left behind: then the idle period begins now."""
        if self.state.evidence.near_ns == 0:
            self.state.evidence.near_ns = self.situation.now_ns
        return evidence.idle_ns(self.state.evidence)

    def propose(self, new: int, scenario: str, numbers: Mapping[str, Number]) -> None:
        field = self.limit.field
        value = (*self.view.current[:field], new, *self.view.current[field + 1 :])
        proposal = self.situation.propose(self.limit.tunable, value, scenario, numbers)
        self.decision.proposals.append(proposal)

    def note(self, scenario: str, text: str) -> None:
        self.decision.notes.append(self.situation.note(self.limit.tunable, scenario, text))


def react(limit: Limit, reading: Reading, situation: Situation, state: Regulator, decision: Decision) -> None:
    """Take one reading in and propose at most one change of the limit."""
    turn = _turn(limit, situation, state, decision)
    if turn is None or reading.time_ns < state.evidence.changed_ns:
        return
    state.evidence.near_ns = max(state.evidence.near_ns, situation.now_ns)
    state.round_ns = reading.rtt_us * 1000
    if reading.rtt_us:
        correlation.add(state.rtt, turn.current, reading.rtt_us)
    if reading.sample is None:
        evidence.estimate(state.evidence, reading.amount_per_round)
    elif evidence.observe(state.evidence, reading.sample):
        _judge(turn, reading)
    _grow(turn, reading)


def weigh(limit: Limit, cost: float, situation: Situation, state: Regulator, decision: Decision) -> None:
    """Take in what the limit costs at the moment, where that is no RTT, and step back if it costs more
    the higher it is."""
    turn = _turn(limit, situation, state, decision)
    if turn is None:
        return
    correlation.add(state.rtt, turn.current, cost)
    is_paused = situation.now_ns < state.paused_until_ns
    if turn.current > turn.lowest and not is_paused and correlation.is_harmful(state.rtt):
        _retreat(turn)


def step_back(limit: Limit, scenario: str, situation: Situation, state: Regulator) -> Proposal | None:
    """A step down for a reason of the policy's own; growth stops for a while.

    The policy itself knows how long the reason lasts, see Reading.growable; growing again as soon as it is
    gone would have the limit swing with it.

    None while there is nothing to take back, or while the last step may not have shown yet.
    """
    turn = _turn(limit, situation, state, Decision())
    wait_until_ns = max(state.evidence.changed_ns + STEP_BACK_NS, state.paused_until_ns)
    if turn is None or turn.current <= turn.lowest or situation.now_ns < wait_until_ns:
        return None
    _lower(turn, scenario, shrink(turn.current, situation.shift))
    state.held_until_ns = situation.now_ns + evidence.IDLE_NS
    return turn.decision.proposals[0]


def settle(limit: Limit, outcome: Outcome, situation: Situation, state: Regulator) -> None:
    """A proposal for this limit was decided on."""
    proposal = outcome.proposal
    if proposal.scenario == limit.idle and outcome.status is not Status.APPLIED:
        state.evidence.near_ns = situation.now_ns
    elif outcome.status is Status.OBSERVED and proposal.scenario == limit.near:
        state.observed = max(state.observed, proposal.new[limit.field])
    elif outcome.status is Status.APPLIED:
        _applied(limit, outcome, situation.now_ns, state)
    elif outcome.status is not Status.STALE:
        state.paused_until_ns = situation.now_ns + REFUSED_PAUSE_NS


def expire(limit: Limit, situation: Situation, state: Regulator, decision: Decision) -> None:
    """Act on what is due: an unjudged growth that nobody needs any more, a step of idle decay."""
    turn = _turn(limit, situation, state, decision)
    if turn is None:
        return
    if situation.now_ns >= evidence.quiet_ns(state.evidence, state.round_ns):
        evidence.settle_quiet(state.evidence)
    if turn.at_rest or situation.now_ns < turn.idle_ns:
        return
    if turn.current > turn.lowest:
        _lower(turn, limit.idle, shrink(turn.current, situation.shift))
    else:
        evidence.thaw(state.evidence)


def wake_ns(limit: Limit, situation: Situation, state: Regulator) -> int | None:
    """When `expire` has something to do next; None: nothing to wait for."""
    turn = _turn(limit, situation, state, Decision())
    if turn is None or turn.at_rest:
        return None
    due_ns = max(turn.idle_ns, state.paused_until_ns)
    if state.evidence.verdict is Verdict.OPEN:
        due_ns = min(due_ns, evidence.quiet_ns(state.evidence, state.round_ns))
    return due_ns


def _turn(limit: Limit, situation: Situation, state: Regulator, decision: Decision) -> _Turn | None:
    """None where the limit does not exist or is the administrator's."""
    view = situation.adopted(limit.tunable)
    if view is None:
        return None
    return _Turn(limit=limit, view=view, situation=situation, state=state, decision=decision)


def _judge(turn: _Turn, reading: Reading) -> None:
    """After a complete window: growth that has not paid, or has raised delays, ends with a step back."""
    seen, rtt = turn.state.evidence, turn.state.rtt
    evidence.judge(seen)
    if evidence.has_stopped_paying(seen):
        turn.note(turn.limit.unpaid, _unpaid_text(turn.limit, seen))
        _lower(turn, turn.limit.unpaid, seen.previous)
        evidence.freeze(seen)
    elif not seen.frozen and turn.current > reading.enough and correlation.is_harmful(rtt):
        _retreat(turn)


def _retreat(turn: _Turn) -> None:
    """The limit costs more than it brings."""
    if not turn.state.evidence.frozen:
        turn.note(turn.limit.delays, _delays_text(turn.limit, turn.state.rtt))
    _lower(turn, turn.limit.delays, shrink(turn.current, turn.situation.shift))
    evidence.freeze(turn.state.evidence)


def _grow(turn: _Turn, reading: Reading) -> None:
    state, current = turn.state, turn.current
    blocked = (
        state.evidence.frozen
        or state.evidence.verdict is Verdict.OPEN
        or turn.situation.now_ns < max(state.paused_until_ns, state.held_until_ns)
    )
    if blocked or not reading.growable or reading.need <= current:
        return
    ceiling = min(reading.ceiling, turn.view.cap[turn.limit.field])
    held = min(reading.need, reading.enough or reading.need) >= HELD * current
    step = STRIDE * current if held else grow(current, turn.situation.shift)
    new = min(max(step, reading.need), 2 * reading.need, ceiling)
    if new > max(current, state.observed):
        turn.propose(new, turn.limit.near, reading.numbers)
    elif ceiling <= current and not state.at_cap and not turn.came_to_cap:
        state.at_cap = True
        text = f"{current} is as far as it may go; {reading.need} would be needed"
        turn.note(turn.limit.near, text)


def _lower(turn: _Turn, scenario: str, wanted: int) -> None:
    """Propose `wanted`, in no case below the original or the default field."""
    new = max(wanted, turn.lowest)
    if new < turn.current:
        turn.propose(new, scenario, _history(turn.state, turn.situation.now_ns))


def _applied(limit: Limit, outcome: Outcome, now_ns: int, state: Regulator) -> None:
    proposal = outcome.proposal
    if proposal.scenario == limit.near:
        evidence.record_growth(state.evidence, previous=proposal.expected[limit.field], now_ns=now_ns)
        return
    state.at_cap = False
    state.rtt = Correlation()
    if proposal.scenario == limit.idle:
        evidence.record_decay(state.evidence, now_ns=now_ns)
    else:
        evidence.record_shrink(state.evidence, now_ns=now_ns)


def _history(state: Regulator, now_ns: int) -> dict[str, Number]:
    seen = state.evidence
    numbers: dict[str, Number] = {
        "amount_per_round": round(seen.level),
        "amount_per_round_before": round(seen.before),
        "idle_s": evidence.idle_s(seen, now_ns),
    }
    found = correlation.coefficient(state.rtt)
    return numbers if found is None else {**numbers, "correlation": round(found, 3)}


def _unpaid_text(limit: Limit, seen: Evidence) -> str:
    first, second = (f"{100 * value:+.1f} %" for value in seen.unpaid[-2:])
    return (
        f"growth stops: the last two steps changed the {limit.metric} by {first} and {second},"
        f" less than the {100 * evidence.MIN_GAIN:.0f} % each has to bring; the last one is taken back"
    )


def _delays_text(limit: Limit, rtt: Correlation) -> str:
    found = correlation.coefficient(rtt) or 0.0
    return (
        f"growth stops: over {rtt.samples} samples the {limit.cost} rises with the limit"
        f" (correlation {found:.2f}, above {correlation.THRESHOLD}); the limit goes one step back"
    )
