# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bpftune.ipc.messages import GLOBAL, Status
from bpftune.supervisor import sysctl_judge
from bpftune.supervisor.sysctl_d import Line
from bpftune.supervisor.sysctl_write import SysctlWrite
from tests.unit.supervisor.decision_rig import BACKLOG, DECLARATION, RMEM, DecisionRig


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DecisionRig]:
    """Its timers are due at once."""
    monkeypatch.setattr(sysctl_judge, "LOOK_AGAIN_S", (0, 0))
    monkeypatch.setattr(sysctl_judge, "UNEXPLAINED_S", 0)
    rig = DecisionRig(tmp_path)
    yield rig
    rig.close()


Configure = Callable[[str], DecisionRig]


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Configure]:
    """A rig where sysctl.d has a line for tcp_rmem."""
    with contextlib.ExitStack() as stack:

        def configured(value: str) -> DecisionRig:
            rig = DecisionRig(tmp_path, sysctl_d=[Line(key=RMEM.replace(".", "/"), value=value)])
            stack.callback(rig.close)
            return rig

        yield configured


def write_of(rig: DecisionRig, new: str, key: str = RMEM, **changes: object) -> SysctlWrite:
    """What the hook says right before `new` is written."""
    write = SysctlWrite(
        time_ns=time.monotonic_ns(),
        netns_cookie=rig.cookie,
        netns_inum=rig.registry.initial.inum,
        pid=0,
        uid=0,
        comm="bash",
        key=key.replace(".", "/"),
        new=new + "\n",
        current=rig.path(key).read_text(),
        file_pos=0,
    )
    return replace(write, **changes)  # type: ignore[arg-type]


def held(rig: DecisionRig) -> bool:
    return (
        not rig.overrides.is_off("example", rig.cookie)
        and rig.overrides.off_reason("example", rig.cookie) is not None
    )


def look_again(rig: DecisionRig) -> None:
    rig.loop.run_once(1)


def test_a_write_that_shows_turns_the_tuner_off_at_once(rig: DecisionRig) -> None:
    write = write_of(rig, "1 2 4")
    rig.path(RMEM).write_text("1\t2\t4\n")
    rig.judge.judge(write)
    ((tuner, override, writer),) = rig.listener.off
    assert tuner == "example"
    assert (override.tunable, override.old, override.new) == (RMEM, "4096 131072 6291456", "1 2 4")
    assert override.netns == rig.registry.initial
    assert override.by == "pid 0, cmd 'bash', user 'root'" == str(writer)
    assert rig.grow(7_000_000).status is Status.REFUSED


def test_other_sysctls_are_ignored(rig: DecisionRig) -> None:
    rig.judge.judge(replace(write_of(rig, "1"), key="kernel/panic"))
    rig.judge.judge(replace(write_of(rig, "1"), key="net/ipv4/tcp_rmem/x"))
    assert rig.listener.off == []
    assert not held(rig)


def test_a_write_that_shows_later(rig: DecisionRig) -> None:
    rig.judge.judge(write_of(rig, "1 2 4"))
    assert held(rig)
    assert rig.grow(7_000_000).why.startswith("held")
    look_again(rig)
    rig.path(RMEM).write_text("1\t2\t4\n")
    look_again(rig)
    assert rig.overrides.is_off("example", rig.cookie)
    rig.overrides.enable("example", None)
    assert not held(rig)


def test_a_failing_write_does_not_count(rig: DecisionRig) -> None:
    rig.judge.judge(write_of(rig, "garbage"))
    assert held(rig)
    look_again(rig)
    look_again(rig)
    assert not held(rig)
    assert rig.listener.off == []
    assert rig.grow(7_000_000).status is Status.APPLIED


def test_a_second_write_while_the_first_does_not_show(rig: DecisionRig) -> None:
    first = write_of(rig, "1 2 4")
    rig.judge.judge(first)
    rig.path(RMEM).write_text("1\t2\t4\n")
    # Its current value is what the first one wrote, and it fails.
    rig.judge.judge(write_of(rig, "garbage"))
    assert rig.overrides.is_off("example", rig.cookie)


def test_many_failing_writes_leave_one_hold(rig: DecisionRig) -> None:
    for _ in range(50):
        rig.judge.judge(write_of(rig, "garbage"))
    look_again(rig)
    look_again(rig)
    assert not held(rig)


def test_the_same_value_written_by_hand_and_by_systemd(rig: DecisionRig) -> None:
    rig.judge.judge(write_of(rig, "4096 131072 6291456", comm="systemd-sysctl"))
    assert rig.listener.off == []
    rig.judge.judge(write_of(rig, "4096"))
    assert len(rig.listener.off) == 1


def test_sysctl_may_write_what_a_file_has_and_holds_already(configure: Configure) -> None:
    """`sysctl --system`; the same value by hand is somebody's word, if no file has it."""
    rig = configure("4096 131072  6291456")
    for comm, counts in (("sysctl", False), ("bash", True)):
        rig.judge.judge(write_of(rig, "4096 131072 6291456", comm=comm))
        assert bool(rig.listener.off) is counts, comm


@pytest.mark.parametrize("configured", ["1 2 3", "garbage"])
def test_what_a_file_has_does_not_excuse_another_value(configure: Configure, configured: str) -> None:
    rig = configure(configured)
    rig.judge.judge(write_of(rig, "4096 131072 6291456", comm="sysctl"))
    assert len(rig.listener.off) == 1


def test_a_global_tunable_counts_as_the_initial_namespace(rig: DecisionRig) -> None:
    write = write_of(rig, "1500", BACKLOG, netns_cookie=987)
    rig.path(BACKLOG).write_text("1500\n")
    rig.judge.judge(write)
    assert rig.listener.off[0][1].netns == rig.registry.initial
    assert rig.overrides.is_off("example", GLOBAL)


def test_a_write_in_a_namespace_that_is_gone(rig: DecisionRig) -> None:
    rig.judge.judge(write_of(rig, "1 2 4", netns_cookie=987654321, netns_inum=5))
    assert rig.listener.off == []


def test_what_our_write_went_over_is_put_back(rig: DecisionRig) -> None:
    write = write_of(rig, "1 2 4")
    rig.path(RMEM).write_text("4096\t131072\t6291456\n")
    assert rig.grow(7_000_000).status is Status.APPLIED
    rig.judge.judge(write)
    assert rig.read() == "1 2 4"
    assert rig.overrides.is_off("example", rig.cookie)


def test_an_override_makes_the_new_value_the_original(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    rig.judge.judge(write_of(rig, "4096 131072 7000000"))
    assert rig.rollback.run("all", list, dry_run=False)[0].outcome.startswith("left: changed by pid 0")
    rig.overrides.enable("example", None)
    view = rig.decisions.view(DECLARATION, rig.cookie)
    assert view is not None
    assert view.tunables[RMEM].original == (4096, 131072, 7_000_000)


def test_a_stale_value_that_nothing_explains(rig: DecisionRig) -> None:
    rig.decisions.view(DECLARATION, rig.cookie)
    rig.path(RMEM).write_text("1\t2\t4\n")
    assert rig.grow(7_000_000, expected=6291456).status is Status.STALE
    assert held(rig)
    look_again(rig)
    ((_, override, writer),) = rig.listener.off
    assert (override.by, override.old, override.new, writer) == (
        "unknown (not through sysctl)",
        "4096 131072 6291456",
        "1 2 4",
        None,
    )


def test_a_value_that_changed_between_two_views(rig: DecisionRig) -> None:
    """Through netlink, or the sysctl event was lost."""
    rig.decisions.view(DECLARATION, GLOBAL)
    rig.path(BACKLOG).write_text("1500\n")
    rig.decisions.view(DECLARATION, GLOBAL)
    assert held(rig)
    look_again(rig)
    assert [(override.old, override.new) for _, override, _ in rig.listener.off] == [("1000", "1500")]


def test_a_value_that_changed_while_the_tuner_was_off(rig: DecisionRig) -> None:
    rig.decisions.view(DECLARATION, GLOBAL)
    rig.overrides.disable("example", None, by="somebody")
    rig.path(BACKLOG).write_text("1500\n")
    rig.decisions.view(DECLARATION, GLOBAL)
    rig.overrides.enable("example", None)
    rig.decisions.view(DECLARATION, GLOBAL)
    look_again(rig)
    assert not rig.overrides.is_off("example", GLOBAL)


def test_a_stale_value_that_an_event_explains(rig: DecisionRig) -> None:
    rig.decisions.view(DECLARATION, rig.cookie)
    write = write_of(rig, "1 2 4")
    rig.path(RMEM).write_text("1\t2\t4\n")
    rig.grow(7_000_000, expected=6291456)
    rig.judge.judge(write)
    look_again(rig)
    assert [override.by for _, override, _ in rig.listener.off] == ["pid 0, cmd 'bash', user 'root'"]


def test_a_worker_that_is_merely_behind_is_no_override(rig: DecisionRig) -> None:
    rig.decisions.view(DECLARATION, rig.cookie)
    rig.grow(7_000_000)
    assert rig.grow(7_500_000, expected=6291456).status is Status.STALE
    look_again(rig)
    assert not held(rig)
    assert rig.listener.off == []


def test_enabling_after_an_unseen_write_does_not_turn_it_off_again(rig: DecisionRig) -> None:
    rig.decisions.view(DECLARATION, rig.cookie)
    rig.path(RMEM).write_text("1\t2\t4\n")
    rig.grow(7_000_000, expected=6291456)
    look_again(rig)
    rig.overrides.enable("example", None)
    assert rig.grow(7_000_000, expected=6291456).status is Status.STALE
    look_again(rig)
    assert not rig.overrides.is_off("example", rig.cookie)


def test_a_namespace_that_goes_while_a_write_is_looked_into(rig: DecisionRig) -> None:
    rig.judge.judge(write_of(rig, "garbage"))
    rig.judge.forget(rig.cookie)
    assert not held(rig)
    look_again(rig)
