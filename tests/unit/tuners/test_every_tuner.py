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
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpftune.ipc.control import Change
from bpftune.ipc.declaration import DECLARATION_FILE, EventField, Format, Scenario, Tunable
from bpftune.ipc.messages import GLOBAL, Value
from bpftune.tuners.evidence import IDLE_NS
from tests.unit.tuners.machine import OTHER, SECOND_NS, Machine, Step

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(path.parent for path in (ROOT / "tuners").rglob(DECLARATION_FILE))
EXAMPLES = sorted(path.parent for path in (ROOT / "docs").rglob(DECLARATION_FILE))
"""They show how a tuner is written, with a few lines of policy: no evidence, one step a minute."""

WIDTHS = {"u8": 8, "s8": 7, "u16": 16, "s16": 15, "u32": 32, "s32": 31, "u64": 64, "s64": 63}
LARGEST = 1 << 22
"""Of an administrator's values: every cap leaves room above."""
MOST_WAKES = 3000
LONGEST = {"_ns": 1 << 40, "_us": 1 << 20}
"""Of a record's times, by the end of the field's name: an interval, a round trip."""
SHARES = (1 / 16, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
"""Of a limit: far from it, near it, beyond it."""


@dataclass(frozen=True, slots=True)
class Number:
    """How a field gets its number: as a share of what some tunable holds then, or as it is."""

    share: float
    pick: int
    plain: int


@dataclass(frozen=True, slots=True)
class Burst:
    """The same kind of event again and again."""

    scenario: int
    place: int
    numbers: list[Number]
    count: int
    apart_ns: int
    fresh: bool
    rises: int
    """By how much the counters that the scenario names go up with each."""


@dataclass(frozen=True, slots=True)
class Silence:
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Override:
    tunable: int
    place: int
    number: int


@dataclass(frozen=True, slots=True)
class Enable:
    place: int


@dataclass(frozen=True, slots=True)
class Restart:
    remember: bool


Happening = Burst | Silence | Override | Enable | Restart

magnitudes = st.builds(
    lambda bits, part: (1 << bits) + (part << bits >> 8), st.integers(0, 48), st.integers(0, 255)
)
"""Up to what no counter of a record gets to in a year."""
numbers = st.builds(
    Number, share=st.sampled_from((0.0, 0.0, *SHARES)), pick=st.integers(0, 63), plain=st.just(0) | magnitudes
)
bursts = st.builds(
    Burst,
    scenario=st.integers(0, 15),
    place=st.integers(0, 1),
    numbers=st.lists(numbers, min_size=4, max_size=8),
    count=st.integers(1, 40),
    apart_ns=st.sampled_from((25_000_000, 100_000_000, SECOND_NS, 20 * SECOND_NS)),
    fresh=st.booleans(),
    rises=st.sampled_from((0, 1, 1000)),
)
silences = st.builds(Silence, duration_ns=st.sampled_from((3, 70, 301, 3600)).map(lambda s: s * SECOND_NS))
loads = st.lists(bursts | bursts | silences | st.builds(Restart, remember=st.just(True)), max_size=12)
happenings = st.lists(
    bursts
    | silences
    | st.builds(Override, tunable=st.integers(0, 15), place=st.integers(0, 1), number=magnitudes)
    | st.builds(Enable, place=st.integers(0, 1))
    | st.builds(Restart, remember=st.booleans()),
    max_size=16,
)
originals = st.lists(st.integers(0, LARGEST), min_size=8, max_size=8)


def is_switch(tunable: Tunable) -> bool:
    return all(cap in ("0", "1") for cap in tunable.bounds("cap"))


def value_of(tunable: Tunable, numbers: list[int]) -> Value:
    if is_switch(tunable):
        return tuple(number & 1 for number in numbers[: tunable.width])
    if tunable.format is Format.CPUMASK:
        return (numbers[0],)
    return tuple(sorted(number % (LARGEST + 1) for number in numbers[: tunable.width]))


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


class Driver:
    """Lets things happen to a machine, and checks after each that nothing is wrong."""

    def __init__(self, made: Machine) -> None:
        self.machine = made
        self.places = (made.initial, OTHER)
        self._untouched = made.files()
        self._counters = dict.fromkeys(made.declaration.counters_by_name, 1000)

    def run(self, happenings: list[Happening]) -> None:
        for happening in happenings:
            before = len(self.machine.steps)
            off = set(self.machine.off)
            self._let(happening)
            self._check(self.machine.steps[before:], off - self._enabled(happening))

    def _let(self, happening: Happening) -> None:
        match happening:
            case Burst():
                self._burst(happening)
            case Silence():
                self.machine.let_pass(happening.duration_ns)
            case Override():
                tunables = self.machine.tunables
                if tunables:
                    tunable = tunables[happening.tunable % len(tunables)]
                    spread = [happening.number >> shift for shift in range(8)]
                    self.machine.override(tunable, self.places[happening.place], value_of(tunable, spread))
            case Enable():
                self.machine.enable(self.places[happening.place])
            case Restart():
                self.machine.restart_worker(remember=happening.remember)

    def _enabled(self, happening: Happening) -> set[int]:
        return {self.places[happening.place]} if isinstance(happening, Enable) else set()

    def _burst(self, burst: Burst) -> None:
        scenarios = self.machine.observable
        if not scenarios:
            return
        scenario = scenarios[burst.scenario % len(scenarios)]
        place = self.places[burst.place]
        for _ in range(burst.count):
            for name in scenario.counters:
                self._counters[name] += burst.rises
            payload = self._payload(scenario, burst.numbers, place)
            self.machine.deliver(scenario, place, payload, self._counters, fresh=burst.fresh)
            self.machine.let_pass(burst.apart_ns)

    def _payload(self, scenario: Scenario, numbers: list[Number], place: int) -> list[int]:
        payload: list[int] = []
        for index, field in enumerate(scenario.fields):
            number = numbers[index % len(numbers)]
            wanted = self._limit(scenario, field, place) or self._measured(scenario, field, number, place)
            payload += [min(one, (1 << WIDTHS[field.type]) - 1) for one in wanted]
        return payload

    def _limit(self, scenario: Scenario, field: EventField, place: int) -> Value:
        """What the scenario's own tunable holds, where the record shows that; else nothing."""
        tunable = self.machine.declaration.tunables_by_name[scenario.tunable]
        if not tunable.name.endswith(field.name) or tunable.width != (field.count or 1):
            return ()
        return self.machine.values[self.machine.cookie_of(tunable, place), tunable.name]

    def _measured(self, scenario: Scenario, field: EventField, number: Number, place: int) -> Value:
        """Times are what they are; all else may be a share of what some tunable holds."""
        count = field.count or 1
        longest = LONGEST.get(field.name[-3:])
        if longest is not None:
            return (number.plain % longest,) * count
        held = self._held(scenario, number.pick, place)
        if not number.share or not held:
            return (number.plain,) * count
        return tuple(int(held[index % len(held)] * number.share) for index in range(count))

    def _held(self, scenario: Scenario, pick: int, place: int) -> Value:
        """A tunable's fields from any on; every other time the scenario's own, from the last on."""
        sizes = [one for one in self.machine.tunables if one.format is Format.INTEGERS]
        if not sizes:
            return ()
        first, place_in_list = divmod(pick >> 1, len(sizes))
        own = self.machine.declaration.tunables_by_name[scenario.tunable]
        tunable, first = (own, -1) if pick & 1 else (sizes[place_in_list], first % sizes[place_in_list].width)
        held = self.machine.values[self.machine.cookie_of(tunable, place), tunable.name]
        return held[first:] + held[:first]

    def _check(self, steps: list[Step], off: set[int]) -> None:
        for step in steps:
            check_bounds(step)
            check_explained(self.machine, step.change)
            assert self.machine.place_of(step.change.netns.cookie) not in off, "overrode an override"
        self._check_files()

    def _check_files(self) -> None:
        """Only what was decided was written, and only where."""
        for (place, name), value in self.machine.files().items():
            cookie = self.machine.cookie_of(self.machine.declaration.tunables_by_name[name], place)
            at_home = self.machine.place_of(cookie) == place
            expected = self.machine.values[cookie, name] if at_home else self._untouched[place, name]
            assert value == expected, f"{name} in {place}"


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
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@every_tuner
@thorough
@given(happenings=happenings, originals=originals, shift=st.integers(2, 6), memory=st.integers(10, 24))
def test_no_value_leaves_its_bounds_its_namespace_or_an_administrators_hands(
    folder: Path, happenings: list[Happening], originals: list[int], shift: int, memory: int
) -> None:
    with machine(folder, originals, shift, 1 << memory) as made:
        Driver(made).run(happenings)
        made.summarize()


@every_shipped_tuner
@thorough
@given(loads=loads, originals=originals)
def test_growth_neither_swings_nor_wanders_and_ends_where_it_began(
    folder: Path, loads: list[Happening], originals: list[int]
) -> None:
    with machine(folder, originals) as made:
        Driver(made).run(loads)
        assert made.let_rest(MOST_WAKES) < MOST_WAKES
        moved[folder.name].update(step.change.tunable for step in made.steps)
        for tunable in growing(made):
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
