# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether what is turned away belongs to a load that is being served, or to a flood that nobody serves.

Both counts of a load rise together: who is turned away now is served a moment later. A flood is turned
away whatever is served. Policies keep one Flood per limit in their state; nothing here proposes.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bpftune.tuners import correlation
from bpftune.tuners.correlation import MIN_SAMPLES, THRESHOLD, Correlation

MATERIAL_SHIFT = 4
"""A flood may come on top of a load: of a load at least a sixteenth of what is turned away gets served."""
FORGET_NS = 60_000_000_000
"""Samples further apart do not belong together."""


class Nature(StrEnum):
    LOAD = "load"
    FLOOD = "flood"


class Flood(msgspec.Struct):
    """Counts since the newest verdict."""

    turned_away: int = 0
    served: int = 0
    newest_ns: int = 0
    pairs: Correlation = msgspec.field(default_factory=Correlation)


class Verdict(msgspec.Struct, frozen=True):
    nature: Nature
    turned_away: int
    served: int
    coefficient: float
    """0 where one of the two never changed."""


def observe(state: Flood, *, turned_away: int, served: int, now_ns: int) -> Verdict | None:
    """Take in what was counted since the last call; a verdict after every MIN_SAMPLES of them."""
    if now_ns - state.newest_ns > FORGET_NS:
        _restart(state)
    state.newest_ns = now_ns
    state.turned_away += turned_away
    state.served += served
    correlation.add(state.pairs, state.turned_away, state.served)
    if state.pairs.samples < MIN_SAMPLES:
        return None
    found = correlation.coefficient(state.pairs) or 0.0
    is_load = found > THRESHOLD and state.served << MATERIAL_SHIFT >= state.turned_away
    verdict = Verdict(Nature.LOAD if is_load else Nature.FLOOD, state.turned_away, state.served, found)
    _restart(state)
    return verdict


def _restart(state: Flood) -> None:
    state.turned_away = 0
    state.served = 0
    state.pairs = Correlation()
