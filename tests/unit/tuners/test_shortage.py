# SPDX-License-Identifier: GPL-2.0-or-later
"""A tunable that grows because things fail for lack of it: how far, when not, what counts as a gain, and
that it is given back."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bpftune.ipc.declaration import Declaration, Scenario, Scope, Tunable
from bpftune.ipc.messages import Number, Outcome, Proposal, Status, Value
from bpftune.tuners import shortage
from bpftune.tuners.base import Decision
from bpftune.tuners.evidence import IDLE_NS, Verdict
from bpftune.tuners.shortage import (
    ENOUGH_FAILURES,
    ENOUGH_NS,
    REFUSED_PAUSE_NS,
    ROUGH_FAILURES,
    Limit,
    Shortage,
    Turn,
)
from bpftune.tuners.steps import grow
from tests.unit.tuners.lone_tunable import SECOND, LoneTunable

MS = 1_000_000
ROOM = "net.example.room"
CAP = 100_000
LIMIT = Limit(tunable=ROOM, short="short", unpaid="unpaid", idle="idle", metric="pieces per loss")
DECLARATION = Declaration(
    name="example",
    description="d",
    tunables=[Tunable(name=ROOM, scope=Scope.NETNS, width=2)],
    scenarios=[
        Scenario(id=name, name="n", why="w", reason="r") for name in ("short", "unpaid", "idle", "flood")
    ],
    probes=[],
)


class Place(LoneTunable):
    """The tunable has two fields."""

    state: Shortage

    def __init__(self, *original: int, limit: Limit = LIMIT) -> None:
        super().__init__(
            shortage, DECLARATION, limit=limit, state=Shortage(), original=original or (1000, 2000)
        )
        self.cap: Value = (CAP, CAP)
        self.changes: list[tuple[int, Value, Value]] = []
        """When, from, to."""

    @property
    def caps(self) -> Value:
        return self.cap

    def turn(self, decision: Decision) -> Turn:
        turn = shortage.take_turn(self.limit, self.situation(), self.state, decision)
        assert turn is not None
        return turn

    def grow_to(self, *wanted: int, numbers: dict[str, Number] | None = None) -> None:
        decision = Decision()
        turn = self.turn(decision)
        shortage.note_need(turn)
        shortage.grow_to(turn, wanted, numbers or {})
        self.settle(decision)

    def step_up(self) -> None:
        self.grow_to(*(grow(value, 2) for value in self.current))

    def lower(self, *wanted: int) -> None:
        decision = Decision()
        shortage.lower(self.turn(decision), wanted, "flood")
        self.settle(decision)

    def count(self, successes: int, failures: int, *, for_ns: int = ENOUGH_NS, age_ns: int = 0) -> bool:
        """What happened in the last `for_ns`, the report of which began `age_ns` before that."""
        start_ns, self.now_ns = self.now_ns - age_ns, self.now_ns + for_ns
        decision = Decision()
        ended = shortage.weigh(self.turn(decision), successes=successes, failures=failures, start_ns=start_ns)
        self.settle(decision)
        return ended

    def proposed(self, proposal: Proposal) -> None:
        assert proposal.new != self.current
        if self.status is Status.APPLIED:
            self.changes.append((self.now_ns, self.current, proposal.new))

    def tell(self, outcome: Outcome) -> None:
        shortage.settle(self.limit, outcome, self.now_ns, self.state)


def grown_from(share: int) -> Place:
    """One step, after which a verdict is due; before it there were `share` successes per failure."""
    place = Place()
    place.count(share * ENOUGH_FAILURES, ENOUGH_FAILURES)
    place.step_up()
    assert place.current == (1250, 2500)
    return place


def unpaid_twice() -> Place:
    place = grown_from(9)
    place.count(9180, ENOUGH_FAILURES)
    place.step_up()
    assert place.count(9270, ENOUGH_FAILURES)
    return place


def taken_back() -> Place:
    """A step up, and down again while it is needed."""
    place = Place()
    place.step_up()
    place.lower(*place.original)
    assert place.current == place.original
    return place


def decayed() -> Place:
    """A step up, and down again for lack of need."""
    place = Place()
    place.step_up()
    place.rest()
    assert place.current == place.original
    return place


# How far it grows


def test_it_grows_to_what_is_wanted() -> None:
    place = Place()
    place.grow_to(1500, 2000, numbers={"lost": 7})
    assert place.current == (1500, 2000)
    assert place.proposals[0].evidence == {
        "lost": 7,
        "successes_per_failure": 0.0,
        "successes_per_failure_before": 0.0,
        "idle_s": 0,
    }


def test_where_nothing_is_weighed_it_says_nothing_of_it() -> None:
    place = Place(limit=replace(LIMIT, metric=""))
    place.grow_to(1500, 2000)
    assert place.proposals[0].evidence == {"idle_s": 0}


def test_each_field_has_its_cap() -> None:
    place = Place()
    place.cap = (1100, 9000)
    place.grow_to(5000, 5000)
    assert place.current == (1100, 5000)


def test_growing_lowers_no_field() -> None:
    place = Place()
    place.cap = (900, 9000)
    place.grow_to(5000, 100)
    assert place.proposals == []
    place.grow_to(10, 5000)
    assert place.current == (1000, 5000)


def test_a_tunable_at_its_cap_says_so_once() -> None:
    place = Place()
    place.cap = place.original
    for _ in range(3):
        place.grow_to(1250, 2500)
    assert place.notes == ["1000 2000 is as far as it may go; 1250 2500 would be the next step"]
    assert place.proposals == []


def test_one_field_that_is_short_of_room_is_enough_for_that() -> None:
    place = Place()
    place.cap = place.original
    place.grow_to(1000, 2500)
    assert place.notes == ["1000 2000 is as far as it may go; 1000 2500 would be the next step"]


def test_a_need_that_is_met_is_no_cap() -> None:
    place = Place()
    place.grow_to(500, 2000)
    assert (place.proposals, place.notes) == ([], [])


def test_of_a_growth_to_the_cap_the_supervisor_tells() -> None:
    place = Place()
    place.cap = (1250, 2500)
    place.step_up()
    place.step_up()
    assert (place.current, place.notes) == (place.cap, [])


def test_the_cap_is_told_again_after_the_tunable_went_down() -> None:
    place = Place()
    place.cap = place.original
    place.step_up()
    place.current = (1250, 2000)
    place.rest()
    place.step_up()
    assert len(place.notes) == 2


# When it does not grow


def test_no_growth_while_the_last_one_is_unjudged_and_things_fail() -> None:
    place = grown_from(9)
    place.count(9, 1, for_ns=ENOUGH_NS - 1)
    place.step_up()
    assert place.current == (1250, 2500)
    place.count(20 * ENOUGH_FAILURES, ENOUGH_FAILURES, for_ns=1)
    place.step_up()
    assert place.current == (1562, 3125)


def test_where_nothing_fails_any_more_there_is_nothing_to_wait_for() -> None:
    place = grown_from(9)
    place.count(1, 0)
    place.step_up()
    assert place.current == (1562, 3125)


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED])
def test_what_is_refused_is_not_asked_for_at_once(status: Status) -> None:
    place = Place()
    place.status = status
    place.step_up()
    place.now_ns += REFUSED_PAUSE_NS - 1
    place.step_up()
    assert len(place.proposals) == 1
    place.now_ns += 1
    place.step_up()
    assert len(place.proposals) == 2


def test_what_is_stale_is() -> None:
    place = Place()
    place.status = Status.STALE
    for _ in range(3):
        place.step_up()
    assert len(place.proposals) == 3


def test_observing_asks_once_per_need() -> None:
    place = Place()
    place.status = Status.OBSERVED
    for wanted in ((1500, 2000), (1500, 2000), (1400, 2000), (1500, 2001), (1500, 2001)):
        place.grow_to(*wanted)
    assert [proposal.new for proposal in place.proposals] == [(1500, 2000), (1500, 2001)]
    assert place.notes == []


# What counts as a gain


def test_a_growth_after_which_less_fails_has_paid() -> None:
    place = grown_from(9)
    assert not place.count(10 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert place.verdict() is Verdict.PAID


def test_one_that_did_not_pay_is_no_reason_yet() -> None:
    place = grown_from(9)
    assert not place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert place.verdict() is Verdict.UNPAID
    assert (place.current, place.notes) == ((1250, 2500), [])


def test_a_verdict_takes_a_second() -> None:
    place = grown_from(9)
    place.count(20 * ENOUGH_FAILURES, ENOUGH_FAILURES, for_ns=ENOUGH_NS - 1)
    assert place.verdict() is Verdict.OPEN
    place.count(0, 0, for_ns=1)
    assert place.verdict() is Verdict.PAID


def test_a_verdict_takes_a_thousand_failures() -> None:
    place = grown_from(9)
    assert not place.count(8 * ENOUGH_FAILURES, ENOUGH_FAILURES - 1)
    assert place.verdict() is Verdict.OPEN
    place.count(0, 1, for_ns=0)
    assert place.verdict() is Verdict.UNPAID


def test_or_as_many_as_there_would_have_been() -> None:
    place = grown_from(9)
    place.count(9 * ENOUGH_FAILURES - 1, 0)
    assert place.verdict() is Verdict.OPEN
    place.count(100, 0, for_ns=0)
    assert place.verdict() is Verdict.PAID


def test_what_began_before_the_change_does_not_count() -> None:
    place = grown_from(9)
    assert not place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES, age_ns=1)
    assert place.state.tally.failures == 0
    assert place.verdict() is Verdict.OPEN


def test_every_verdict_is_on_counts_of_its_own() -> None:
    place = grown_from(9)
    place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert (place.state.tally.successes, place.state.tally.failures) == (0, 0)
    place.count(5, 5, for_ns=0)
    place.step_up()
    assert place.state.tally.failures == 0, "and so is what comes after a change"


def test_a_first_growth_is_compared_with_few_failures() -> None:
    place = Place()
    place.count(9 * ROUGH_FAILURES, ROUGH_FAILURES, for_ns=MS)
    place.step_up()
    place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert place.verdict() is Verdict.UNPAID


def test_with_fewer_there_is_nothing_to_compare_it_with() -> None:
    place = Place()
    place.count(9 * ROUGH_FAILURES, ROUGH_FAILURES - 1, for_ns=MS)
    place.step_up()
    place.count(ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert place.verdict() is Verdict.PAID


def test_a_measured_share_is_not_replaced_by_a_rough_one() -> None:
    place = Place()
    place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    place.count(90 * ROUGH_FAILURES, ROUGH_FAILURES, for_ns=MS)
    place.step_up()
    assert place.state.evidence.before == pytest.approx(9, rel=0.01)


def test_one_more_success_is_counted_so_that_none_is_a_number() -> None:
    place = grown_from(9)
    place.count(10 * ENOUGH_FAILURES, 0)
    assert (place.state.evidence.before, place.state.evidence.level) == (9.001, 10_001)


def test_where_nothing_succeeds_it_is_a_matter_of_failures() -> None:
    place = grown_from(0)
    place.count(0, ENOUGH_FAILURES)
    assert place.verdict() is Verdict.UNPAID


# When it is taken back


def test_the_second_growth_that_did_not_pay_is_taken_back() -> None:
    place = unpaid_twice()
    assert [new for _, _, new in place.changes] == [(1250, 2500), (1562, 3125), (1250, 2500)]
    assert place.scenarios == ["short", "short", "unpaid"]
    assert place.notes == [
        "growth stops: the last two steps changed the pieces per loss by +2.0 % and +1.0 %,"
        " less than the 5 % that a step has to bring; the last one is taken back"
    ]
    assert place.proposals[-1].evidence["successes_per_failure_before"] == 9.181
    place.step_up()
    assert place.current == (1250, 2500), "and growth is over"


def test_a_step_to_the_cap_is_taken_back_at_once() -> None:
    place = Place()
    place.cap = (1250, 2500)
    place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    place.step_up()
    assert place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert place.current == place.original
    assert "the step to the cap changed the pieces per loss by +0.0 %, less" in place.notes[0]


def test_a_step_to_the_cap_that_paid_stays() -> None:
    place = Place()
    place.cap = (1250, 2500)
    place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    place.step_up()
    assert not place.count(10 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert place.current == place.cap


def test_one_field_at_its_cap_is_not_the_end() -> None:
    place = Place()
    place.cap = (1250, 9000)
    place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    place.step_up()
    assert not place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert place.current == (1250, 2500)


def test_one_that_paid_in_between_lets_it_go_on() -> None:
    place = grown_from(9)
    for share in (9, 10, 10, 11):
        assert not place.count(share * ENOUGH_FAILURES, ENOUGH_FAILURES)
        place.step_up()
    assert place.scenarios == ["short"] * 5


def test_a_step_that_has_partly_gone_is_taken_back_no_further_than_to_the_original() -> None:
    place = Place()
    place.current = (1600, 2600)
    place.lower(100, 2500)
    assert place.current == (1000, 2500)


def test_lowering_raises_no_field() -> None:
    place = Place()
    place.current = (1600, 2600)
    place.lower(1500, 9000)
    assert place.current == (1500, 2600)
    place.lower(1500, 2600)
    assert len(place.proposals) == 1


# Not back and forth


def test_what_was_just_taken_back_is_not_taken_again() -> None:
    place = taken_back()
    place.step_up()
    assert place.current == place.original
    assert place.notes == ["it would go back to 1250 2500, which was just taken back: no growth for now"]
    place.grow_to(9000, 9000)
    assert place.current == place.original, "nor anything else"
    assert len(place.notes) == 1


def test_what_decayed_is_taken_again_as_soon_as_it_is_needed() -> None:
    place = decayed()
    for _ in range(3):
        place.step_up()
        assert (place.current, place.notes) == ((1250, 2500), [])
        place.rest()


def test_what_did_not_pay_is_not_taken_again_while_it_is_wanted() -> None:
    place = unpaid_twice()
    for _ in range(1000):
        place.step_up()
        place.expire(IDLE_NS - 2 * ENOUGH_NS)
        place.count(9 * ENOUGH_FAILURES, ENOUGH_FAILURES)
    assert place.current == (1250, 2500)


def test_wanted_again_after_that_it_goes_beyond() -> None:
    place = taken_back()
    place.step_up()
    place.rest()
    place.step_up()
    assert place.current == (1562, 3125)
    assert len(place.notes) == 1


def test_a_field_above_its_cap_stays_where_it_is() -> None:
    place = Place(1000, 5000)
    place.cap = (CAP, 4000)
    place.step_up()
    place.lower(*place.original)
    place.step_up()
    place.rest()
    place.step_up()
    assert place.current == (1562, 5000)


def test_at_the_cap_it_comes_back_when_it_was_wanted_twice() -> None:
    place = Place()
    place.cap = (1250, 2500)
    for _ in range(3):
        place.step_up()
        assert place.current == place.cap
        place.lower(*place.original)
        place.step_up()
        assert place.current == place.original
        place.rest()


def test_another_value_than_that_is_no_swing() -> None:
    place = taken_back()
    place.grow_to(1250, 2501)
    assert place.current == (1250, 2501)


def test_a_growth_puts_an_end_to_the_suspicion() -> None:
    place = taken_back()
    place.step_up()
    place.rest()
    place.step_up()
    place.lower(*place.original)
    _, last_taken_back, _ = place.changes[-1]
    place.grow_to(*last_taken_back)
    assert place.current == place.original
    assert len(place.notes) == 2, "a new one is refused once as well"


def test_what_would_go_beyond_is_observed_once() -> None:
    place = taken_back()
    place.step_up()
    place.rest()
    place.status = Status.OBSERVED
    for _ in range(3):
        place.step_up()
    assert place.proposals[-1].new == (1562, 3125)
    assert place.scenarios.count("short") == 2


# How it is given back


def test_an_idle_tunable_goes_back_to_its_original_step_by_step() -> None:
    place = Place(1000, 1000)
    place.grow_to(2000, 1250)
    place.expire(IDLE_NS - SECOND)
    assert place.current == (2000, 1250)
    place.rest()
    assert [new for _, _, new in place.changes[1:]] == [(1500, 1000), (1125, 1000), (1000, 1000)]
    assert place.scenarios[1:] == ["idle"] * 3
    times = [at_ns for at_ns, _, _ in place.changes]
    assert [later - earlier for earlier, later in pairwise(times)] == [IDLE_NS] * 3
    assert place.proposals[1].evidence["idle_s"] == IDLE_NS // SECOND


def test_no_step_comes_too_early() -> None:
    place = Place()
    place.step_up()
    place.expire(IDLE_NS - 1)
    assert place.current == (1250, 2500)
    place.expire(1)
    assert place.current == place.original


def test_a_load_that_is_soon_back_is_waited_for_longer() -> None:
    place = decayed()
    place.grow_to(1300, 2000)
    assert place.due_in_ns() == 2 * IDLE_NS


def test_one_that_was_pushed_back_is_not() -> None:
    place = Place()
    place.step_up()
    place.lower(*place.original)
    place.grow_to(1300, 2000)
    assert place.due_in_ns() == IDLE_NS


def test_a_tunable_in_use_is_not_idle() -> None:
    place = Place()
    place.step_up()
    for _ in range(5):
        place.now_ns += IDLE_NS - 1
        shortage.note_need(place.turn(Decision()))
        place.expire()
    assert place.current == (1250, 2500)


def test_a_tunable_that_never_moved_waits_for_nothing() -> None:
    place = Place()
    place.count(ENOUGH_FAILURES, ENOUGH_FAILURES)
    level = place.state.evidence.level
    assert place.due_in_ns() is None
    place.expire(10 * IDLE_NS)
    assert place.proposals == []
    assert place.state.evidence.level == level, "nor is anything forgotten"


def test_after_idling_at_its_original_it_may_grow_again() -> None:
    place = unpaid_twice()
    place.expire(IDLE_NS)
    assert (place.current, place.is_frozen()) == (place.original, True)
    assert place.due_in_ns() == IDLE_NS
    place.expire(IDLE_NS - 1)
    assert place.is_frozen()
    place.expire(1)
    assert not place.is_frozen()
    assert place.due_in_ns() is None


@pytest.mark.parametrize("status", [Status.REFUSED, Status.FAILED, Status.OBSERVED, Status.STALE])
def test_a_step_down_that_was_not_made_is_due_a_while_later(status: Status) -> None:
    place = Place()
    place.step_up()
    place.status = status
    place.expire(IDLE_NS)
    assert place.due_in_ns() == REFUSED_PAUSE_NS
    place.expire(REFUSED_PAUSE_NS - 1)
    assert len(place.proposals) == 2
    place.status = Status.APPLIED
    place.expire(1)
    assert place.current == place.original


def test_what_was_left_behind_is_idle_from_now_on() -> None:
    place = Place()
    place.current = (1250, 2000)
    assert place.due_in_ns() == IDLE_NS
    place.expire(IDLE_NS - 1)
    assert place.current == (1250, 2000)
    place.expire(1)
    assert place.current == place.original


# What is not ours


@pytest.mark.parametrize("is_there", [True, False], ids=["the administrator's", "not in this kernel"])
def test_a_tunable_that_is_not_ours_is_left_alone(is_there: bool) -> None:
    place = Place()
    place.current = (9000, 9000)
    place.there, place.adopted = is_there, False
    assert shortage.take_turn(LIMIT, place.situation(), place.state, Decision()) is None
    place.expire(10 * IDLE_NS)
    assert place.due_in_ns() is None
    assert (place.proposals, place.state) == ([], Shortage())


# Whatever comes

STATUSES = [*Status, *[Status.APPLIED] * 5]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("grow_to"), st.integers(0, 50_000), st.integers(0, 50_000)),
        st.tuples(st.just("step_up"), st.just(0), st.just(0)),
        st.tuples(st.just("count"), st.integers(0, 20_000), st.integers(0, 2000)),
        st.tuples(st.just("lower"), st.integers(0, 20_000), st.integers(0, 20_000)),
        st.tuples(st.just("rest"), st.just(0), st.sampled_from([SECOND, IDLE_NS, 5 * IDLE_NS])),
        st.tuples(st.just("supervisor"), st.just(0), st.integers(0, len(STATUSES) - 1)),
    ),
    max_size=60,
)
places = st.builds(Place, st.integers(0, 20_000), st.integers(0, 200_000))


def act(place: Place, action: str, first: int, second: int) -> None:
    place.now_ns += 25 * MS
    if action == "grow_to":
        place.grow_to(first, second)
    elif action == "step_up":
        place.step_up()
    elif action == "count":
        place.count(first, second)
    elif action == "lower":
        place.lower(first, second)
    elif action == "supervisor":
        place.status = STATUSES[second]
    else:
        let_pass(place, second)


def let_pass(place: Place, time_ns: int) -> None:
    end_ns = place.now_ns + time_ns
    while (due_ns := place.due_in_ns()) is not None and place.now_ns + due_ns < end_ns:
        place.expire(max(due_ns, SECOND))
    place.now_ns = max(place.now_ns, end_ns)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(place=places, actions=ACTIONS)
def test_it_stays_in_bounds_does_not_swing_and_ends_where_it_began(
    place: Place, actions: list[tuple[str, int, int]]
) -> None:
    for action in actions:
        act(place, *action)
    place.status = Status.APPLIED
    place.rest()
    assert place.current == place.original
    for _, old, new in place.changes:
        for first, cap, before, after in zip(place.original, place.cap, old, new, strict=True):
            assert first <= after <= max(first, before, cap)
        ups = [after > before for before, after in zip(old, new, strict=True)]
        downs = [after < before for before, after in zip(old, new, strict=True)]
        assert any(ups) != any(downs)
    check_no_swing(place)


def check_no_swing(place: Place) -> None:
    """A -> B -> A -> B only where nothing needed B for a whole idle period in between."""
    for first, second, third in zip(place.changes, place.changes[1:], place.changes[2:], strict=False):
        if first[1:] == third[1:] and second[1:] == (first[2], first[1]):
            assert third[0] - first[0] >= IDLE_NS, (first, second, third)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(actions=ACTIONS)
def test_a_crash_forgets_nothing(actions: list[tuple[str, int, int]]) -> None:
    one, other = Place(), Place()
    for action in actions:
        act(one, *action)
        other.state = msgspec.msgpack.decode(msgspec.msgpack.encode(other.state), type=Shortage)
        act(other, *action)
    assert one.changes == other.changes
    assert one.notes == other.notes
