# SPDX-License-Identifier: GPL-2.0-or-later
"""route_table, as it is on kernels that enforce its limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.messages import Status
from bpftune.supervisor.applicability import inactive_reason
from bpftune.tuners.evidence import IDLE_NS
from bpftune.tuners.route_table.policy import MAX_SIZE, NEAR, RouteTable
from bpftune.tuners.steps import nearly_full

if TYPE_CHECKING:
    from tests.unit.tuners.conftest import FakeKernel

MakeKernel = Callable[..., "FakeKernel"]
MS = 1_000_000
CAP = 1 << 20
FOLDER = Path(__file__).parents[3] / "tuners" / "route_table"


def near(kernel: FakeKernel, entries: int) -> None:
    kernel.now_ns += 25 * MS
    kernel.send(NEAR, {"entries": entries, "limit": kernel.values[MAX_SIZE][0]})


@pytest.fixture
def kernel(make_kernel: MakeKernel) -> FakeKernel:
    return make_kernel("route_table", RouteTable(), {MAX_SIZE: (4096,)}, cap=CAP)


def test_a_table_that_fills_slowly_grows_by_a_step(kernel: FakeKernel) -> None:
    near(kernel, 3072)
    assert kernel.history(MAX_SIZE) == [4096, 5120]


def test_a_table_that_has_overtaken_its_limit_gets_room_at_once(kernel: FakeKernel) -> None:
    near(kernel, 10_000)
    (limit,) = kernel.values[MAX_SIZE]
    assert not nearly_full(10_000, limit, kernel.shift)
    assert limit < 2 * 10_000


def test_each_event_may_grow_it_further(kernel: FakeKernel) -> None:
    for entries in (4000, 5300, 7000, 9400):
        near(kernel, entries)
    assert len(kernel.changes) == 4


def test_the_cap_is_the_end(kernel: FakeKernel) -> None:
    for _ in range(5):
        near(kernel, 2_000_000)
    assert kernel.values[MAX_SIZE] == (CAP,)
    assert kernel.notes == [], "the supervisor tells of a growth that came to the cap"


def test_a_limit_that_was_at_the_cap_from_the_start_is_noted_once(kernel: FakeKernel) -> None:
    kernel.values[MAX_SIZE] = kernel.originals[MAX_SIZE] = (CAP,)
    for _ in range(5):
        near(kernel, 2_000_000)
    assert kernel.values[MAX_SIZE] == (CAP,)
    assert len(kernel.notes) == 1


def test_idle_growth_decays_to_the_original(kernel: FakeKernel) -> None:
    near(kernel, 10_000)
    grown = kernel.values[MAX_SIZE][0]
    kernel.run_until(kernel.now_ns + IDLE_NS + 1000 * MS)
    assert kernel.values[MAX_SIZE] == (grown - (grown >> 2),)
    kernel.run_until(kernel.now_ns + 20 * IDLE_NS)
    assert kernel.values == kernel.originals
    assert kernel.wake_at_ns is None


def test_a_load_that_comes_and_goes_decays_ever_later(kernel: FakeKernel) -> None:
    waits = []
    for _ in range(4):
        near(kernel, 10_000)
        assert kernel.wake_at_ns is not None
        waits.append(round((kernel.wake_at_ns - kernel.now_ns) / IDLE_NS))
        kernel.run_until(kernel.wake_at_ns)
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]


def test_growth_left_behind_by_an_earlier_run_decays_too(kernel: FakeKernel) -> None:
    kernel.values[MAX_SIZE] = (9000,)
    kernel.wake_at_ns = kernel.now_ns
    kernel.run_until(kernel.now_ns + 20 * IDLE_NS)
    assert kernel.values == kernel.originals


def test_a_refusal_is_not_asked_for_again_soon(kernel: FakeKernel) -> None:
    kernel.status = Status.REFUSED
    for _ in range(100):
        near(kernel, 4000)
    assert len(kernel.proposals) == 1


def test_an_observed_growth_is_proposed_once(kernel: FakeKernel) -> None:
    kernel.status = Status.OBSERVED
    for _ in range(10):
        near(kernel, 4000)
    assert len(kernel.proposals) == 1


def test_what_sysctl_d_sets_is_left_alone(kernel: FakeKernel) -> None:
    kernel.adopted = False
    near(kernel, 4096)
    assert kernel.proposals == []


def test_inactive_where_the_default_is_no_limit() -> None:
    declaration = load_declaration(FOLDER)
    assert inactive_reason(declaration, read=lambda tunable: (4096,)) is None
    reason = inactive_reason(declaration, read=lambda tunable: (2**31 - 1,))
    assert reason is not None
    assert "does not enforce net.ipv6.route.max_size" in reason


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 1 << 21), st.integers(0, 3 * IDLE_NS)), max_size=40),
    original=st.integers(1, 1 << 20),
    shift=st.integers(2, 6),
)
def test_whatever_happens_the_limit_stays_in_bounds(
    make_kernel: MakeKernel, steps: list[tuple[int, int]], original: int, shift: int
) -> None:
    kernel = make_kernel("route_table", RouteTable(), {MAX_SIZE: (original,)}, cap=CAP)
    kernel.shift = shift
    for entries, pause_ns in steps:
        near(kernel, entries)
        kernel.run_until(kernel.now_ns + pause_ns)
        assert original <= kernel.values[MAX_SIZE][0] <= CAP
    assert all(proposal.new != proposal.expected for proposal in kernel.proposals)
    kernel.run_until(kernel.now_ns + (2000 << 8) * IDLE_NS)
    assert kernel.values == kernel.originals
