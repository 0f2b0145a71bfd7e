# SPDX-License-Identifier: GPL-2.0-or-later
"""What growing a limit has bought: the metric before a growth against the metric after it.

A policy keeps one Evidence per limit in its state and tells it about samples and changes; it
answers whether the growth paid. Nothing here proposes or knows which limit it is about. The metric
is an amount per round, larger being better: for TCP bytes per round trip, so that near and far
peers may share one window. All times are CLOCK_MONOTONIC ns.

Two ways down, and what holds after each:
- What was taken back because it did not pay, or cost too much, is not taken again while the limit is in
  use: growth is frozen until the limit has decayed to its original and was not needed there for a while.
- What decayed for lack of use may be taken again as soon as it is needed. That is no swing but a load that
  comes and goes: if it is back soon, every further step down waits twice as long, up to 21 hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

MIN_GAIN = 0.05
MAX_UNPAID = 2
"""Growths in a row that may buy less than MIN_GAIN."""

WINDOW_ROUNDS = 10.0
WINDOW_NS = 200_000_000
WINDOW_SAMPLES = 4

PATIENCE = 4
"""Windows that a growth has to show its gain: a congestion window follows a raised limit slowly."""

QUIET_NS = 2_000_000_000
QUIET_ROUNDS = 20
IDLE_NS = 300_000_000_000
MAX_REGROWN = 8
"""Doublings of IDLE_NS."""


class Verdict(StrEnum):
    OPEN = "open"
    PAID = "paid"
    UNPAID = "unpaid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one source moved from `start_ns` to `end_ns`."""

    amount: float
    rounds: float
    start_ns: int
    end_ns: int


class Window(msgspec.Struct):
    amount: float = 0.0
    rounds: float = 0.0
    samples: int = 0
    start_ns: int = 0


class Evidence(msgspec.Struct):
    """The history of one limit in one place; the defaults are those of a limit never touched."""

    window: Window = msgspec.field(default_factory=Window)
    level: float = 0.0
    """Amount per round of the newest complete window at the present limit, 0: none yet."""
    before: float = 0.0
    """`level` as it was before the growth that is being judged."""
    verdict: Verdict = Verdict.PAID
    """On the newest growth; no growth counts as paid."""
    previous: int = 0
    """The limit before the newest growth."""
    changed_ns: int = 0
    near_ns: int = 0
    """When the limit was last seen to bind."""
    windows: int = 0
    """Complete windows since the newest growth."""
    unpaid: list[float] = []
    """Gains of the growths in a row that did not pay."""
    frozen: bool = False
    decayed: bool = False
    """The newest change was a step of decay."""
    regrown: int = 0
    """How often the limit had to grow again soon after it had decayed."""


def observe(evidence: Evidence, sample: Sample) -> bool:
    """Add a sample; True when it completed a window. One that began under an older limit is ignored."""
    if sample.start_ns < evidence.changed_ns or sample.rounds <= 0:
        return False
    window = evidence.window
    if window.samples == 0:
        window.start_ns = sample.start_ns
    window.amount += sample.amount
    window.rounds += sample.rounds
    window.samples += 1
    if not _is_complete(window, sample.end_ns):
        return False
    evidence.level = window.amount / window.rounds
    evidence.window = Window()
    evidence.windows += 1
    return True


def estimate(evidence: Evidence, amount_per_round: float) -> None:
    """A first guess at the metric, for a limit that has to grow before anything was measured."""
    if evidence.level == 0.0 and evidence.window.samples == 0:
        evidence.level = amount_per_round


def gain(evidence: Evidence) -> float:
    """What the newest growth bought so far, as a fraction of what there was before."""
    return evidence.level / evidence.before - 1.0 if evidence.before > 0 else 0.0


def judge(evidence: Evidence) -> Verdict:
    """The verdict on the newest growth after another complete window.

    A gain may show at once; its absence has to last for several windows.
    """
    if evidence.verdict is not Verdict.OPEN:
        return evidence.verdict
    if evidence.before <= 0 or gain(evidence) >= MIN_GAIN:
        _pay(evidence)
    elif evidence.windows >= PATIENCE:
        evidence.verdict = Verdict.UNPAID
        evidence.unpaid = [*evidence.unpaid, gain(evidence)]
    return evidence.verdict


def has_stopped_paying(evidence: Evidence) -> bool:
    return len(evidence.unpaid) >= MAX_UNPAID


def record_growth(evidence: Evidence, *, previous: int, now_ns: int) -> None:
    """The limit grew from `previous`: the window before it becomes the baseline."""
    if evidence.level == 0.0 and evidence.window.rounds > 0:
        evidence.level = evidence.window.amount / evidence.window.rounds
    evidence.before = evidence.level
    evidence.previous = previous
    evidence.verdict = Verdict.OPEN
    if evidence.decayed:
        _count_regrowth(evidence, now_ns)
    _restart(evidence, now_ns)
    evidence.near_ns = now_ns
    evidence.decayed = False


def record_shrink(evidence: Evidence, *, now_ns: int) -> None:
    """The limit went down, whatever the reason: nothing is left to judge."""
    evidence.verdict = Verdict.PAID
    evidence.unpaid = []
    _restart(evidence, now_ns)


def record_decay(evidence: Evidence, *, now_ns: int) -> None:
    """An idle limit went down a step; the next one takes another idle period."""
    record_shrink(evidence, now_ns=now_ns)
    evidence.near_ns = now_ns
    evidence.decayed = True


def freeze(evidence: Evidence) -> None:
    """No growth any more until the limit has decayed to its original."""
    evidence.frozen = True
    evidence.unpaid = []
    evidence.verdict = Verdict.PAID


def thaw(evidence: Evidence) -> None:
    evidence.frozen = False
    evidence.level = 0.0


def quiet_ns(evidence: Evidence, round_ns: int) -> int:
    """When a growth has paid if the limit is not seen to bind until then."""
    return max(evidence.changed_ns, evidence.near_ns) + max(QUIET_NS, QUIET_ROUNDS * round_ns)


def settle_quiet(evidence: Evidence) -> None:
    """The limit stopped binding: that is what the growth was for."""
    if evidence.verdict is Verdict.OPEN:
        _pay(evidence)


def idle_ns(evidence: Evidence) -> int:
    """When an idle limit takes its next step down.

    The wait doubles each time that a decayed limit had to grow again, so that a load which comes
    and goes does not make the limit do the same.
    """
    return evidence.near_ns + (IDLE_NS << evidence.regrown)


def idle_s(evidence: Evidence, now_ns: int) -> int:
    """How long the limit was not seen to bind, for people; 0 where nothing is known."""
    return max(0, now_ns - evidence.near_ns) // 1_000_000_000 if evidence.near_ns else 0


def _is_complete(window: Window, now_ns: int) -> bool:
    return (
        window.samples >= WINDOW_SAMPLES
        and window.rounds >= WINDOW_ROUNDS
        and now_ns - window.start_ns >= WINDOW_NS
    )


def _count_regrowth(evidence: Evidence, now_ns: int) -> None:
    """Only a load that is back soon after the limit went down says that this was too early."""
    soon = now_ns - evidence.changed_ns < 2 * (IDLE_NS << evidence.regrown)
    evidence.regrown = min(MAX_REGROWN, evidence.regrown + 1) if soon else 0


def _pay(evidence: Evidence) -> None:
    evidence.verdict = Verdict.PAID
    evidence.unpaid = []


def _restart(evidence: Evidence, now_ns: int) -> None:
    evidence.changed_ns = now_ns
    evidence.window = Window()
    evidence.level = 0.0
    evidence.windows = 0
