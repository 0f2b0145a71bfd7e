# SPDX-License-Identifier: GPL-2.0-or-later
"""net_buffer: room while it makes losses rarer, the budget while tasks do not pay for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.messages import Status
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.net_buffer.policy import BACKLOG, BUDGET, BUDGET_USECS, FLOW_LIMIT, WINDOW_NS, NetBuffer

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import FakeKernel

MakeKernel = Callable[..., "FakeKernel"]
MS = 1_000_000
SECOND = 1000 * MS
VALUES = {BACKLOG.tunable: (1000,), FLOW_LIMIT: (0,), BUDGET.tunable: (300,), BUDGET_USECS: (8000,)}
CAPS = {BACKLOG.tunable: 1 << 17, FLOW_LIMIT: (1 << 300) - 1, BUDGET.tunable: 4096, BUDGET_USECS: 20_000}


def drop(kernel: FakeKernel, drops: int, *, after_ns: int = SECOND, cpu: int | None = 0) -> None:
    kernel.now_ns += after_ns
    cpu_number = 0 if cpu is None else cpu + 1
    kernel.send(BACKLOG.near, {"drops": drops, "interval_ns": after_ns, "cpu_number": cpu_number})


def squeeze(kernel: FakeKernel, squeezes: int) -> None:
    kernel.now_ns += SECOND
    kernel.send(BUDGET.near, {"squeezes": squeezes, "interval_ns": SECOND})


def load(kernel: FakeKernel, *, waiting: int, running: int = 100) -> None:
    numbers = {"packets": 50_000, "interval_ns": SECOND, "waiting": waiting, "running": running}
    kernel.send("receive_load", numbers)


def value(kernel: FakeKernel, tunable: str) -> int:
    return kernel.values[tunable][0]


@pytest.fixture
def kernel(make_kernel: MakeKernel) -> FakeKernel:
    made = make_kernel("net_buffer", NetBuffer(), VALUES)
    made.caps = dict(CAPS)
    return made


def test_drops_above_a_32nd_grow_the_backlog_and_limit_flows(kernel: FakeKernel) -> None:
    drop(kernel, 32, cpu=5)
    assert value(kernel, BACKLOG.tunable) == 1250
    assert value(kernel, FLOW_LIMIT) == 1 << 5


def test_fewer_drops_in_a_window_are_tolerated(kernel: FakeKernel) -> None:
    for _ in range(31):
        drop(kernel, 1)
    assert kernel.proposals == []
    drop(kernel, 1)
    assert kernel.proposals


def test_drops_of_an_earlier_window_do_not_count(kernel: FakeKernel) -> None:
    for _ in range(100):
        drop(kernel, 20)
        kernel.now_ns += WINDOW_NS
    assert kernel.proposals == []


def test_the_mask_keeps_the_bits_it_has_and_takes_any_cpu(kernel: FakeKernel) -> None:
    kernel.values[FLOW_LIMIT] = kernel.originals[FLOW_LIMIT] = (0b10,)
    drop(kernel, 100, cpu=0)
    drop(kernel, 100, cpu=255)
    assert value(kernel, FLOW_LIMIT) == 1 << 255 | 0b11


def test_a_drop_on_an_unknown_cpu_sets_no_bit(kernel: FakeKernel) -> None:
    drop(kernel, 100, cpu=None)
    assert [proposal.tunable for proposal in kernel.proposals] == [BACKLOG.tunable]


def test_growth_goes_on_while_drops_get_rarer(kernel: FakeKernel) -> None:
    for _ in range(60):
        drop(kernel, 200_000 // value(kernel, BACKLOG.tunable))
    history = kernel.history(BACKLOG.tunable)
    assert len(history) > 5
    assert history == sorted(history)


def test_growth_that_saves_nothing_ends_and_gives_the_last_step_back(kernel: FakeKernel) -> None:
    for _ in range(200):
        drop(kernel, 5000)
    assert kernel.history(BACKLOG.tunable) == [1000, 1250, 1562, 1250]
    (note,) = kernel.notes
    assert "time per drop" in note.text


def test_a_growth_after_which_nothing_drops_has_paid(kernel: FakeKernel) -> None:
    for _ in range(4):
        drop(kernel, 1000)
        kernel.run_until(kernel.now_ns + 60 * SECOND)
    assert len(kernel.history(BACKLOG.tunable)) == 5


def test_idle_backlog_and_mask_go_back(kernel: FakeKernel) -> None:
    drop(kernel, 100, cpu=1)
    kernel.run_until(kernel.now_ns + 10 * IDLE_NS)
    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None


def test_a_mask_that_the_kernel_refuses_is_not_written_again_soon(kernel: FakeKernel) -> None:
    kernel.status = Status.REFUSED
    for _ in range(100):
        drop(kernel, 5000)
    assert [proposal.tunable for proposal in kernel.proposals].count(FLOW_LIMIT) == 1


def test_a_cpu_that_this_machine_cannot_have_is_in_no_mask(kernel: FakeKernel) -> None:
    kernel.caps[FLOW_LIMIT] = 0b1111
    drop(kernel, 5000, cpu=5)
    assert value(kernel, FLOW_LIMIT) == 0


def test_squeezes_raise_budget_and_time_together(kernel: FakeKernel) -> None:
    squeeze(kernel, 100)
    assert value(kernel, BUDGET.tunable) == 375
    assert value(kernel, BUDGET_USECS) == 10_000


def test_time_stops_at_its_cap_and_the_budget_goes_on(kernel: FakeKernel) -> None:
    for _ in range(100):
        squeeze(kernel, 500_000 // value(kernel, BUDGET.tunable))
    assert value(kernel, BUDGET_USECS) == 20_000
    assert value(kernel, BUDGET.tunable) > 750


def test_time_at_its_cap_goes_down_with_the_budget_all_the_same(kernel: FakeKernel) -> None:
    kernel.values[BUDGET.tunable], kernel.values[BUDGET_USECS] = (2000,), (20_000,)
    kernel.wake_at_ns = kernel.now_ns
    kernel.run_until(kernel.now_ns + 3 * IDLE_NS // 2)
    assert (value(kernel, BUDGET.tunable), value(kernel, BUDGET_USECS)) == (1500, 15_000)


def test_a_kernel_without_budget_usecs(make_kernel: MakeKernel) -> None:
    kernel = make_kernel("net_buffer", NetBuffer(), {BUDGET.tunable: (300,)})
    squeeze(kernel, 100)
    assert value(kernel, BUDGET.tunable) == 375
    drop(kernel, 1000)
    assert len(kernel.proposals) == 1


def test_an_idle_budget_goes_back_with_its_time(kernel: FakeKernel) -> None:
    squeeze(kernel, 100)
    kernel.run_until(kernel.now_ns + 10 * IDLE_NS)
    assert kernel.values == kernel.originals


def test_squeezes_that_stay_end_the_growth(kernel: FakeKernel) -> None:
    for _ in range(100):
        squeeze(kernel, 1000)
    assert kernel.history(BUDGET.tunable) == [300, 375, 468, 375]
    assert value(kernel, BUDGET_USECS) == 8000 * 375 // 300
    assert "time per squeeze" in kernel.notes[0].text


def test_tasks_that_wait_more_with_the_budget_shrink_both(kernel: FakeKernel) -> None:
    for _ in range(30):
        budget = value(kernel, BUDGET.tunable)
        squeeze(kernel, 300_000 // budget)
        load(kernel, waiting=budget)
        if "budget_growth_delays" in [proposal.scenario for proposal in kernel.proposals]:
            break
    history = kernel.history(BUDGET.tunable)
    assert history[-1] == history[-2] - (history[-2] >> 2)
    times = kernel.history(BUDGET_USECS)
    assert times[-1] < times[-2]
    assert "share of waiting tasks rises" in kernel.notes[0].text
    assert kernel.proposals[-2].evidence["correlation"] > 0.7


def test_after_that_it_does_not_grow_again(kernel: FakeKernel) -> None:
    for _ in range(100):
        budget = value(kernel, BUDGET.tunable)
        squeeze(kernel, 300_000 // budget)
        load(kernel, waiting=budget)
    history = kernel.history(BUDGET.tunable)
    top = history.index(max(history))
    assert history[: top + 1] == sorted(history[: top + 1])
    assert history[top:] == sorted(history[top:], reverse=True)


def test_tasks_that_wait_for_other_reasons_change_nothing(kernel: FakeKernel) -> None:
    for turn in range(40):
        squeeze(kernel, 300_000 // value(kernel, BUDGET.tunable))
        load(kernel, waiting=500 if turn % 2 else 10)
    history = kernel.history(BUDGET.tunable)
    assert history == sorted(history)
    assert len(history) > 4


def test_nobody_waiting_at_all_is_fine(kernel: FakeKernel) -> None:
    load(kernel, waiting=0, running=0)
    assert kernel.proposals == []


def test_what_sysctl_d_sets_is_left_alone(kernel: FakeKernel) -> None:
    kernel.adopted = False
    drop(kernel, 5000)
    squeeze(kernel, 5000)
    load(kernel, waiting=100)
    assert kernel.proposals == []


def test_an_observed_growth_is_proposed_once(kernel: FakeKernel) -> None:
    kernel.status = Status.OBSERVED
    for _ in range(10):
        drop(kernel, 5000)
        squeeze(kernel, 500)
    assert sorted(proposal.tunable for proposal in kernel.proposals) == sorted(
        [BACKLOG.tunable, FLOW_LIMIT, BUDGET.tunable]
    )


STEP = st.one_of(
    st.tuples(st.just("drop"), st.integers(1, 1 << 20), st.integers(0, 400)),
    st.tuples(st.just("squeeze"), st.integers(1, 1 << 20), st.just(0)),
    st.tuples(st.just("load"), st.integers(0, 1000), st.integers(0, 1000)),
    st.tuples(st.just("pause"), st.integers(1, 2 * IDLE_NS), st.just(0)),
)


def play(kernel: FakeKernel, steps: list[tuple[str, int, int]]) -> None:
    for what, first, second in steps:
        if what == "drop":
            drop(kernel, first, cpu=second % 300)
        elif what == "squeeze":
            squeeze(kernel, first)
        elif what == "load":
            load(kernel, waiting=first, running=second)
        else:
            kernel.run_until(kernel.now_ns + first)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, max_size=60), shift=st.integers(2, 6))
def test_whatever_happens_the_limits_stay_in_bounds(
    make_kernel: MakeKernel, steps: list[tuple[str, int, int]], shift: int
) -> None:
    kernel = make_kernel("net_buffer", NetBuffer(), VALUES)
    kernel.caps, kernel.shift = dict(CAPS), shift
    play(kernel, steps)
    for tunable, _, new in kernel.changes:
        if tunable != FLOW_LIMIT:
            assert VALUES[tunable][0] <= new[0] <= CAPS[tunable]
    kernel.run_until(kernel.now_ns + (2000 << 8) * IDLE_NS)
    assert kernel.values == kernel.originals


@settings(max_examples=60, deadline=None)
@given(rates=st.lists(st.integers(1, 100_000), min_size=1, max_size=4), shift=st.integers(2, 6))
def test_no_to_and_fro_under_a_lasting_load(make_kernel: MakeKernel, rates: list[int], shift: int) -> None:
    kernel = make_kernel("net_buffer", NetBuffer(), VALUES)
    kernel.caps, kernel.shift = dict(CAPS), shift
    for turn in range(300):
        drop(kernel, rates[turn % len(rates)])
        squeeze(kernel, rates[turn % len(rates)])
    for tunable in (BACKLOG.tunable, BUDGET.tunable):
        history = kernel.history(tunable)
        turns = [(b - a) * (c - b) < 0 for a, b, c in zip(history, history[1:], history[2:], strict=False)]
        assert sum(turns) <= 1
