# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every tuner, whatever it is told: over random streams of the events it declares,
in two namespaces, between administrators, crashes of workers and long silence.

Folders are found and driven by their declarations, so a new tuner is tested as soon as it is there.
"""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpftune.ipc.control import Change
from bpftune.ipc.declaration import DECLARATION_FILE, Format, Tunable
from bpftune.ipc.messages import GLOBAL, Value
from bpftune.tuners.evidence import IDLE_NS
from tests.unit.tuners.machine import SECOND_NS, Machine, Step
from tests.unit.tuners.places import OTHER
from tests.unit.tuners.streams import Driver, Happening, happenings, is_switch, loads, originals, value_of

MOST_WAKES = 3000
LONGEST_REST_NS = 100 * 24 * 3600 * SECOND_NS
"""Of a limit at its highest whose load has come back after every step down: each step takes a day."""
ROOT = Path(__file__).parents[3]
SHIPPED = sorted(path.parent for path in (ROOT / "tuners").rglob(DECLARATION_FILE))
EXAMPLES = sorted(path.parent for path in (ROOT / "docs").rglob(DECLARATION_FILE))
"""They show how a tuner is written, with a few lines of policy: no evidence, one step a minute."""


@contextmanager
def machine(
    folder: Path, originals: list[int], shift: int = 2, memory_pages: int = 1 << 22
) -> Iterator[Machine]:
    left = list(originals)

    def next_value(tunable: Tunable) -> Value:
        left.append(left.pop(0))
        return value_of(tunable, left)

    with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        made = Machine(
            folder=folder, root=Path(root), memory_pages=memory_pages, shift=shift, draw_value=next_value
        )
        try:
            yield made
        finally:
            made.close()


def drive(made: Machine, happenings: list[Happening]) -> None:
    """Let it all happen, and check after each that nothing is wrong."""
    driver, untouched = Driver(made), made.files()
    for happening in happenings:
        before, off = len(made.steps), made.off - driver.enabled(happening)
        driver.let(happening)
        for step in made.steps[before:]:
            check_bounds(step)
            check_explained(made, step.change)
            assert made.place_of(step.change.netns.cookie) not in off, "overrode an override"
        check_files(made, untouched)


def check_files(made: Machine, untouched: dict[tuple[int, str], Value]) -> None:
    """Only what was decided was written, and only where."""
    for (place, name), value in made.files().items():
        cookie = made.cookie_of(made.declaration.tunables_by_name[name], place)
        at_home = made.place_of(cookie) == place
        assert value == (made.values[cookie, name] if at_home else untouched[place, name]), (
            f"{name} in {place}"
        )


def check_bounds(step: Step) -> None:
    """What grows stays below the cap, what shrinks above the floor."""
    change, bounds = step.change, step.bounds
    for old, new, floor, cap in zip(change.old, change.new, bounds.floor, bounds.cap, strict=True):
        assert min(old, floor) <= new <= max(old, cap), change


def check_explained(made: Machine, change: Change) -> None:
    """`bpftune-ctl explain` has a reason and numbers to tell."""
    assert change.scenario in made.declaration.scenarios_by_id
    assert change.reason
    assert change.evidence
    assert all(math.isfinite(number) for number in change.evidence.values()), change


def growing(made: Machine) -> list[Tunable]:
    return [
        tunable for tunable in made.tunables if tunable.format is Format.INTEGERS and not is_switch(tunable)
    ]


def fields_of(made: Machine, tunable: Tunable) -> Iterator[list[tuple[Step, int, int]]]:
    """For every namespace and field: its changes, each with the step, the old and the new value."""
    for cookie in (GLOBAL, made.initial, OTHER):
        steps = [
            step
            for step in made.steps
            if (step.change.netns.cookie, step.change.tunable) == (cookie, tunable.name)
        ]
        for index in range(tunable.width):
            moves = [(step, step.change.old[index], step.change.new[index]) for step in steps]
            yield [move for move in moves if move[1] != move[2]]


def check_no_swing(moves: list[tuple[Step, int, int]]) -> None:
    """A -> B -> A -> B only where nothing needed B for a whole idle period in between."""
    for first, second, third in zip(moves, moves[1:], moves[2:], strict=False):
        if first[1:] == third[1:] and second[1:] == (first[2], first[1]):
            assert third[0].time_ns - first[0].time_ns >= IDLE_NS, (first, second, third)


def check_sum_of_steps(moves: list[tuple[Step, int, int]]) -> None:
    """Within an idle period a field goes up the whole way once and down once, at most."""
    for start, first in enumerate(moves):
        within = [move for move in moves[start:] if move[0].time_ns - first[0].time_ns < IDLE_NS]
        values = [value for _, old, new in within for value in (old, new)]
        room = max(*values, *(max(step.bounds.cap) for step, _, _ in within)) - min(values)
        assert sum(abs(new - old) for _, old, new in within) <= 2 * room


moved: dict[str, set[str]] = defaultdict(set)
"""What the streams of growth moved, by tuner."""

every_tuner = pytest.mark.parametrize("folder", [*SHIPPED, *EXAMPLES], ids=lambda folder: folder.name)
every_shipped_tuner = pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
thorough = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@every_tuner
@thorough
@given(happenings=happenings, originals=originals, shift=st.integers(2, 6), memory=st.integers(10, 24))
def test_no_value_leaves_its_bounds_its_namespace_or_an_administrators_hands(
    folder: Path, happenings: list[Happening], originals: list[int], shift: int, memory: int
) -> None:
    with machine(folder, originals, shift, 1 << memory) as made:
        drive(made, happenings)
        made.summarize()


@every_shipped_tuner
@thorough
@given(loads=loads, originals=originals)
def test_growth_neither_swings_nor_wanders_and_ends_where_it_began(
    folder: Path, loads: list[Happening], originals: list[int]
) -> None:
    with machine(folder, originals) as made:
        drive(made, loads)
        since_ns = made.now_ns
        assert made.let_rest(MOST_WAKES) < MOST_WAKES
        assert made.now_ns - since_ns < LONGEST_REST_NS
        for tunable in growing(made):
            moved[folder.name].update(step.change.tunable for step in made.steps)
            for moves in fields_of(made, tunable):
                check_no_swing(moves)
                check_sum_of_steps(moves)
            for cookie in (GLOBAL, made.initial, OTHER):
                cell = cookie, tunable.name
                assert made.values.get(cell) == made.administrator.get(cell), tunable.name


@every_shipped_tuner
def test_the_streams_above_were_not_in_vain(folder: Path) -> None:
    """What they never move they say nothing about."""
    if folder.name in moved:
        assert moved[folder.name], f"no event made {folder.name} change anything"
