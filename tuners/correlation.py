# SPDX-License-Identifier: GPL-2.0-or-later
"""A running Pearson correlation, of a limit against smoothed RTT for one.

Policies keep the record in their state and call these functions; nothing else does. Updates follow
Welford: means and centred sums, so that byte counts in the billions lose no digits.
"""

from __future__ import annotations

from math import sqrt

import msgspec

MIN_SAMPLES = 10
THRESHOLD = 0.7
MATERIAL = 0.1
MEMORY_SAMPLES = 4096


class Correlation(msgspec.Struct):
    samples: int = 0
    mean_x: float = 0.0
    mean_y: float = 0.0
    squares_x: float = 0.0
    squares_y: float = 0.0
    products: float = 0.0


def add(state: Correlation, x: float, y: float) -> None:
    """Take one more pair in."""
    state.samples += 1
    from_old_x = x - state.mean_x
    from_old_y = y - state.mean_y
    state.mean_x += from_old_x / state.samples
    state.mean_y += from_old_y / state.samples
    state.squares_x += from_old_x * (x - state.mean_x)
    state.squares_y += from_old_y * (y - state.mean_y)
    state.products += from_old_x * (y - state.mean_y)
    if state.samples >= MEMORY_SAMPLES:
        _fade(state)


def coefficient(state: Correlation) -> float | None:
    """-1..1; None with fewer than 10 pairs, or while one side never changed."""
    spread = sqrt(max(0.0, state.squares_x)) * sqrt(max(0.0, state.squares_y))
    if state.samples < MIN_SAMPLES or spread == 0.0:
        return None
    return max(-1.0, min(1.0, state.products / spread))


def is_harmful(state: Correlation) -> bool:
    """Whether y rises with x: correlated above 0.7, and by an amount that matters.

    The coefficient knows no scale. Without the second condition an RTT that went from 50 to 51 ms
    in step with the limit, as it does when a path gets busier, would count like one that doubled.
    MATERIAL is the standard deviation of y over its mean: an RTT that rises by a fifth.
    """
    found = coefficient(state)
    if found is None or found <= THRESHOLD:
        return False
    deviation = sqrt(state.squares_y / state.samples)
    return deviation > MATERIAL * abs(state.mean_y)


def _fade(state: Correlation) -> None:
    """Halve the weight of the past: last week's samples must not outvote this minute's."""
    state.samples //= 2
    state.squares_x /= 2
    state.squares_y /= 2
    state.products /= 2
