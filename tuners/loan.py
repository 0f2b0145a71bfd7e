# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings that are changed for as long as something lasts, and then put back to what they were.

Policies keep one Loan per group of such settings in their state: switches that save memory while memory
is short, a limit lowered during an attack. What is ours to put back is not remembered but seen: a
tunable whose value is not the original is one that we changed. Pure, like every policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from bpftune.ipc.messages import Number, Outcome, Status, TunableView
from bpftune.tuners.base import Decision, Situation
from bpftune.tuners.evidence import IDLE_NS

HOLD_NS = 10_000_000_000
"""Not put back sooner than that, so that what comes in waves does not switch with every wave."""
MAX_RELAPSES = 8
REFUSED_PAUSE_NS = 60_000_000_000


class Loan(msgspec.Struct):
    """What is remembered about one group of settings."""

    asked_ns: int = 0
    """When there was a reason for it last."""
    eased_ns: int = 0
    """When the reason was seen to be gone; 0: not since it was there last."""
    returned_ns: int = 0
    relapses: int = 0
    """How often it was needed again soon after it had been put back: each doubles the waits."""
    observed: bool = False
    """--dry-run kept the change from being made."""
    paused_until_ns: int = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Which tunables, all of one field, and under which scenario they are put back."""

    tunables: tuple[str, ...]
    back: str


def borrow(
    terms: Terms,
    situation: Situation,
    loan: Loan,
    decision: Decision,
    *,
    value: int,
    scenario: str,
    numbers: Mapping[str, Number],
) -> None:
    """There is reason for the tunables to be `value`."""
    now_ns = situation.now_ns
    loan.asked_ns, loan.eased_ns = now_ns, 0
    if loan.observed or now_ns < loan.paused_until_ns:
        return
    for name, view in _views(terms, situation):
        if view.current != (value,):
            decision.proposals.append(situation.propose(name, (value,), scenario, numbers))


def still(loan: Loan, now_ns: int) -> None:
    """The reason is there, but nothing more is to be changed."""
    loan.asked_ns, loan.eased_ns = now_ns, 0


def ease(loan: Loan, now_ns: int) -> None:
    """The reason was seen to be gone."""
    loan.eased_ns = loan.eased_ns or now_ns
    loan.observed = False


def give_back(terms: Terms, situation: Situation, loan: Loan, decision: Decision) -> None:
    """Put back what is ours, if it is time."""
    due = due_ns(terms, situation, loan)
    if due is None or situation.now_ns < due:
        return
    since_s = (situation.now_ns - loan.asked_ns) // 1_000_000_000
    for name, view in _changed(terms, situation):
        decision.proposals.append(
            situation.propose(name, view.original, terms.back, {"since_needed_s": since_s})
        )


def due_ns(terms: Terms, situation: Situation, loan: Loan) -> int | None:
    """When `give_back` has something to do; None: nothing is ours.

    Soon after the reason is gone, or without any word about it after a longer while.
    """
    if not any(True for _ in _changed(terms, situation)):
        return None
    # State may have been lost with the settings left behind: then the waiting begins now.
    loan.asked_ns = loan.asked_ns or situation.now_ns
    wait_ns = (HOLD_NS if loan.eased_ns else IDLE_NS) << loan.relapses
    return max(loan.asked_ns + wait_ns, loan.paused_until_ns)


def settle(terms: Terms, outcome: Outcome, now_ns: int, loan: Loan) -> None:
    """A proposal for one of the tunables was decided on."""
    is_return = outcome.proposal.scenario == terms.back
    if outcome.status is Status.OBSERVED and not is_return:
        loan.observed = True
    elif outcome.status is not Status.APPLIED:
        loan.paused_until_ns = now_ns + REFUSED_PAUSE_NS
    elif is_return:
        loan.returned_ns = now_ns
    elif loan.returned_ns:
        soon = now_ns - loan.returned_ns < 2 * (IDLE_NS << loan.relapses)
        loan.relapses = min(MAX_RELAPSES, loan.relapses + 1) if soon else 0
        loan.returned_ns = 0


def _changed(terms: Terms, situation: Situation) -> Iterator[tuple[str, TunableView]]:
    return ((name, view) for name, view in _views(terms, situation) if view.current != view.original)


def _views(terms: Terms, situation: Situation) -> Iterator[tuple[str, TunableView]]:
    for name in terms.tunables:
        view = situation.adopted(name)
        if view is not None:
            yield name, view
