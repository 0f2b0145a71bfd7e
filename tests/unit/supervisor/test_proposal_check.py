# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.ipc.declaration import Declaration, Scenario, Scope, Tunable, Writer
from bpftune.ipc.messages import GLOBAL, Proposal, Value
from bpftune.supervisor.proposal_check import declaration_refusal, reaches_cap, value_refusal
from bpftune.supervisor.quantities import Bounds

RMEM = Tunable(name="net.ipv4.tcp_rmem", scope=Scope.NETNS, width=3, moves=[2])
MEM = Tunable(name="net.ipv4.tcp_mem", scope=Scope.GLOBAL, width=3)
SOCKET = Tunable(name="net.persock.tcp.cc", scope=Scope.NETNS, writer=Writer.SOCKET)
DECLARATION = Declaration(
    name="tcp_buffer",
    description="d",
    tunables=[RMEM, MEM, SOCKET],
    scenarios=[Scenario(id="full", name="n", tunable=RMEM.name, why="w", reason="r")],
    probes=[],
)
FIELDS = st.tuples(*[st.integers(-(1 << 70), 1 << 70)] * 3)


def proposal(
    tunable: str = RMEM.name, *, cookie: int = 7, new: Value = (1, 2, 3), scenario: str = "full"
) -> Proposal:
    return Proposal(
        tunable=tunable, netns_cookie=cookie, expected=(1, 2, 2), new=new, scenario=scenario, reason="r"
    )


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (proposal("kernel.panic"), "does not declare kernel.panic"),
        (proposal(scenario="other"), "does not declare scenario 'other'"),
        (proposal(SOCKET.name, new=(1,)), "not written by the supervisor"),
        (proposal(new=(1, 2)), "has 3 fields, not 2"),
        (proposal(new=()), "has 3 fields, not 0"),
        (proposal(cookie=GLOBAL), "has scope netns"),
        (proposal(MEM.name, cookie=7), "has scope global"),
    ],
)
def test_what_the_declaration_does_not_allow(asked: Proposal, why: str) -> None:
    refusal = declaration_refusal(DECLARATION, asked)
    assert refusal is not None
    assert why in refusal


def test_what_it_allows() -> None:
    assert declaration_refusal(DECLARATION, proposal()) is None
    assert declaration_refusal(DECLARATION, proposal(MEM.name, cookie=GLOBAL)) is None


def refusal(current: Value, new: Value, *, tunable: Tunable = RMEM) -> str | None:
    return value_refusal(
        tunable, current=current, new=new, bounds=Bounds(floor=(10, 10, 10), cap=(90, 90, 90))
    )


def test_each_reason_names_field_and_limit() -> None:
    assert refusal((20, 20, 20), (20, 20, 20)) == "no change"
    assert refusal((20, 20, 20), (20, 21, 30)) == "net.ipv4.tcp_rmem field 1 may not move"
    assert refusal((20, 20, 20), (20, 20, 9)) == "net.ipv4.tcp_rmem field 2: 9 is below the floor 10"
    assert refusal((20, 20, 20), (20, 20, 91)) == "net.ipv4.tcp_rmem field 2: 91 is above the cap 90"
    assert refusal((20, 20, 20), (20, 20, 90)) is None


def test_an_administrators_field_beyond_its_bounds_may_stay() -> None:
    assert refusal((1, 1000, 20), (1, 1000, 25)) is None


def test_coming_back_towards_bounds_that_moved() -> None:
    assert refusal((20, 20, 200), (20, 20, 150)) is None
    assert refusal((20, 20, 1), (20, 20, 5)) is None
    assert refusal((20, 20, 200), (20, 20, 201)) == "net.ipv4.tcp_rmem field 2: 201 is above the cap 90"
    assert refusal((20, 20, 5), (20, 20, 4)) == "net.ipv4.tcp_rmem field 2: 4 is below the floor 10"
    assert refusal((20, 20, 200), (20, 20, 5)) == "net.ipv4.tcp_rmem field 2: 5 is below the floor 10"


@given(current=FIELDS, new=FIELDS, floor=FIELDS, cap=FIELDS)
def test_nothing_goes_further_out_of_the_bounds(current: Value, new: Value, floor: Value, cap: Value) -> None:
    bounds = Bounds(floor=floor, cap=cap)
    if value_refusal(MEM, current=current, new=new, bounds=bounds) is None:
        assert new != current
        for old, wanted, low, high in zip(current, new, floor, cap, strict=True):
            assert wanted <= max(old, high)
            assert wanted >= min(old, low)
    if value_refusal(RMEM, current=current, new=new, bounds=bounds) is None:
        assert new[:2] == current[:2]


def test_reaching_a_cap() -> None:
    bounds = Bounds(floor=(0,), cap=(90,))
    assert reaches_cap(current=(80,), new=(90,), bounds=bounds)
    assert reaches_cap(current=(80,), new=(99,), bounds=bounds)
    assert not reaches_cap(current=(80,), new=(89,), bounds=bounds)
    assert not reaches_cap(current=(99,), new=(95,), bounds=bounds)
    assert not reaches_cap(current=(0,), new=(1,), bounds=Bounds(floor=(0,), cap=(1,)))
