# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether what is turned away belongs to a load that is being served, or to a flood that nobody serves.

Who belongs to a load asks again and is served in the end: a peer that wants a connection tries seven times
by default (tcp_syn_retries in Documentation/networking/ip-sysctl.rst). So a load is served at a rate that is
no small part of that at which it is turned away, even where the limit keeps the former flat. Where it is a
small part, both rates have to rise and fall together; a flood comes whatever else is served meanwhile. Totals
would not do: any two of them rise together. Policies keep one Flood per limit in their state; nothing here
proposes.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bpftune.tuners import correlation
from bpftune.tuners.correlation import MIN_SAMPLES, THRESHOLD, Correlation

MOST_SHIFT = 2
"""Served for four turned away: a load, whatever the rates do."""
LEAST_SHIFT = 4
"""Served for sixteen: with less it is a flood, whatever the rates do."""
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
    rates: Correlation = msgspec.field(default_factory=Correlation)
    """Of what is turned away and what is served, per second."""


class Verdict(msgspec.Struct, frozen=True):
    nature: Nature
    turned_away: int
    served: int
    coefficient: float
    """0 where one of the two never changed."""


def observe(state: Flood, *, turned_away: int, served: int, start_ns: int, now_ns: int) -> Verdict | None:
    """Take in what was counted since `start_ns`; a verdict after every MIN_SAMPLES of them."""
    if now_ns - state.newest_ns > FORGET_NS:
        _restart(state)
    state.newest_ns = now_ns
    state.turned_away += turned_away
    state.served += served
    seconds = max(1, now_ns - start_ns) / 1_000_000_000
    correlation.add(state.rates, turned_away / seconds, served / seconds)
    if state.rates.samples < MIN_SAMPLES:
        return None
    found = correlation.coefficient(state.rates) or 0.0
    is_load = state.served << MOST_SHIFT >= state.turned_away or (
        found > THRESHOLD and state.served << LEAST_SHIFT >= state.turned_away
    )
    verdict = Verdict(Nature.LOAD if is_load else Nature.FLOOD, state.turned_away, state.served, found)
    _restart(state)
    return verdict


def _restart(state: Flood) -> None:
    state.turned_away = 0
    state.served = 0
    state.rates = Correlation()
