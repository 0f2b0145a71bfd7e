# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.control import Override
from bpftune.ipc.errors import UsageError
from bpftune.ipc.messages import GLOBAL, Netns
from bpftune.supervisor.overrides import EVERYWHERE
from tests.unit.supervisor.decision_rig import DecisionRig

BLUE = Netns(cookie=77, inum=1, name="blue")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DecisionRig]:
    rig = DecisionRig(tmp_path)
    yield rig
    rig.close()


def test_off_in_one_namespace_only(rig: DecisionRig) -> None:
    rig.overrides.turn_off("example", Override(netns=BLUE, by="pid 1"))
    assert rig.overrides.is_off("example", 77)
    assert not rig.overrides.is_off("example", 78)
    assert not rig.overrides.is_off("example", GLOBAL)
    assert not rig.overrides.is_off("other", 77)


def test_off_in_the_initial_namespace_covers_global_tunables(rig: DecisionRig) -> None:
    rig.overrides.turn_off("example", Override(netns=rig.registry.initial, by="pid 1"))
    assert rig.overrides.is_off("example", GLOBAL)
    assert rig.overrides.is_off("example", rig.cookie)
    assert not rig.overrides.is_off("example", 77)


def test_only_the_first_override_counts_until_it_is_lifted(rig: DecisionRig) -> None:
    first = Override(netns=BLUE, by="pid 1")
    rig.overrides.turn_off("example", first)
    rig.overrides.turn_off("example", Override(netns=BLUE, by="pid 2"))
    assert rig.overrides.of("example") == [first]
    assert rig.listener.off == [("example", first, None)]


def test_disabled_everywhere_covers_namespaces_to_come(rig: DecisionRig) -> None:
    rig.overrides.disable("example", None, by="bpftune-ctl disable (uid 0, pid 1)")
    assert all(rig.overrides.is_off("example", cookie) for cookie in (GLOBAL, rig.cookie, 77, 99))
    with pytest.raises(UsageError, match="off everywhere"):
        rig.overrides.enable("example", BLUE)


def test_enabling_everywhere_lifts_everything(rig: DecisionRig) -> None:
    rig.overrides.disable("example", BLUE, by="x")
    rig.overrides.disable("example", None, by="x")
    assert len(rig.overrides.enable("example", None)) == 2
    assert not rig.overrides.is_off("example", 77)
    assert rig.listener.on == [("example", EVERYWHERE)]


def test_enabling_one_namespace(rig: DecisionRig) -> None:
    rig.overrides.disable("example", BLUE, by="x")
    rig.overrides.disable("example", rig.registry.initial, by="x")
    rig.overrides.enable("example", BLUE)
    assert not rig.overrides.is_off("example", 77)
    assert rig.overrides.is_off("example", GLOBAL)
    assert rig.overrides.enable("example", BLUE) == []


def test_a_restart_in_the_same_boot_keeps_them(rig: DecisionRig, tmp_path: Path) -> None:
    rig.overrides.disable("example", BLUE, by="x")
    rig.overrides.disable("example", None, by="y")
    rig.ledger.close()
    again = DecisionRig(tmp_path)
    assert [one.by for one in again.overrides.of("example")] == ["y", "x"]
    again.overrides.enable("example", None)
    again.close()
    assert DecisionRig(tmp_path).overrides.of("example") == []


def test_a_hold_blocks_but_does_not_count_as_off(rig: DecisionRig) -> None:
    rig.overrides.hold("example", GLOBAL)
    rig.overrides.hold("example", rig.cookie)
    rig.overrides.unhold("example", GLOBAL)
    assert rig.overrides.off_reason("example", rig.cookie) is not None
    assert not rig.overrides.is_off("example", rig.cookie)
    rig.overrides.unhold("example", rig.cookie)
    assert rig.overrides.off_reason("example", rig.cookie) is None


def test_it_holds_even_when_it_cannot_be_written_down(rig: DecisionRig) -> None:
    rig.ledger.close()
    rig.overrides.disable("example", BLUE, by="x")
    assert rig.overrides.is_off("example", 77)
    assert "cannot use ledger" in rig.listener.warnings[0]


def test_a_namespace_that_is_gone(rig: DecisionRig) -> None:
    rig.overrides.disable("example", BLUE, by="x")
    rig.overrides.forget(77)
    assert rig.overrides.of("example") == []
