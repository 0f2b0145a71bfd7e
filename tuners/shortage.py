# SPDX-License-Identifier: GPL-2.0-or-later
"""One tunable that grows because things fail for lack of it, and only as long as that makes fewer fail.

Policies whose metric is how many succeed per failure keep one Shortage per tunable in their state.
They say what they counted and how large the tunable should be; this decides between growing, holding,
taking back and decaying, for all fields of the tunable at once. Pure, like every policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from bpftune.ipc.messages import Number, Outcome, Status, TunableView, Value
from bpftune.tuners import evidence
from bpftune.tuners.base import Decision, Situation
from bpftune.tuners.evidence import Evidence, Verdict
from bpftune.tuners.steps import grow, shrink

ENOUGH_FAILURES = 1000
"""What a verdict is based on: chance moves such a count by 3 %, which is less than the gain that counts.
A growth that prevents nearly all failures is judged by those that would have happened without it."""
ENOUGH_NS = 1_000_000_000
ROUGH_FAILURES = 100
"""What a first growth, which does not wait for a verdict, is compared with."""

REFUSED_PAUSE_NS = 60_000_000_000


class Tally(msgspec.Struct):
    """What was counted since the newest change or verdict."""

    successes: int = 0
    failures: int = 0
    start_ns: int = 0


class Shortage(msgspec.Struct):
    """What is remembered about one tunable."""

    evidence: Evidence = msgspec.field(default_factory=Evidence)
    tally: Tally = msgspec.field(default_factory=Tally)
    previous: Value = ()
    """The value before the newest growth; empty when that was undone or has decayed."""
    undone: Value = ()
    """The value that the newest change took back, other than for lack of need: to go straight back there is
    to swing."""
    swung: bool = False
    """It was wanted again, and refused."""
    observed: Value = ()
    """The largest value that --dry-run kept from being written."""
    at_cap: bool = False
    paused_until_ns: int = 0


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """Which tunable, under which scenarios it moves, and what is counted."""

    tunable: str
    short: str
    unpaid: str
    idle: str
    metric: str
    """Successes per failure, in words; empty where nothing is weighed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """All that one decision about one tunable is made of."""

    limit: Limit
    view: TunableView
    situation: Situation
    state: Shortage
    decision: Decision

    @property
    def is_grown(self) -> bool:
        return any(now > first for now, first in zip(self.view.current, self.view.original, strict=True))

    @property
    def is_at_rest(self) -> bool:
        return not self.is_grown and not self.state.evidence.frozen

    @property
    def is_at_cap(self) -> bool:
        return all(now >= cap for now, cap in zip(self.view.current, self.view.cap, strict=True))

    @property
    def idle_ns(self) -> int:
        """State may have been lost with a grown limit left behind: then the idle period begins now."""
        if self.state.evidence.near_ns == 0:
            self.state.evidence.near_ns = self.situation.now_ns
        return max(evidence.idle_ns(self.state.evidence), self.state.paused_until_ns)

    def propose(self, new: Value, scenario: str, numbers: Mapping[str, Number]) -> None:
        self.decision.proposals.append(
            self.situation.propose(self.limit.tunable, new, scenario, {**numbers, **_history(self)})
        )

    def note(self, scenario: str, text: str) -> None:
        self.decision.notes.append(self.situation.note(self.limit.tunable, scenario, text))


def take_turn(limit: Limit, situation: Situation, state: Shortage, decision: Decision) -> Turn | None:
    """None where the tunable does not exist or is the administrator's."""
    view = situation.adopted(limit.tunable)
    if view is None:
        return None
    return Turn(limit=limit, view=view, situation=situation, state=state, decision=decision)


def note_need(turn: Turn) -> None:
    """The tunable binds now, so that nothing of it is idle."""
    turn.state.evidence.near_ns = max(turn.state.evidence.near_ns, turn.situation.now_ns)


def weigh(turn: Turn, *, successes: int, failures: int, start_ns: int) -> bool:
    """Take in what was counted since `start_ns`. True when growth ends here, for two steps did not pay,
    or the one to the cap did not.

    What began under an older value is ignored.
    """
    seen, tally = turn.state.evidence, turn.state.tally
    if start_ns < seen.changed_ns:
        return False
    tally.start_ns = tally.start_ns or start_ns
    tally.successes += successes
    tally.failures += failures
    if not _is_enough(turn):
        return False
    seen.level = _level(tally)
    seen.windows = evidence.PATIENCE
    turn.state.tally = Tally()
    if evidence.judge(seen) is not Verdict.UNPAID:
        return False
    if not evidence.has_stopped_paying(seen) and not turn.is_at_cap:
        return False
    turn.note(turn.limit.unpaid, _unpaid_text(turn))
    lower(turn, turn.state.previous or turn.view.current, turn.limit.unpaid)
    evidence.freeze(seen)
    return True


def grow_to(turn: Turn, wanted: Value, numbers: Mapping[str, Number]) -> None:
    """Propose `wanted` as far as the cap allows, unless growth is stopped.

    While things fail, the newest growth has to be judged before the next.
    """
    seen, state, current = turn.state.evidence, turn.state, turn.view.current
    unjudged = seen.verdict is Verdict.OPEN and state.tally.failures > 0
    if seen.frozen or unjudged or turn.situation.now_ns < state.paused_until_ns:
        return
    caps = zip(current, wanted, turn.view.cap, strict=True)
    new = tuple(max(now, min(want, cap)) for now, want, cap in caps)
    if new == current:
        _note_cap(turn, wanted)
    elif new == state.undone:
        _stop_swinging(turn, numbers)
    elif _exceeds(new, state.observed):
        turn.propose(new, turn.limit.short, numbers)


def lower(turn: Turn, wanted: Value, scenario: str) -> None:
    """Propose `wanted`, in no field below the original nor above what holds now."""
    fields = zip(turn.view.current, turn.view.original, wanted, strict=True)
    new = tuple(min(now, max(first, want)) for now, first, want in fields)
    if new != turn.view.current:
        turn.propose(new, scenario, {})


def settle(limit: Limit, outcome: Outcome, now_ns: int, state: Shortage) -> None:
    """A proposal for this tunable was decided on."""
    is_growth = outcome.proposal.scenario == limit.short
    if outcome.status is Status.APPLIED:
        _applied(limit, outcome, now_ns, state)
    elif outcome.status is Status.OBSERVED and is_growth:
        state.observed = outcome.proposal.new
    elif not (outcome.status is Status.STALE and is_growth):
        state.paused_until_ns = now_ns + REFUSED_PAUSE_NS


def expire(limit: Limit, situation: Situation, state: Shortage, decision: Decision) -> None:
    """A tunable that was not needed for a while takes a step back to what it was."""
    turn = take_turn(limit, situation, state, decision)
    if turn is None or turn.is_at_rest or situation.now_ns < turn.idle_ns:
        return
    if turn.is_grown:
        lower(turn, tuple(shrink(now, situation.shift) for now in turn.view.current), limit.idle)
    else:
        evidence.thaw(state.evidence)


def wake_ns(limit: Limit, situation: Situation, state: Shortage) -> int | None:
    """When `expire` has something to do next; None: nothing to wait for."""
    turn = take_turn(limit, situation, state, Decision())
    return None if turn is None or turn.is_at_rest else turn.idle_ns


def _applied(limit: Limit, outcome: Outcome, now_ns: int, state: Shortage) -> None:
    old = outcome.proposal.expected
    tally, state.tally, state.swung = state.tally, Tally(), False
    if outcome.proposal.scenario == limit.short:
        state.previous, state.undone = old, ()
        if state.evidence.level == 0 and tally.failures >= ROUGH_FAILURES:
            state.evidence.level = _level(tally)
        evidence.record_growth(state.evidence, previous=old[0], now_ns=now_ns)
        return
    state.at_cap = False
    state.previous = ()
    if outcome.proposal.scenario == limit.idle:
        # A load that comes and goes is no swing: evidence waits longer for it each time.
        state.undone = ()
        evidence.record_decay(state.evidence, now_ns=now_ns)
    else:
        state.undone = old
        evidence.record_shrink(state.evidence, now_ns=now_ns)


def _level(tally: Tally) -> float:
    """Successes per failure; one more, so that none before and none after is no gain and not no number."""
    return (tally.successes + 1) / max(1, tally.failures)


def _is_enough(turn: Turn) -> bool:
    seen, tally = turn.state.evidence, turn.state.tally
    expected = tally.successes / seen.before if seen.before > 0 else 0
    long = turn.situation.now_ns - tally.start_ns >= ENOUGH_NS
    return long and max(expected, tally.failures) >= ENOUGH_FAILURES


def _exceeds(new: Value, old: Value) -> bool:
    return not old or any(one > other for one, other in zip(new, old, strict=True))


def _stop_swinging(turn: Turn, numbers: Mapping[str, Number]) -> None:
    """The first time growth ends until nothing binds any more; after that it goes a step further than
    what was taken back, as far as the cap allows."""
    state = turn.state
    if not state.swung:
        state.swung = True
        text = f"it would go back to {_words(state.undone)}, which was just taken back: no growth for now"
        turn.note(turn.limit.short, text)
        evidence.freeze(state.evidence)
        return
    further = zip(state.undone, turn.view.cap, strict=True)
    new = tuple(max(was, min(grow(was, turn.situation.shift), cap)) for was, cap in further)
    is_old = turn.situation.now_ns - state.evidence.changed_ns >= evidence.IDLE_NS
    if _exceeds(new, state.observed) and (new != state.undone or is_old):
        turn.propose(new, turn.limit.short, numbers)


def _note_cap(turn: Turn, wanted: Value) -> None:
    """Of a growth that came to the cap the supervisor has told already."""
    is_short = any(want > now for want, now in zip(wanted, turn.view.current, strict=True))
    if is_short and not turn.state.at_cap and not turn.is_grown:
        turn.state.at_cap = True
        text = f"{_words(turn.view.current)} is as far as it may go; {_words(wanted)} would be the next step"
        turn.note(turn.limit.short, text)


def _history(turn: Turn) -> dict[str, Number]:
    seen = turn.state.evidence
    idle: dict[str, Number] = {"idle_s": evidence.idle_s(seen, turn.situation.now_ns)}
    if not turn.limit.metric:
        return idle
    return {
        "successes_per_failure": round(seen.level, 3),
        "successes_per_failure_before": round(seen.before, 3),
        **idle,
    }


def _unpaid_text(turn: Turn) -> str:
    gains = turn.state.evidence.unpaid[-evidence.MAX_UNPAID :]
    steps = "the last two steps" if len(gains) > 1 else "the step to the cap"
    return (
        f"growth stops: {steps} changed the {turn.limit.metric} by"
        f" {' and '.join(f'{100 * gain:+.1f} %' for gain in gains)}, less than the"
        f" {100 * evidence.MIN_GAIN:.0f} % that a step has to bring; the last one is taken back"
    )


def _words(value: Value) -> str:
    return " ".join(map(str, value))
