# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpftune.ipc.control import Change, Override
from bpftune.ipc.declaration import Format, Scope, Tunable
from bpftune.ipc.errors import LedgerError, UnknownName
from bpftune.ipc.messages import GLOBAL, Netns, Proposal, Value
from bpftune.supervisor import ledger as ledger_module
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.ledger_rows import Intent
from bpftune.supervisor.tunables import Reading

RMEM = Tunable(name="net.ipv4.tcp_rmem", scope=Scope.NETNS, width=3)
MASK = Tunable(name="net.core.flow_limit_cpu_bitmap", scope=Scope.GLOBAL, format=Format.CPUMASK)
NETNS = Netns(cookie=77, inum=4026532000, name="blue")
OPEN = Callable[..., Ledger]


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[OPEN]:
    """Opens the same ledger again, by default in the same boot."""
    opened: list[Ledger] = []

    def open_again(boot: str = "boot-1") -> Ledger:
        path = tmp_path / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(boot + "\n")
        while opened:
            opened.pop().close()
        opened.append(Ledger(tmp_path / "state", proc_root=tmp_path / "proc"))
        return opened[-1]

    yield open_again
    while opened:
        opened.pop().close()


def intent(
    old: Value, new: Value, *, tunable: Tunable = RMEM, netns: Netns = NETNS, text: str = ""
) -> Intent:
    proposal = Proposal(
        tunable=tunable.name,
        netns_cookie=netns.cookie,
        expected=old,
        new=new,
        scenario="full",
        reason="r",
        evidence={"rtt_us": 1.5},
    )
    return Intent(
        tuner="tcp_buffer",
        tunable=tunable,
        netns=netns,
        proposal=proposal,
        before=Reading(value=old, text=text or "\t".join(map(str, old))),
    )


def applied(ledger: Ledger, old: Value, new: Value) -> Change:
    return ledger.finish(ledger.begin(intent(old, new)), "applied", seen=new)


def database(tmp_path: Path) -> Path:
    return tmp_path / "state/ledger.db"


def test_a_change_comes_back_after_a_restart(reopen: OPEN) -> None:
    change = applied(reopen(), (1, 2, 3), (1, 2, 4))
    assert reopen().change(change.id) == change
    assert change.outcome == "applied"
    assert change.netns == NETNS
    assert change.evidence == {"rtt_us": 1.5}


def test_the_original_is_the_first_value_and_its_text(reopen: OPEN) -> None:
    ledger = reopen()
    applied(ledger, (1, 2, 3), (1, 2, 4))
    applied(ledger, (1, 2, 4), (1, 2, 5))
    (cell,) = reopen().cells()
    assert (cell.original, cell.text, cell.last) == ((1, 2, 3), "1\t2\t3", (1, 2, 5))
    assert reopen().original(77, RMEM.name, (1, 2, 5)) == (1, 2, 3)


def test_a_value_that_somebody_else_wrote_is_the_new_original(reopen: OPEN) -> None:
    ledger = reopen()
    applied(ledger, (1, 2, 3), (1, 2, 4))
    assert ledger.original(77, RMEM.name, (1, 2, 9)) == (1, 2, 9)
    applied(ledger, (1, 2, 9), (1, 2, 10))
    assert ledger.cells()[0].original == (1, 2, 9)


def test_a_released_cell_starts_over_even_with_the_same_value(reopen: OPEN) -> None:
    ledger = reopen()
    applied(ledger, (1, 2, 3), (1, 2, 4))
    ledger.release(77, RMEM.name, "pid 5")
    assert reopen().cells()[0].released == "pid 5"
    ledger = reopen()
    assert ledger.original(77, RMEM.name, (1, 2, 4)) == (1, 2, 4)
    applied(ledger, (1, 2, 4), (1, 2, 5))
    (cell,) = ledger.cells()
    assert (cell.original, cell.released) == ((1, 2, 4), None)


def test_a_mask_of_any_size(reopen: OPEN) -> None:
    ledger = reopen()
    wide = 1 << 300
    netns = Netns(cookie=GLOBAL, initial=True)
    change = ledger.begin(intent((0,), (wide,), tunable=MASK, netns=netns))
    ledger.finish(change, "applied", seen=(wide,))
    (cell,) = reopen().cells()
    assert cell.last == (wide,)
    assert cell.declared.format is Format.CPUMASK
    assert cell.declared.scope is Scope.GLOBAL


def test_another_boot_knows_the_history_and_nothing_else(reopen: OPEN) -> None:
    ledger = reopen()
    change = applied(ledger, (1, 2, 3), (1, 2, 4))
    ledger.save_override("tcp_buffer", 77, Override(netns=NETNS, by="pid 5"))
    later = reopen("boot-2")
    assert later.changes(10) == [change]
    assert later.cells() == []
    assert later.overrides() == []
    assert not later.of_this_boot(change)
    assert reopen("boot-1").of_this_boot(change)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [((1, 2, 4), "applied"), ((1, 2, 3), "undone"), ((9, 9, 9), "left"), (None, "undone")],
)
def test_an_open_intent_is_settled_by_what_is_found(reopen: OPEN, found: Value | None, outcome: str) -> None:
    reopen().begin(intent((1, 2, 3), (1, 2, 4)))
    ledger = reopen()
    (change,) = ledger.recover(lambda cell: found)
    assert change.outcome == outcome
    assert ledger.cells()[0].last == ((1, 2, 4) if outcome == "applied" else (1, 2, 3))
    assert reopen().recover(lambda cell: found) == []


def test_an_intent_of_an_older_boot_was_undone_by_the_restart(reopen: OPEN) -> None:
    reopen().begin(intent((1, 2, 3), (1, 2, 4)))
    later = reopen("boot-2")
    assert later.recover(lambda cell: (1, 2, 4)) == []
    assert later.changes(1)[0].outcome == "undone"


def test_rolling_back_marks_the_changes_it_undid(reopen: OPEN) -> None:
    ledger = reopen()
    _, second = applied(ledger, (1, 2, 3), (1, 2, 4)), applied(ledger, (1, 2, 4), (1, 2, 5))
    ledger.rolled_back(ledger.cells()[0], (1, 2, 4), since_id=second.id)
    assert [change.outcome for change in ledger.changes(9)] == ["rolled back", "applied"]
    assert reopen().cells()[0].last == (1, 2, 4)


def test_later_changes_of_the_same_tunable(reopen: OPEN) -> None:
    ledger = reopen()
    first, second = applied(ledger, (1, 2, 3), (1, 2, 4)), applied(ledger, (1, 2, 4), (1, 2, 5))
    assert ledger.followed_by(first) == [second]
    assert ledger.followed_by(second) == []
    with pytest.raises(UnknownName, match="no change '99'"):
        ledger.change(99)


def test_what_is_said_of_a_tunable_is_kept_with_its_newest_change(reopen: OPEN) -> None:
    ledger = reopen()
    first = applied(ledger, (1, 2, 3), (1, 2, 4))
    second = applied(ledger, (1, 2, 4), (1, 2, 5))
    refused = ledger.finish(
        ledger.begin(intent((1, 2, 5), (1, 2, 6))), "failed", seen=(1, 2, 5), why="EINVAL"
    )

    ledger.remark(NETNS.cookie, RMEM.name, "growth slows")
    ledger.remark(NETNS.cookie, RMEM.name, "growth stops")
    ledger.remark(GLOBAL, RMEM.name, "elsewhere")

    ledger = reopen()
    assert [ledger.remark_on(change) for change in (first, second, refused)] == ["", "growth stops", "EINVAL"]
    assert ledger.changes(2)[1].outcome == "applied"


def test_a_forgotten_namespace_keeps_its_history(reopen: OPEN) -> None:
    ledger = reopen()
    applied(ledger, (1, 2, 3), (1, 2, 4))
    ledger.begin(intent((1, 2, 4), (1, 2, 5)))
    ledger.save_override("tcp_buffer", 77, Override(netns=NETNS, by="pid 5"))
    ledger.forget(77)
    ledger = reopen()
    assert (ledger.cells(), ledger.overrides()) == ([], [])
    assert [change.outcome for change in ledger.changes(9)] == ["undone", "applied"]


def test_the_namespaces_that_something_is_kept_of(reopen: OPEN) -> None:
    ledger = reopen()
    assert ledger.namespaces() == {}
    applied(ledger, (1, 2, 3), (1, 2, 4))
    everywhere = Netns(cookie=-1, name="everywhere")
    for netns in (Netns(cookie=78, inum=5), everywhere, Netns(cookie=GLOBAL)):
        ledger.save_override("tcp_buffer", netns.cookie, Override(netns=netns, by="pid 5"))
    assert reopen().namespaces() == {77: NETNS.inum, 78: 5}


def test_old_boots_and_rows_are_dropped(reopen: OPEN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_BOOTS", 2)
    monkeypatch.setattr(ledger_module, "KEPT_CHANGES", 3)
    for boot in range(4):
        ledger = reopen(f"boot-{boot}")
        for step in range(2):
            applied(ledger, (1, 2, step), (1, 2, step + 1))
    ledger = reopen("boot-4")
    assert [change.id for change in ledger.changes(99)] == [8, 7]


def test_old_rows_are_dropped_while_running_too(reopen: OPEN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_CHANGES", 3)
    monkeypatch.setattr(ledger_module, "PRUNE_EVERY", 5)
    ledger = reopen()
    for step in range(11):
        applied(ledger, (1, 2, step), (1, 2, step + 1))
    assert [change.id for change in ledger.changes(99)] == [11, 10, 9, 8]


def test_an_intent_that_others_followed_does_not_say_what_was_written_last(reopen: OPEN) -> None:
    ledger = reopen()
    ledger.begin(intent((1, 2, 3), (1, 2, 4)))
    ledger.begin(intent((1, 2, 9), (1, 2, 10)))
    applied(ledger, (1, 2, 9), (1, 2, 11))
    ledger = reopen()
    assert [change.outcome for change in ledger.recover(lambda cell: (1, 2, 11))] == ["left", "left"]
    assert ledger.cells()[0].last == (1, 2, 11)


def test_only_root_can_read_it(reopen: OPEN, tmp_path: Path) -> None:
    applied(reopen(), (1, 2, 3), (1, 2, 4))
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    assert modes == {0o600}


def test_a_symbolic_link_is_refused(reopen: OPEN, tmp_path: Path) -> None:
    database(tmp_path).parent.mkdir(mode=0o700)
    database(tmp_path).symlink_to(tmp_path / "victim")
    with pytest.raises(LedgerError, match="cannot use ledger"):
        reopen()
    assert not (tmp_path / "victim").exists()


def test_a_linked_folder_is_refused(reopen: OPEN, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="symbolic link"):
        reopen()


def test_a_folder_that_others_can_write_to_is_refused(reopen: OPEN, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(LedgerError, match="can write to"):
        reopen()


def test_a_fifo_is_refused(reopen: OPEN, tmp_path: Path) -> None:
    database(tmp_path).parent.mkdir(mode=0o700)
    os.mkfifo(database(tmp_path))
    with pytest.raises(LedgerError, match="regular file"):
        reopen()


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database" * 500)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:12288] = bytes(8192)
    path.write_bytes(data)


def newer_schema(path: Path) -> None:
    run(path, "PRAGMA user_version = 99")


def foreign(path: Path) -> None:
    path.unlink()
    run(path, "CREATE TABLE bookmarks (url)")


def other_columns(path: Path) -> None:
    run(path, "ALTER TABLE cells ADD COLUMN extra")


def damaged_row(path: Path) -> None:
    run(path, "UPDATE cells SET original = 'nonsense'")


def damaged_intent(path: Path) -> None:
    run(path, "UPDATE changes SET old = 'nonsense', outcome = 'intent'")


def intent_without_a_cell(path: Path) -> None:
    run(path, "UPDATE changes SET outcome = 'intent', cookie = 1")


def run(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        garbage,
        truncated,
        flipped,
        newer_schema,
        foreign,
        other_columns,
        damaged_row,
        damaged_intent,
        intent_without_a_cell,
    ],
)
def test_an_unusable_ledger_is_set_aside(
    reopen: OPEN, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    ledger = reopen()
    applied(ledger, (1, 2, 3), (1, 2, 4))
    ledger.close()
    damage(database(tmp_path))
    kept = database(tmp_path).read_bytes()
    ledger = reopen()
    (aside,) = (tmp_path / "state").glob("ledger.db.broken-????????T??????")
    assert aside.read_bytes() == kept
    assert ledger.set_aside is not None
    assert f"set aside as {aside.name}, started a new one" in ledger.set_aside
    assert ledger.cells() == []
    assert ledger.unknown == ledger.set_aside
    again = reopen()
    assert (again.set_aside, again.unknown) == (None, ledger.unknown)
    assert reopen("boot-2").unknown is None


def test_two_broken_ledgers_in_one_second(reopen: OPEN, tmp_path: Path) -> None:
    for _ in range(3):
        reopen().close()
        garbage(database(tmp_path))
    reopen()
    assert len(list((tmp_path / "state").glob("ledger.db.broken-*"))) == 3


def fill(ledger: Ledger) -> None:
    for step in range(2000):
        applied(ledger, (1, 2, step), (1, 2, step + 1))


def test_a_full_disk_is_an_error_and_not_damage(reopen: OPEN, tmp_path: Path) -> None:
    ledger = reopen()
    ledger._connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(LedgerError, match="full"):
        fill(ledger)
    ledger._connection.execute("PRAGMA max_page_count = 100000")
    cell = ledger.cells()[0]
    applied(ledger, cell.last, (5, 5, 5))
    assert list((tmp_path / "state").glob("*broken*")) == []
