# SPDX-License-Identifier: GPL-2.0-or-later
"""A limit that grows on demand: how far, when not, when it is taken back, and that it is given back."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.declaration import Declaration, Scenario, Scope, Tunable
from bpftune.ipc.messages import Outcome, Proposal, Status, Value
from bpftune.tuners import growth
from bpftune.tuners.base import Decision
from bpftune.tuners.correlation import MIN_SAMPLES
from bpftune.tuners.evidence import IDLE_NS, MAX_REGROWN, PATIENCE, QUIET_NS, Sample, Verdict
from bpftune.tuners.growth import REFUSED_PAUSE_NS, STEP_BACK_NS, Limit, Reading, Regulator
from tests.unit.tuners.lone_tunable import SECOND, LoneTunable

MS = 1_000_000
SIZE = "net.example.size"
MUCH = 1 << 40
CAP = 100_000
WINDOW = 5
"""Samples as `Place.window` makes them."""
LIMIT = Limit(tunable=SIZE, field=2, near="near", unpaid="unpaid", delays="delays", idle="idle")
ABOVE_DEFAULT = replace(LIMIT, default_field=1)
DECLARATION = Declaration(
    name="example",
    description="d",
    tunables=[Tunable(name=SIZE, scope=Scope.NETNS, width=4)],
    scenarios=[
        Scenario(id=name, name="n", why="w", reason="r")
        for name in ("near", "unpaid", "delays", "idle", "short")
    ],
    probes=[],
)


class Place(LoneTunable):
    """The limit is the third of four fields."""

    state: Regulator

    def __init__(self, original: int = 1000, *, default: int = 600, limit: Limit = LIMIT) -> None:
        fields = (7, default, original, 9)
        super().__init__(growth, DECLARATION, limit=limit, state=Regulator(), original=fields)
        self.cap = CAP
        self.changes: list[tuple[int, int, int]] = []
        """When, from, to."""

    @property
    def caps(self) -> Value:
        return (7, self.cap, self.cap, 9)

    @property
    def value(self) -> int:
        return self.current[2]

    def leave(self, value: int) -> None:
        """What an earlier run, whose state is lost, left behind."""
        self.current = (*self.original[:2], value, 9)

    def react(
        self,
        need: int,
        *,
        enough: int = 0,
        ceiling: int = MUCH,
        growable: bool = True,
        amount: float = 100.0,
        sample: Sample | None = None,
        rtt_us: int = 0,
        age_ns: int = 0,
    ) -> None:
        reading = Reading(
            time_ns=self.now_ns - age_ns,
            need=need,
            enough=enough,
            ceiling=ceiling,
            growable=growable,
            amount_per_round=amount,
            sample=sample,
            rtt_us=rtt_us,
            numbers={"need": need},
        )
        decision = Decision()
        growth.react(self.limit, reading, self.situation(), self.state, decision)
        self.settle(decision)

    def window(
        self, level: float, *, need: int = 0, rtt_us: int = 0, enough: int = MUCH, samples: int = WINDOW
    ) -> None:
        """One window of samples that moved `level` per round each; a gain is seen at its end."""
        for _ in range(samples):
            start_ns, self.now_ns = self.now_ns, self.now_ns + 50 * MS
            sample = Sample(amount=2 * level, rounds=2.0, start_ns=start_ns, end_ns=self.now_ns)
            self.react(need, sample=sample, rtt_us=rtt_us, enough=enough)

    def weigh(self, cost: float, times: int = 1) -> None:
        for _ in range(times):
            self.now_ns += 50 * MS
            decision = Decision()
            growth.weigh(self.limit, cost, self.situation(), self.state, decision)
            self.settle(decision)

    def step_back(self) -> bool:
        proposal = growth.step_back(self.limit, "short", self.situation(), self.state)
        if proposal is not None:
            self.settle(Decision(proposals=[proposal]))
        return proposal is not None

    def proposed(self, proposal: Proposal) -> None:
        assert (*proposal.new[:2], *proposal.new[3:]) == (*self.current[:2], 9), "not ours"
        if self.status is Status.APPLIED:
            self.changes.append((self.now_ns, self.value, proposal.new[2]))

    def tell(self, outcome: Outcome) -> None:
        growth.settle(self.limit, outcome, self.situation(), self.state)


def grown(*, to: int = 2000, limit: Limit = LIMIT, default: int = 600) -> Place:
    """Once, and that has paid."""
    place = Place(limit=limit, default=default)
    place.window(1000)
    place.react(to, enough=1)
    place.window(2000)
    assert (place.value, place.verdict()) == (to, Verdict.PAID)
    return place


def unpaid_twice(*, default: int = 600, limit: Limit = LIMIT) -> Place:
    """Two growths that bought next to nothing, seen in as many windows as it takes."""
    place = Place(limit=limit, default=default)
    place.window(1000)
    for need, level in ((1250, 1020), (1500, 1030)):
        place.react(need)
        for _ in range(PATIENCE):
            place.window(level)
    return place


def harmed(*, enough: int = 0, low_us: int = 1000, high_us: int = 3000) -> Place:
    """The RTT has risen with the limit, and a window is complete."""
    place = Place()
    place.window(1000, rtt_us=low_us, samples=MIN_SAMPLES)
    place.react(2000, enough=1)
    place.window(2000, rtt_us=high_us, enough=enough)
    return place


# How far it grows


@pytest.mark.parametrize(
    ("need", "new"),
    [
        (1001, 1250),
        (1500, 1500),
        (1749, 1749),
        (1750, 3000),
        (5000, 5000),
    ],
    ids=["a step at least", "what is needed", "nearly twice as much", "a stride", "more than a stride"],
)
def test_it_grows_by_what_is_needed(need: int, new: int) -> None:
    place = Place()
    place.react(need)
    assert place.value == new
    assert place.proposals[0].evidence == {"need": need}


def test_no_stride_into_delays() -> None:
    place = Place()
    place.react(1500, enough=MUCH)
    assert place.value == 1500
    place = Place()
    place.react(2000, enough=1749)
    assert place.value == 2000
    place = Place()
    place.react(2000, enough=1750)
    assert place.value == 3000


@pytest.mark.parametrize("need", [0, 999, 1000])
def test_a_limit_that_does_not_bind_stays(need: int) -> None:
    place = Place()
    place.react(need)
    assert place.proposals == []


def test_a_need_that_growing_does_not_help_is_left() -> None:
    place = Place()
    place.react(5000, growable=False)
    assert place.proposals == []


def test_nothing_goes_beyond_either_ceiling() -> None:
    place = Place()
    place.react(5000, ceiling=1100)
    assert place.value == 1100
    place = Place()
    place.cap = 1200
    place.react(5000)
    assert place.value == 1200


def test_a_limit_at_its_ceiling_says_so_once() -> None:
    place = Place()
    for _ in range(3):
        place.react(5000, ceiling=1000)
    assert place.notes == ["1000 is as far as it may go; 5000 would be needed"]
    assert place.proposals == []


def test_a_cap_that_was_there_from_the_start_is_told_as_well() -> None:
    place = Place()
    place.cap = 1000
    place.react(5000)
    assert len(place.notes) == 1


def test_of_a_growth_to_the_cap_the_supervisor_tells() -> None:
    place = Place()
    place.cap = 1200
    place.react(5000)
    place.window(2000, need=5000)
    assert place.verdict() is Verdict.PAID
    assert (place.value, place.notes) == (1200, [])


def test_the_cap_is_told_again_after_the_limit_went_down() -> None:
    place = grown()
    place.react(5000, ceiling=2000)
    place.expire(IDLE_NS)
    place.react(5000, ceiling=place.value)
    assert len(place.notes) == 2


# When it does not grow


def test_an_event_from_before_the_change_is_ignored() -> None:
    place = Place()
    place.react(1250)
    place.now_ns += QUIET_NS
    place.expire()
    place.react(5000, age_ns=QUIET_NS + 1)
    assert place.value == 1250
    place.react(1500, age_ns=QUIET_NS)
    assert place.value == 1562


def test_no_growth_while_the_last_one_is_unjudged() -> None:
    place = Place()
    place.window(1000)
    place.react(2000, enough=1)
    place.window(2000, need=4000, enough=1, samples=WINDOW - 1)
    assert place.value == 2000
    place.window(2000, need=4000, enough=1, samples=1)
    assert place.value == 4000


def test_a_growth_that_nobody_needs_any_more_has_paid() -> None:
    place = Place()
    place.window(1000)
    place.react(2000, enough=1)
    assert place.due_in_ns() == QUIET_NS
    place.expire(QUIET_NS - 1)
    assert place.verdict() is Verdict.OPEN
    place.expire(1)
    assert place.verdict() is Verdict.PAID
    assert place.due_in_ns() == IDLE_NS - QUIET_NS


def test_a_far_peer_has_more_time_to_show_a_gain() -> None:
    place = Place()
    place.react(2000, rtt_us=200_000)
    assert place.due_in_ns() == 20 * 200 * MS
    place.react(0)
    assert place.due_in_ns() == QUIET_NS


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED])
def test_what_is_refused_is_not_asked_for_at_once(status: Status) -> None:
    place = Place()
    place.status = status
    place.react(2000)
    place.now_ns += REFUSED_PAUSE_NS - 1
    place.react(2000)
    assert len(place.proposals) == 1
    place.now_ns += 1
    place.react(2000)
    assert len(place.proposals) == 2


def test_what_is_stale_is() -> None:
    place = Place()
    place.status = Status.STALE
    for _ in range(3):
        place.react(2000, enough=1)
    assert len(place.proposals) == 3


def test_observing_asks_once_per_need() -> None:
    place = Place()
    place.status = Status.OBSERVED
    for need in (1500, 1500, 1400, 1600, 1500):
        place.react(need)
    assert [proposal.new[2] for proposal in place.proposals] == [1500, 1600]
    assert place.notes == []


# When it is taken back


def test_a_growth_is_judged_by_the_first_guess_where_nothing_was_measured() -> None:
    place = Place()
    place.react(1250, amount=1000.0)
    for _ in range(PATIENCE):
        place.window(1000)
    assert place.verdict() is Verdict.UNPAID
    assert place.value == 1250, "one that did not pay is no reason yet"


def test_the_second_growth_that_did_not_pay_is_taken_back() -> None:
    place = unpaid_twice()
    assert [new for _, _, new in place.changes] == [1250, 1562, 1250]
    assert place.scenarios == ["near", "near", "unpaid"]
    assert place.notes == [
        "growth stops: the last two steps changed the amount per round trip by +2.0 % and +1.0 %,"
        " less than the 5 % each has to bring; the last one is taken back"
    ]
    assert place.proposals[-1].evidence == {
        "amount_per_round": 1030,
        "amount_per_round_before": 1020,
        "idle_s": 0,
    }


def test_after_that_nothing_grows() -> None:
    place = unpaid_twice()
    for _ in range(2 * PATIENCE):
        place.window(9000, need=9000)
    assert (len(place.changes), len(place.notes)) == (3, 1)


def test_nor_does_it_as_long_as_the_limit_is_in_use() -> None:
    place = unpaid_twice()
    for _ in range(1000):
        place.expire(IDLE_NS - SECOND)
        place.react(9000)
    assert [new for _, _, new in place.changes] == [1250, 1562, 1250]


def test_a_load_that_comes_and_goes_is_waited_for_nearly_a_day_in_the_end() -> None:
    place = Place()
    for _ in range(20):
        place.react(1250)
        place.rest()
    place.react(1250)
    place.expire(QUIET_NS)
    assert place.due_in_ns() == (IDLE_NS << MAX_REGROWN) - QUIET_NS
    assert 20 < (IDLE_NS << MAX_REGROWN) / (3600 * SECOND) < 24


def test_one_that_paid_in_between_lets_it_go_on() -> None:
    place = Place()
    level = 1000.0
    place.window(level)
    for need, factor in ((1250, 1.0), (1600, 1.1), (2000, 1.0), (2500, 1.1)):
        place.react(need)
        level *= factor
        for _ in range(PATIENCE):
            place.window(level)
    assert place.scenarios == ["near"] * 4


def test_what_was_below_the_default_field_is_not_restored() -> None:
    place = unpaid_twice(default=1400, limit=ABOVE_DEFAULT)
    assert place.value == 1400
    place = unpaid_twice(default=1562, limit=ABOVE_DEFAULT)
    assert place.scenarios == ["near", "near"]
    assert place.is_frozen()


def test_delays_that_rise_with_the_limit_take_it_a_step_back() -> None:
    place = harmed()
    assert place.value == 1500
    assert place.scenarios == ["near", "delays"]
    assert place.notes == [
        "growth stops: over 15 samples the round trip time rises with the limit"
        " (correlation 1.00, above 0.7); the limit goes one step back"
    ]
    assert place.proposals[-1].evidence["correlation"] == 1.0
    place.window(9000, need=9000)
    assert place.value == 1500, "and growth is over"


def test_up_to_what_is_enough_delays_do_not_count() -> None:
    assert harmed(enough=2000).scenarios == ["near"]
    assert harmed(enough=1999).scenarios == ["near", "delays"]


def test_delays_that_do_not_rise_with_it_do_no_harm() -> None:
    assert harmed(low_us=3000, high_us=1000).scenarios == ["near"]


def test_a_step_back_that_was_refused_is_asked_for_once() -> None:
    place = Place()
    place.window(1000, rtt_us=1000, samples=MIN_SAMPLES)
    place.react(2000, enough=1)
    place.status = Status.REFUSED
    place.window(2000, rtt_us=3000, enough=0, samples=4 * WINDOW)
    assert place.scenarios == ["near", "delays"]
    assert place.is_frozen()


def test_a_limit_that_was_lowered_is_measured_anew() -> None:
    place = harmed()
    assert place.state.rtt.samples == 0
    place.window(2000, rtt_us=9000, samples=3 * MIN_SAMPLES)
    assert place.value == 1500, "of a limit that grows no more the delay says nothing"


def test_a_cost_of_another_kind_takes_it_back_as_well() -> None:
    place = Place(limit=replace(LIMIT, cost="wait for the CPU"))
    place.weigh(1.0, MIN_SAMPLES)
    place.react(2000, enough=1)
    place.weigh(3.0)
    assert place.value == 1500
    assert "the wait for the CPU rises with the limit" in place.notes[0]


def test_that_cost_is_weighed_on_after_growth_has_ended() -> None:
    place = Place()
    place.weigh(1.0, MIN_SAMPLES)
    place.react(2000, enough=1)
    place.weigh(3.0)
    place.weigh(3.0, MIN_SAMPLES)
    place.leave(1400)
    place.weigh(1.0, MIN_SAMPLES)
    assert place.value == 1050
    assert len(place.notes) == 1, "told once"


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED, Status.OBSERVED])
def test_a_retreat_that_was_not_made_is_not_asked_for_at_once(status: Status) -> None:
    place = Place()
    place.weigh(1.0, MIN_SAMPLES)
    place.react(2000, enough=1)
    place.status = status
    place.weigh(3.0, 1 + REFUSED_PAUSE_NS // (50 * MS))
    assert place.scenarios == ["near", "delays", "delays"]


def test_at_the_original_there_is_nothing_to_take_back() -> None:
    place = grown()
    place.weigh(3.0, MIN_SAMPLES)
    place.leave(1000)
    place.weigh(1.0, MIN_SAMPLES)
    assert place.scenarios == ["near"]
    assert not place.step_back()
    assert not place.is_frozen()


def test_a_policy_may_take_steps_back_for_reasons_of_its_own() -> None:
    place = grown()
    place.now_ns += STEP_BACK_NS
    assert place.step_back()
    assert (place.value, place.scenarios[-1]) == (1500, "short")
    place.now_ns += IDLE_NS - 1
    place.react(5000)
    assert place.value == 1500, "no growth for a while"
    place.now_ns += 1
    place.react(5000)
    assert place.value == 5000


def test_each_such_step_may_show_before_the_next() -> None:
    place = Place()
    place.leave(4000)
    assert place.step_back()
    place.now_ns += STEP_BACK_NS - 1
    assert not place.step_back()
    place.now_ns += 1
    assert place.step_back()
    assert place.value == 2250


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED, Status.OBSERVED])
def test_such_a_step_that_was_not_made_waits(status: Status) -> None:
    place = Place()
    place.leave(4000)
    place.status = status
    assert place.step_back()
    place.now_ns += REFUSED_PAUSE_NS - 1
    assert not place.step_back()
    place.now_ns += 1
    assert place.step_back()


# How it is given back


def test_an_idle_limit_goes_back_to_its_original_step_by_step() -> None:
    place = grown()
    place.expire(IDLE_NS - 1)
    assert place.value == 2000
    place.rest()
    steps = [(old, new) for _, old, new in place.changes[1:]]
    assert steps == [(2000, 1500), (1500, 1125), (1125, 1000)]
    assert place.scenarios[1:] == ["idle"] * 3
    times = [at_ns for at_ns, _, _ in place.changes[1:]]
    assert [later - earlier for earlier, later in pairwise(times)] == [IDLE_NS] * 2
    assert place.proposals[1].evidence["idle_s"] == IDLE_NS // SECOND


def test_it_stops_at_the_default_field() -> None:
    place = grown(limit=ABOVE_DEFAULT, default=1200)
    place.rest()
    assert place.value == 1200


def test_a_default_field_that_does_not_matter_is_no_floor() -> None:
    place = grown(default=1200)
    place.rest()
    assert place.value == 1000


def test_a_load_that_is_soon_back_is_waited_for_longer() -> None:
    place = Place()
    place.react(1250)
    place.rest()
    place.react(1250)
    assert place.value == 1250
    place.expire(QUIET_NS)
    assert place.due_in_ns() == 2 * IDLE_NS - QUIET_NS


def test_a_limit_in_use_is_not_idle() -> None:
    place = grown()
    for _ in range(5):
        place.now_ns += IDLE_NS - 1
        place.react(0)
        place.expire()
    assert place.value == 2000


def test_a_limit_that_never_moved_waits_for_nothing() -> None:
    place = Place()
    place.react(0)
    level = place.state.evidence.level
    assert place.due_in_ns() is None
    place.expire(10 * IDLE_NS)
    assert place.proposals == []
    assert place.state.evidence.level == level, "nor is anything forgotten"


def test_after_idling_at_its_original_it_may_grow_again() -> None:
    place = unpaid_twice()
    place.expire(IDLE_NS)
    assert (place.value, place.is_frozen()) == (1000, True)
    assert place.due_in_ns() == IDLE_NS
    place.react(2000)
    assert place.value == 1000
    place.expire(IDLE_NS - 1)
    assert place.is_frozen()
    place.expire(1)
    assert not place.is_frozen()
    assert place.due_in_ns() is None
    place.react(2000)
    assert place.value == 3000


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED, Status.OBSERVED, Status.STALE])
def test_a_step_down_that_was_not_made_is_due_an_idle_period_later(status: Status) -> None:
    place = grown()
    place.status = status
    place.expire(IDLE_NS)
    assert place.due_in_ns() == IDLE_NS
    assert place.state.paused_until_ns == 0, "growth needs not wait for it"
    place.status = Status.APPLIED
    place.rest()
    assert place.value == 1000


def test_nothing_is_due_while_it_is_paused() -> None:
    place = grown()
    place.now_ns += IDLE_NS - 1
    place.state.paused_until_ns = place.now_ns + REFUSED_PAUSE_NS
    assert place.due_in_ns() == REFUSED_PAUSE_NS


def test_what_was_left_behind_is_idle_from_now_on() -> None:
    place = Place()
    place.leave(1250)
    assert place.due_in_ns() == IDLE_NS
    place.expire(IDLE_NS - 1)
    assert place.value == 1250
    place.expire(1)
    assert place.value == 1000


def test_how_long_that_was_idle_is_not_known() -> None:
    place = Place()
    place.leave(1250)
    assert place.step_back()
    assert place.proposals[0].evidence["idle_s"] == 0


# What is not ours


@pytest.mark.parametrize("is_there", [True, False], ids=["the administrator's", "not in this kernel"])
def test_a_limit_that_is_not_ours_is_left_alone(is_there: bool) -> None:
    place = Place()
    place.leave(2000)
    place.there, place.adopted = is_there, False
    place.react(9000, rtt_us=1)
    place.weigh(1.0)
    place.expire(10 * IDLE_NS)
    assert not place.step_back()
    assert place.due_in_ns() is None
    assert (place.proposals, place.state) == ([], Regulator())


# Whatever comes

NEEDS = st.integers(0, 50_000)
STATUSES = [*Status, *[Status.APPLIED] * 5]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("react"), NEEDS, st.sampled_from([0, 3000, MUCH])),
        st.tuples(st.just("window"), NEEDS, st.integers(100, 5000)),
        st.tuples(st.just("weigh"), st.integers(1, 5), st.integers(1, 12)),
        st.tuples(st.just("step_back"), st.just(0), st.just(0)),
        st.tuples(st.just("rest"), st.just(0), st.sampled_from([SECOND, QUIET_NS, IDLE_NS, 5 * IDLE_NS])),
        st.tuples(st.just("supervisor"), st.just(0), st.integers(0, len(STATUSES) - 1)),
    ),
    max_size=60,
)
places = st.builds(
    Place,
    st.integers(0, 20_000),
    default=st.integers(0, 20_000),
    limit=st.sampled_from([LIMIT, ABOVE_DEFAULT]),
)


def act(place: Place, action: str, first: int, second: int) -> None:
    before = len(place.changes)
    place.now_ns += 25 * MS
    if action == "react":
        place.react(first, enough=second, rtt_us=first)
    elif action == "window":
        place.window(second, need=first, rtt_us=second)
    elif action == "weigh":
        place.weigh(first * place.value, second)
    elif action == "step_back":
        place.step_back()
    elif action == "supervisor":
        place.status = STATUSES[second]
    else:
        let_pass(place, second)
    if action in ("react", "window"):
        grown_to = [new for _, old, new in place.changes[before:] if new > old]
        assert all(new <= max(2 * first, place.original[2]) for new in grown_to), "twice what is needed"


def let_pass(place: Place, time_ns: int) -> None:
    end_ns = place.now_ns + time_ns
    while (due_ns := place.due_in_ns()) is not None and place.now_ns + due_ns < end_ns:
        place.expire(max(due_ns, SECOND))
    place.now_ns = max(place.now_ns, end_ns)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(place=places, actions=ACTIONS)
def test_it_stays_in_bounds_grows_once_and_ends_where_it_began(
    place: Place, actions: list[tuple[str, int, int]]
) -> None:
    for action in actions:
        act(place, *action)
    place.status = Status.APPLIED
    place.rest()
    original = place.original[2]
    lowest = max(original, place.original[1]) if place.limit.default_field is not None else original
    assert place.value == original or place.value <= lowest
    for at_ns, old, new in place.changes:
        assert original <= new <= CAP
        since = [change for change in place.changes if 0 <= change[0] - at_ns < IDLE_NS]
        growths = [(was, now) for _, was, now in since if now > was]
        assert len(set(growths)) == len(growths), "A -> B -> A -> B"
        assert sum(now - was for was, now in growths) <= CAP - original
        assert old != new


@settings(max_examples=50, deadline=None, derandomize=True)
@given(actions=ACTIONS)
def test_a_crash_forgets_nothing(actions: list[tuple[str, int, int]]) -> None:
    one, other = Place(), Place()
    for action in actions:
        act(one, *action)
        other.state = msgspec.msgpack.decode(msgspec.msgpack.encode(other.state), type=Regulator)
        act(other, *action)
    assert one.changes == other.changes
    assert one.notes == other.notes
