# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpftune.ipc.control import RestoredTunable
from bpftune.ipc.errors import UnknownName, UsageError
from bpftune.supervisor.tunables import parse_integers, write_text
from tests.unit.supervisor.decision_rig import BACKLOG, RMEM, RMEM_TEXT, DecisionRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DecisionRig]:
    rig = DecisionRig(tmp_path)
    yield rig
    rig.close()


def roll_back(rig: DecisionRig, target: str = "all", *, dry_run: bool = False) -> list[RestoredTunable]:
    return rig.rollback.run(target, lambda: ["example", "other"], dry_run=dry_run)


def outcomes(restored: list[RestoredTunable]) -> dict[str, str]:
    return {one.tunable: one.outcome for one in restored}


def test_everything_is_put_back_byte_for_byte(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    rig.grow(8_000_000)
    rig.propose(BACKLOG, (1000,), (1500,))
    assert outcomes(roll_back(rig)) == {BACKLOG: "restored", RMEM: "restored"}
    assert rig.path(RMEM).read_text() == RMEM_TEXT.rstrip("\n")
    assert rig.read(BACKLOG) == "1000"
    assert {change.outcome for change in rig.ledger.changes(9)} == {"rolled back"}
    assert roll_back(rig) == []


def test_after_it_everything_goes_on(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    roll_back(rig)
    rig.grow(7_500_000)
    (restored,) = roll_back(rig)
    assert restored.original == (4096, 131072, 6291456)


def test_dry_run(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    (planned,) = roll_back(rig, dry_run=True)
    assert (planned.outcome, planned.current[2], planned.original[2]) == (
        "would restore",
        7_000_000,
        6291456,
    )
    assert rig.read() == "4096 131072 7000000"
    assert rig.ledger.changes(1)[0].outcome == "applied"


def test_what_somebody_else_changed_is_left(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    rig.path(RMEM).write_text("1\t2\t3\n")
    assert outcomes(roll_back(rig)) == {RMEM: "left: changed by someone else since"}
    assert rig.read() == "1 2 3"


def test_one_change_undoes_the_later_ones_of_its_tunable(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    second = rig.grow(7_500_000)
    rig.grow(8_000_000)
    rig.propose(BACKLOG, (1000,), (1500,))
    assert outcomes(roll_back(rig, str(second.change_id))) == {RMEM: "restored"}
    assert rig.read() == "4096 131072 7000000"
    assert [change.outcome for change in rig.ledger.changes(9)] == [
        "applied",
        "rolled back",
        "rolled back",
        "applied",
    ]
    roll_back(rig)
    assert rig.read() == "4096 131072 6291456"


def test_a_change_before_somebody_else_s_write_is_history(rig: DecisionRig) -> None:
    first = rig.grow(7_000_000)
    rig.path(RMEM).write_text("4096\t131072\t7100000\n")
    second = rig.grow(7_500_000)
    with pytest.raises(UsageError, match=r"somebody else wrote .* between changes 1 and 2"):
        roll_back(rig, str(first.change_id))
    assert rig.read() == "4096 131072 7500000"
    assert outcomes(roll_back(rig, str(second.change_id))) == {RMEM: "restored"}
    assert rig.read() == "4096 131072 7100000"


def test_a_change_that_was_undone_cannot_be_undone_again(rig: DecisionRig) -> None:
    change = rig.grow(7_000_000)
    roll_back(rig)
    with pytest.raises(UsageError, match="not in force, but rolled back"):
        roll_back(rig, str(change.change_id))


def test_one_tuner(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    assert roll_back(rig, "other") == []
    assert outcomes(roll_back(rig, "example")) == {RMEM: "restored"}


def test_unknown_targets(rig: DecisionRig) -> None:
    with pytest.raises(UnknownName, match="no tuner 'exampel'; did you mean 'example'"):
        roll_back(rig, "exampel")
    with pytest.raises(UnknownName, match="no change '5'"):
        roll_back(rig, "5")


@pytest.mark.parametrize(
    "number", ["99999999999999999999", "9" * 5000, "\N{SUPERSCRIPT TWO}", "\N{THAI DIGIT ONE}"]
)
def test_a_number_that_no_change_can_have(rig: DecisionRig, number: str) -> None:
    with pytest.raises(UnknownName):
        roll_back(rig, number)


def test_a_change_of_another_boot(rig: DecisionRig, tmp_path: Path) -> None:
    change = rig.grow(7_000_000).change_id
    rig.path("kernel.random.boot_id").write_text("another\n")
    later = DecisionRig(tmp_path)
    with pytest.raises(UsageError, match="cannot roll back change 1"):
        roll_back(later, str(change))
    assert roll_back(later) == []
    later.close()


def test_a_restart_in_between(rig: DecisionRig, tmp_path: Path) -> None:
    rig.grow(7_000_000)
    rig.ledger.close()
    again = DecisionRig(tmp_path)
    assert outcomes(roll_back(again)) == {RMEM: "restored"}
    assert again.path(RMEM).read_text() == RMEM_TEXT.rstrip("\n")
    again.close()


def test_a_tunable_that_is_gone_does_not_stop_the_rest(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    rig.propose(BACKLOG, (1000,), (1500,))
    rig.path(BACKLOG).unlink()
    found = outcomes(roll_back(rig))
    assert found[BACKLOG].startswith(f"failed: cannot read {BACKLOG}")
    assert found[RMEM] == "restored"


def test_killed_between_write_and_record(rig: DecisionRig) -> None:
    rig.grow(7_000_000)
    cell = rig.ledger.cells()[0]
    write_text(cell.tunable, cell.text, proc_root=rig.proc)
    assert outcomes(roll_back(rig)) == {RMEM: "restored"}
    assert roll_back(rig) == []


class FailsOnce:
    """A connection to SQLite of which one commit fails, as on a full disk."""

    def __init__(self, connection: Any, *, at: int) -> None:
        self._connection = connection
        self._at = at
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        if statement == "COMMIT":
            self.commits += 1
            if self.commits == self._at:
                raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, *parameters)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("commit", range(1, 9))
def test_whichever_write_to_the_ledger_fails(
    rig: DecisionRig, tmp_path: Path, commit: int, *, restarted: bool
) -> None:
    rig.ledger._connection = FailsOnce(rig.ledger._connection, at=commit)  # type: ignore[assignment]
    for _ in range(3):
        rig.grow(parse_integers(rig.read())[2] + 100_000)
    assert rig.read() != " ".join(RMEM_TEXT.split())
    with contextlib.ExitStack() as later:
        if restarted:
            rig = DecisionRig(tmp_path)
            later.callback(rig.close)
            rig.ledger.recover(rig.rollback.read_cell)
        roll_back(rig)
        assert rig.path(RMEM).read_text() == RMEM_TEXT.rstrip("\n")
        assert roll_back(rig) == []


def test_a_lost_ledger_is_admitted(rig: DecisionRig, tmp_path: Path) -> None:
    assert rig.rollback.unknown is None
    rig.ledger.close()
    (tmp_path / "state/ledger.db").write_bytes(b"garbage" * 1000)
    again = DecisionRig(tmp_path)
    assert "set aside" in str(again.rollback.unknown)
    again.close()
