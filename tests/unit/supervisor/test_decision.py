# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpftune.ipc.control import Change
from bpftune.ipc.errors import TunableError
from bpftune.ipc.messages import GLOBAL, Status
from bpftune.supervisor import decision
from bpftune.supervisor.ledger_rows import Intent
from bpftune.supervisor.sysctl_d import Line
from tests.unit.supervisor.decision_rig import (
    BACKLOG,
    CAP,
    DECLARATION,
    MASK,
    MODERATE,
    RMEM,
    DecisionRig,
)

Build = Callable[..., DecisionRig]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    built: list[DecisionRig] = []

    def build_rig(**options: object) -> DecisionRig:
        built.append(DecisionRig(tmp_path, **options))  # type: ignore[arg-type]
        return built[-1]

    yield build_rig
    for rig in built:
        rig.close()


@pytest.fixture
def rig(build: Build) -> DecisionRig:
    return build()


def test_a_change_is_written_recorded_and_told(rig: DecisionRig) -> None:
    outcome = rig.grow(7_000_000)
    assert (outcome.status, outcome.current) == (Status.APPLIED, (4096, 131072, 7_000_000))
    assert rig.read() == "4096 131072 7000000"
    (change,) = rig.listener.changes
    assert (change.id, change.outcome) == (outcome.change_id, "applied")
    assert rig.ledger.change(change.id) == change
    assert rig.ledger.cells()[0].text == "4096\t131072\t6291456"


def test_a_mask(rig: DecisionRig) -> None:
    assert rig.propose(MASK, (0,), (1 << 33,)).status is Status.APPLIED
    assert rig.read(MASK) == "00000002,00000000"


def test_an_outdated_proposal_is_stale(rig: DecisionRig) -> None:
    outcome = rig.grow(7_000_000, expected=5)
    assert (outcome.status, outcome.current) == (Status.STALE, (4096, 131072, 6291456))
    assert rig.ledger.changes(1) == []


def test_a_value_written_during_the_commit_is_not_written_over(
    rig: DecisionRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = rig.ledger.begin

    def begin_and_lose_the_race(intent: Intent) -> Change:
        rig.path(RMEM).write_text("1\t2\t3\n")
        return begin(intent)

    monkeypatch.setattr(rig.ledger, "begin", begin_and_lose_the_race)
    assert rig.grow(7_000_000).status is Status.STALE
    assert rig.read() == "1 2 3"
    assert rig.ledger.changes(1)[0].outcome == "undone"


def test_no_change_is_refused_without_a_record(rig: DecisionRig) -> None:
    outcome = rig.grow(6291456)
    assert (outcome.status, outcome.why) == (Status.REFUSED, "no change")
    assert rig.ledger.changes(1) == []


def test_bounds_hold_and_the_cap_is_told_once(rig: DecisionRig) -> None:
    for _ in range(2):
        assert rig.grow(CAP + 1).status is Status.REFUSED
    assert rig.grow(1000).why == "net.ipv4.tcp_rmem field 2: 1000 is below the floor 131072"
    assert rig.listener.capped == [(RMEM, (CAP, CAP, CAP))]
    rig.decisions.forget(rig.cookie)
    assert rig.grow(CAP).status is Status.APPLIED
    assert len(rig.listener.capped) == 2


def test_the_cap_is_told_after_the_change_that_came_to_it(
    rig: DecisionRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(rig.listener, "changed", lambda change, tunable: told.append("changed"))
    monkeypatch.setattr(rig.listener, "cap_reached", lambda *arguments: told.append("cap reached"))
    rig.grow(CAP, expected=5)
    assert told == [], "a stale proposal reaches nothing"
    rig.grow(CAP)
    assert told == ["changed", "cap reached"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(new=st.tuples(*[st.integers(-10, 1 << 33)] * 3), value=st.integers(-10, 10_000))
def test_whatever_is_proposed_stays_within_bounds(
    rig: DecisionRig, new: tuple[int, int, int], value: int
) -> None:
    current = tuple(map(int, rig.read().split()))
    rig.propose(RMEM, current, new, cookie=rig.cookie)
    rig.propose(BACKLOG, (int(rig.read(BACKLOG)),), (value,))
    low, default, high = map(int, rig.read().split())
    assert (low, default) == (4096, 131072)
    assert default <= high <= CAP
    assert 100 <= int(rig.read(BACKLOG)) <= 4000


def test_dry_run_only_says_what_it_would_do(build: Build) -> None:
    rig = build(dry_run=True)
    outcome = rig.grow(7_000_000)
    assert (outcome.status, outcome.current) == (Status.OBSERVED, (4096, 131072, 6291456))
    assert rig.read() == "4096 131072 6291456"
    assert rig.ledger.changes(1) == []
    assert [change.outcome for change in rig.listener.changes] == ["observed"]


def test_what_sysctl_d_sets_is_left_alone(build: Build) -> None:
    rig = build(sysctl_d=[Line(key="net/ipv4/tcp_rmem", value="1 2 3")])
    outcome = rig.grow(7_000_000)
    assert (outcome.status, outcome.why) == (Status.REFUSED, "set in /etc/sysctl.d/a.conf")
    assert rig.propose(MODERATE, (1,), (0,), cookie=rig.cookie).status is Status.APPLIED
    assert rig.decisions.left_alone(DECLARATION) == [RMEM]
    view = rig.decisions.view(DECLARATION, rig.cookie)
    assert view is not None
    assert {name: one.adopted for name, one in view.tunables.items()} == {RMEM: False, MODERATE: True}


def test_where_the_tuner_is_off_no_tunable_is_its_own(rig: DecisionRig) -> None:
    def adopted(cookie: int) -> set[bool]:
        view = rig.decisions.view(DECLARATION, cookie)
        assert view is not None
        return {one.adopted for one in view.tunables.values()}

    assert adopted(rig.cookie) == adopted(GLOBAL) == {True}
    rig.overrides.disable(DECLARATION.name, rig.registry.initial, by="bpftune-ctl disable")
    assert adopted(rig.cookie) == adopted(GLOBAL) == {False}
    rig.overrides.enable(DECLARATION.name, rig.registry.initial)
    assert adopted(rig.cookie) == adopted(GLOBAL) == {True}


def test_a_tuner_that_is_off(rig: DecisionRig) -> None:
    rig.overrides.disable("example", rig.registry.initial, by="bpftune-ctl disable")
    assert rig.grow(7_000_000).why == "off because of bpftune-ctl disable"
    assert rig.propose(BACKLOG, (1000,), (1100,)).status is Status.REFUSED


def test_a_missing_sysctl_is_a_failure_and_nothing_worse(rig: DecisionRig) -> None:
    rig.path(BACKLOG).unlink()
    outcome = rig.propose(BACKLOG, (1000,), (1100,))
    assert (outcome.status, outcome.current) == (Status.FAILED, (1000,))
    assert outcome.why == f"cannot read {BACKLOG}: No such file or directory"


def test_a_namespace_that_is_gone_is_no_failure(rig: DecisionRig) -> None:
    outcome = rig.propose(RMEM, (1, 2, 3), (1, 2, 4), cookie=123456)
    assert (outcome.status, outcome.why) == (Status.STALE, "network namespace 123456 is gone")


def test_a_write_that_the_kernel_refuses(rig: DecisionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TunableError("write", RMEM, "Invalid argument", errno=22)

    monkeypatch.setattr(decision, "write_tunable", refuse)
    outcome = rig.grow(7_000_000)
    assert (outcome.status, outcome.current) == (Status.FAILED, (4096, 131072, 6291456))
    assert rig.ledger.changes(1)[0].outcome == "failed"


def test_a_value_that_reads_back_differently(rig: DecisionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision, "write_tunable", lambda *_, **__: rig.path(RMEM).write_text("1 2 3"))
    outcome = rig.grow(7_000_000)
    assert (outcome.status, outcome.current) == (Status.FAILED, (1, 2, 3))
    assert outcome.why == "net.ipv4.tcp_rmem reads (1 2 3) after (4096 131072 7000000) was written"
    assert rig.ledger.cells()[0].last == (1, 2, 3)


def test_without_the_ledger_nothing_is_written(rig: DecisionRig) -> None:
    rig.ledger.close()
    outcome = rig.grow(7_000_000)
    assert outcome.status is Status.FAILED
    assert "cannot use ledger" in outcome.why
    assert rig.read() == "4096 131072 6291456"


def test_views(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    view = rig.decisions.view(DECLARATION, rig.cookie)
    assert view is not None
    assert view.netns == rig.registry.initial
    rmem = view.tunables[RMEM]
    assert (rmem.original[2], rmem.current[2], rmem.floor, rmem.cap[2]) == (
        6291456,
        7_000_000,
        (0, 0, 131072),
        CAP,
    )
    assert sorted(view.tunables) == [MODERATE, RMEM]


def test_the_global_view_leaves_out_what_this_kernel_lacks(rig: DecisionRig) -> None:
    rig.path(MASK).unlink()
    view = rig.decisions.view(DECLARATION, GLOBAL)
    assert view is not None
    assert list(view.tunables) == [BACKLOG]
    assert view.netns.initial
    assert view.tunables[BACKLOG].cap == (4000,)


def test_no_view_of_a_namespace_that_is_gone(rig: DecisionRig) -> None:
    assert rig.decisions.view(DECLARATION, 123456) is None
