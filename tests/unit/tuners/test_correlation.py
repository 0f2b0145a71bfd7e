# SPDX-License-Identifier: GPL-2.0-or-later
"""The running correlation agrees with the textbook, and knows what does not matter."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.tuners.correlation import MEMORY_SAMPLES, Correlation, add, coefficient, is_harmful

Pairs = list[tuple[float, float]]
numbers = st.floats(min_value=0, max_value=1e9, allow_nan=False).map(lambda value: round(value, 3))


def correlate(pairs: Pairs) -> Correlation:
    state = Correlation()
    for x, y in pairs:
        add(state, x, y)
    return state


@given(st.lists(st.tuples(numbers, numbers), min_size=10, max_size=200))
def test_matches_the_definition(pairs: Pairs) -> None:
    xs, ys = zip(*pairs, strict=True)
    spread = statistics.pstdev(xs) * statistics.pstdev(ys)
    found = coefficient(correlate(pairs))
    if found is not None:
        assert -1 <= found <= 1
    if statistics.pstdev(xs) > 1 and statistics.pstdev(ys) > 1:
        assert found == pytest.approx(
            statistics.covariance(xs, ys) * (len(xs) - 1) / len(xs) / spread, abs=1e-6
        )


def test_keeps_its_digits_far_from_zero() -> None:
    pairs = [(1e12 + step, 5e11 + 2 * step) for step in range(20)]
    assert coefficient(correlate(pairs)) == pytest.approx(1.0)


def test_needs_ten_samples() -> None:
    assert coefficient(correlate([(n, n) for n in range(9)])) is None
    assert coefficient(correlate([(n, n) for n in range(10)])) == pytest.approx(1.0)


def test_is_unknown_while_one_side_stands_still() -> None:
    assert coefficient(correlate([(7, n) for n in range(20)])) is None


def test_a_doubled_rtt_is_harmful() -> None:
    assert is_harmful(correlate([(n, 50_000 + 5_000 * n) for n in range(12)]))


def test_a_rise_too_small_to_matter_is_not() -> None:
    assert not is_harmful(correlate([(n, 50_000 + 5 * n) for n in range(12)]))


def test_a_falling_rtt_is_not() -> None:
    assert not is_harmful(correlate([(n, 90_000 - 5_000 * n) for n in range(12)]))


def test_the_past_fades() -> None:
    state = correlate([(n % 7, 100 + n % 7) for n in range(MEMORY_SAMPLES * 3)])
    assert state.samples < MEMORY_SAMPLES
    assert coefficient(state) == pytest.approx(1.0)
