# SPDX-License-Identifier: GPL-2.0-or-later
"""What may happen to a machine.py, drawn by hypothesis: events of whatever a tuner declares, silence,
administrators, workers that die.

test_every_tuner.py uses it. The numbers in the records are what probes could have read: near what the
tunables hold, where they are sizes; anything else up to what no counter gets to.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from bpftune.ipc.declaration import EventField, Format, Scenario, Tunable
from bpftune.ipc.messages import Value
from tests.unit.tuners.machine import SECOND_NS, Machine
from tests.unit.tuners.places import OTHER

WIDTHS = {"u8": 8, "s8": 7, "u16": 16, "s16": 15, "u32": 32, "s32": 31, "u64": 64, "s64": 63}
LONG = 250
"""Events of a load that lasts: growth is judged twice, and may be tempted to come back."""
LARGEST = 1 << 22
"""Of an administrator's values: every cap leaves room above."""
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
    count=st.integers(1, 40) | st.just(LONG),
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


class Driver:
    """Lets things happen to a machine."""

    def __init__(self, made: Machine) -> None:
        self.machine = made
        self.places = (made.initial, OTHER)
        self._counters = dict.fromkeys(made.declaration.counters_by_name, 1000)

    def let(self, happening: Happening) -> None:
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

    def enabled(self, happening: Happening) -> set[int]:
        """The namespaces in which it gives the tuner its word back."""
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
