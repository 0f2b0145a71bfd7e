# SPDX-License-Identifier: GPL-2.0-or-later
"""A load that is served while others wait, against a flood that has nothing to do with what is served."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from bpftune.tuners import flood
from bpftune.tuners.correlation import MIN_SAMPLES
from bpftune.tuners.flood import FORGET_NS, Flood, Nature, Verdict

SECOND = 1_000_000_000


def verdicts(samples: Iterable[tuple[int, int]], *, apart_ns: int = SECOND) -> list[Verdict]:
    state = Flood()
    now_ns = 0
    found = []
    for turned_away, served in samples:
        start_ns, now_ns = now_ns, now_ns + apart_ns
        found.append(
            flood.observe(state, turned_away=turned_away, served=served, start_ns=start_ns, now_ns=now_ns)
        )
    return [verdict for verdict in found if verdict is not None]


def natures(samples: Iterable[tuple[int, int]], *, apart_ns: int = SECOND) -> list[Nature]:
    return [verdict.nature for verdict in verdicts(samples, apart_ns=apart_ns)]


def test_a_flood_alone() -> None:
    (verdict,) = verdicts([(2000, 0)] * MIN_SAMPLES)
    assert (verdict.nature, verdict.turned_away, verdict.served) == (Nature.FLOOD, 20_000, 0)
    assert verdict.coefficient == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_a_load_in_bursts(seed: int) -> None:
    chance = Random(seed)
    samples = [(chance.randrange(1, 400), chance.randrange(50, 150)) for _ in range(MIN_SAMPLES)]
    assert natures(samples) == [Nature.LOAD]


@pytest.mark.parametrize("seed", range(20))
def test_a_flood_on_top_of_a_small_load(seed: int) -> None:
    chance = Random(seed)
    samples = [(chance.randrange(5000, 9000), chance.randrange(0, 100)) for _ in range(MIN_SAMPLES)]
    assert natures(samples) == [Nature.FLOOD]


@pytest.mark.parametrize("refused", [100, 300])
def test_a_load_that_the_limit_keeps_flat(refused: int) -> None:
    """As many are served as there is room for, and the others come again."""
    (verdict,) = verdicts([(refused, 80)] * MIN_SAMPLES)
    assert (verdict.nature, verdict.coefficient) == (Nature.LOAD, 0.0)


def test_a_crowd_of_which_few_are_served_shows_by_its_waves() -> None:
    waves = [100, 900, 300, 2000, 500]
    assert natures([(refused, refused // 10) for refused in waves * 2]) == [Nature.LOAD]


def test_a_flood_on_top_of_steady_light_traffic() -> None:
    """Refused as it comes; what is served has nothing to do with it."""
    chance = Random(1)
    samples = [(chance.randrange(2000), chance.randrange(200)) for _ in range(200 * MIN_SAMPLES)]
    assert natures(samples).count(Nature.FLOOD) > 190


def test_two_that_only_last_equally_long_have_nothing_in_common() -> None:
    """Counts of long and of short intervals, at rates that never change."""
    state = Flood()
    now_ns, found = 0, None
    for length_ns in [SECOND, 10 * SECOND] * (MIN_SAMPLES // 2):
        start_ns, now_ns = now_ns, now_ns + length_ns
        seconds = length_ns // SECOND
        found = flood.observe(
            state, turned_away=1000 * seconds, served=100 * seconds, start_ns=start_ns, now_ns=now_ns
        )
    assert found is not None
    assert (found.nature, found.coefficient) == (Nature.FLOOD, 0.0)


def test_every_verdict_is_on_samples_of_its_own() -> None:
    samples = [(100, 100)] * MIN_SAMPLES + [(100, 0)] * MIN_SAMPLES + [(1, 1)] * (MIN_SAMPLES - 1)
    assert natures(samples) == [Nature.LOAD, Nature.FLOOD]


def test_samples_that_are_far_apart_say_nothing() -> None:
    assert natures([(100, 0)] * 100, apart_ns=FORGET_NS + 1) == []
