# SPDX-License-Identifier: GPL-2.0-or-later
"""What bpftune changed, from what, and who told it to keep out: it outlives the process.

Written by decision.py (an intent before every write, its outcome after), rollback.py and
overrides.py; read by the control server. Keyed by boot, because neither a sysctl nor a namespace
survives one. It never answers for what it cannot know: after a damaged file was set aside,
`unknown` says so for the rest of the boot.

Cells are kept in memory as well, so that a decision costs two commits and no query. What holds in
memory counts: a commit that failed is made up for by the cell's next one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bpftune.ipc.control import Change, Override
from bpftune.ipc.declaration import Declaration, Format
from bpftune.ipc.errors import LedgerError, UnknownName
from bpftune.ipc.messages import GLOBAL, Netns, Value
from bpftune.supervisor.ledger_file import LEDGER_FILE, open_ledger
from bpftune.supervisor.ledger_rows import (
    CELL_COLUMNS,
    CHANGE_COLUMNS,
    Cell,
    Intent,
    cell_row,
    change_of,
    change_row,
    encode_value,
    parse_cell,
    parse_change,
)

KEPT_BOOTS = 10
KEPT_CHANGES = 50_000
PRUNE_EVERY = 1000
_MARKS = ", ".join("?" * len(CHANGE_COLUMNS.split(",")))


class Ledger:
    def __init__(self, state_dir: Path, *, proc_root: Path = Path("/proc")) -> None:
        """Opens or creates it. Raises LedgerError when it cannot be used safely."""
        self._path = state_dir / LEDGER_FILE
        boot_id = _read_boot_id(proc_root, self._path)
        opened = open_ledger(state_dir)
        self._connection = opened.connection
        self.set_aside = opened.set_aside
        """What to tell people when an older ledger could not be used."""
        self._boot = self._open_boot(boot_id, opened.set_aside)
        self.unknown: str | None = self._value("SELECT unknown FROM boots WHERE boot = ?", self._boot)
        """What cannot be known about this boot, else None."""
        self._cells: dict[tuple[int, str], Cell] = {
            (cell.cookie, cell.tunable): cell
            for cell in map(
                parse_cell, self._rows(f"SELECT {CELL_COLUMNS} FROM cells WHERE boot = ?", self._boot)
            )
        }
        self._prune()
        self._warm_up()

    def close(self) -> None:
        self._connection.close()

    # changes

    def begin(self, intent: Intent) -> Change:
        """Commit what is about to be written. Raises LedgerError: then it must not be written."""
        change = change_of(intent, 0, "intent")
        cell = self._cell_before(intent)
        with self._transaction():
            change_id = self._insert(change)
            self._store_cell(cell)
        self._cells[cell.cookie, cell.tunable] = cell
        return msgspec.structs.replace(change, id=change_id)

    def finish(self, change: Change, outcome: str, *, seen: Value, why: str = "") -> Change:
        """Commit how it went; `seen` is what the tunable holds after it. Raises LedgerError."""
        cell = replace(self._cells[change.netns.cookie, change.tunable], last=seen)
        self._cells[cell.cookie, cell.tunable] = cell
        with self._transaction():
            self._set_outcome(change.id, outcome, why)
            self._store_cell(cell)
            if change.id % PRUNE_EVERY == 0:
                self._prune_changes()
        return msgspec.structs.replace(change, outcome=outcome)

    def recover(self, read: Callable[[Cell], Value | None]) -> list[Change]:
        """Settle the intents that a killed supervisor left without an outcome; those of this boot.

        `read` gives the current value, None when its namespace or tunable is gone.
        """
        with self._transaction():
            self._connection.execute(
                "UPDATE changes SET outcome = 'undone', why = 'the machine was restarted'"
                " WHERE outcome = 'intent' AND boot != ?",
                (self._boot,),
            )
        found = self._changes("WHERE outcome = 'intent' AND boot = ? ORDER BY id", self._boot)
        return [self._settle(change, read) for change in found]

    def changes(self, limit: int) -> list[Change]:
        """The newest `limit` changes of all boots that are kept, newest first."""
        return self._changes("ORDER BY id DESC LIMIT ?", limit)

    def change(self, change_id: int) -> Change:
        """Raises UnknownName."""
        found = self._changes("WHERE id = ?", change_id)
        if not found:
            raise UnknownName("change", str(change_id))
        return found[0]

    def of_this_boot(self, change: Change) -> bool:
        boot: int | None = self._value("SELECT boot FROM changes WHERE id = ?", change.id)
        return boot == self._boot

    def followed_by(self, change: Change) -> list[Change]:
        """Later changes of the same tunable in the same namespace, oldest first."""
        return self._changes(
            "WHERE id > ? AND cookie = ? AND tunable = ?"
            " AND boot = (SELECT boot FROM changes WHERE id = ?) ORDER BY id",
            change.id,
            change.netns.cookie,
            change.tunable,
            change.id,
        )

    def remark(self, cookie: int, tunable: str, text: str) -> None:
        """Keep what is said about a tunable with its newest change; the last word counts.

        Raises LedgerError.
        """
        with self._transaction():
            self._connection.execute(
                "UPDATE changes SET why = ? WHERE id = (SELECT max(id) FROM changes"
                " WHERE boot = ? AND cookie = ? AND tunable = ? AND outcome = 'applied')",
                (text, self._boot, cookie, tunable),
            )

    def remark_on(self, change: Change) -> str:
        """What was said after the change, or why it did not come about; empty: nothing."""
        return str(self._value("SELECT why FROM changes WHERE id = ?", change.id) or "")

    # cells

    def cells(self) -> list[Cell]:
        """Everything changed during this boot in namespaces that were not forgotten."""
        return list(self._cells.values())

    def namespaces_of(self, declaration: Declaration) -> set[int]:
        """Cookies of the namespaces where the tuner changed something during this boot."""
        return {cell.cookie for cell in self._cells.values() if cell.tunable in declaration.tunables_by_name}

    def namespaces(self) -> dict[int, int]:
        """Cookie -> inode number of every namespace that anything is kept of."""
        kept = {override.netns.cookie: override.netns.inum for _, _, override in self.overrides()}
        kept |= {cell.cookie: cell.inum for cell in self._cells.values()}
        return {cookie: inum for cookie, inum in kept.items() if cookie > GLOBAL}

    def cell(self, cookie: int, tunable: str) -> Cell | None:
        return self._cells.get((cookie, tunable))

    def original(self, cookie: int, tunable: str, current: Value) -> Value:
        """The administrator's value: ours do not count, but a later one of anybody else does."""
        cell = self._cells.get((cookie, tunable))
        return cell.original if cell and not cell.released and cell.last == current else current

    def release(self, cookie: int, tunable: str, by: str) -> None:
        """Somebody else took the tunable over: a rollback leaves it from now on."""
        cell = self._cells.get((cookie, tunable))
        if cell is not None and cell.released is None:
            self._replace_cell(replace(cell, released=by))

    def rolled_back(self, cell: Cell, value: Value, *, since_id: int = 0) -> None:
        """The tunable was put back to `value`, which undid the changes from number `since_id` on."""
        cell = replace(cell, last=value)
        self._cells[cell.cookie, cell.tunable] = cell
        with self._transaction():
            self._connection.execute(
                "UPDATE changes SET outcome = 'rolled back'"
                " WHERE boot = ? AND cookie = ? AND tunable = ? AND id >= ?"
                " AND outcome IN ('applied', 'intent')",
                (self._boot, cell.cookie, cell.tunable, since_id),
            )
            self._store_cell(cell)

    def forget(self, cookie: int) -> None:
        """The namespace is gone, and its tunables and overrides with it. Its history stays."""
        with self._transaction():
            self._connection.execute(
                "UPDATE changes SET outcome = 'undone', why = 'the namespace is gone'"
                " WHERE outcome = 'intent' AND boot = ? AND cookie = ?",
                (self._boot, cookie),
            )
            for table in ("cells", "overrides"):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE boot = ? AND cookie = ?", (self._boot, cookie)
                )
        self._cells = {key: cell for key, cell in self._cells.items() if cell.cookie != cookie}

    # overrides

    def overrides(self) -> list[tuple[str, int, Override]]:
        """(tuner, namespace key, record) of this boot."""
        rows = self._rows("SELECT tuner, cookie, record FROM overrides WHERE boot = ?", self._boot)
        return [(tuner, cookie, msgspec.json.decode(blob, type=Override)) for tuner, cookie, blob in rows]

    def save_override(self, tuner: str, cookie: int, override: Override) -> None:
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO overrides (boot, cookie, tuner, record) VALUES (?, ?, ?, ?)",
                (self._boot, cookie, tuner, msgspec.json.encode(override)),
            )

    def delete_override(self, tuner: str, cookie: int) -> None:
        with self._transaction():
            self._connection.execute(
                "DELETE FROM overrides WHERE boot = ? AND cookie = ? AND tuner = ?",
                (self._boot, cookie, tuner),
            )

    def _cell_before(self, intent: Intent) -> Cell:
        """The cell with this change's tuner; a new original where anybody else wrote the last value."""
        before, netns = intent.before, intent.netns
        cell = self._cells.get((netns.cookie, intent.tunable.name))
        if cell is not None and not cell.released and cell.last == before.value:
            return replace(cell, tuner=intent.tuner)
        return Cell(
            cookie=netns.cookie,
            tunable=intent.tunable.name,
            tuner=intent.tuner,
            format=intent.tunable.format,
            inum=netns.inum,
            netns=netns.name,
            original=before.value,
            text=before.text,
            last=before.value,
        )

    def _settle(self, change: Change, read: Callable[[Cell], Value | None]) -> Change:
        """Only the newest change of a cell says what was written last."""
        later = self.followed_by(change)
        if later:
            outcome = "applied" if later[0].old == change.new else "left"
            return self._close(change, outcome, "its outcome could not be written down")
        current = read(self._cells[change.netns.cookie, change.tunable])
        if current == change.new:
            return self.finish(change, "applied", seen=change.new, why="found applied after a restart")
        if current is None or current == change.old:
            return self._close(change, "undone", "never written")
        return self._close(change, "left", f"found as {encode_value(current)} after a restart")

    def _close(self, change: Change, outcome: str, why: str) -> Change:
        with self._transaction():
            self._set_outcome(change.id, outcome, why)
        return msgspec.structs.replace(change, outcome=outcome)

    def _insert(self, change: Change) -> int:
        cursor = self._connection.execute(
            f"INSERT INTO changes (boot, {CHANGE_COLUMNS.removeprefix('id, ')}) VALUES ({_MARKS})",
            (self._boot, *change_row(change)),
        )
        return cursor.lastrowid or 0

    def _set_outcome(self, change_id: int, outcome: str, why: str) -> None:
        self._connection.execute(
            "UPDATE changes SET outcome = ?, why = ? WHERE id = ?", (outcome, why, change_id)
        )

    def _replace_cell(self, cell: Cell) -> None:
        self._cells[cell.cookie, cell.tunable] = cell
        with self._transaction():
            self._store_cell(cell)

    def _store_cell(self, cell: Cell) -> None:
        self._connection.execute(
            f"INSERT OR REPLACE INTO cells (boot, {CELL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._boot, *cell_row(cell)),
        )

    def _open_boot(self, boot_id: str, set_aside: str | None) -> int:
        with self._transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO boots (boot_id, unknown) VALUES (?, ?)", (boot_id, set_aside)
            )
        return int(self._value("SELECT boot FROM boots WHERE boot_id = ?", boot_id))

    def _prune(self) -> None:
        oldest = "(SELECT boot FROM boots ORDER BY boot DESC LIMIT 1 OFFSET ?)"
        with self._transaction():
            for table in ("changes", "cells", "overrides", "boots"):
                self._connection.execute(f"DELETE FROM {table} WHERE boot <= {oldest}", (KEPT_BOOTS,))
            self._prune_changes()

    def _prune_changes(self) -> None:
        self._connection.execute(
            "DELETE FROM changes WHERE id <= (SELECT max(id) FROM changes) - ?", (KEPT_CHANGES,)
        )

    def _warm_up(self) -> None:
        """Do once for nothing what every decision does: the first time takes several times as long, and
        the first event may be urgent."""
        nobody = Netns(cookie=GLOBAL, name="")
        cell = Cell(
            cookie=GLOBAL,
            tunable="",
            tuner="",
            format=Format.INTEGERS,
            inum=0,
            netns="",
            original=(),
            text="",
            last=(),
        )
        change = Change(
            id=0,
            time_s=0.0,
            tuner="",
            tunable="",
            netns=nobody,
            old=(),
            new=(),
            scenario="",
            reason="",
            evidence={},
            outcome="",
        )
        with self._transaction():
            self._connection.execute("SAVEPOINT warm_up")
            self._insert(change)
            self._store_cell(cell)
            self._set_outcome(0, "", "")
            self._connection.execute("ROLLBACK TO warm_up")
            self._connection.execute("UPDATE boots SET unknown = unknown WHERE boot = ?", (self._boot,))

    def _changes(self, where: str, *parameters: Any) -> list[Change]:
        rows = self._rows(f"SELECT {CHANGE_COLUMNS} FROM changes {where}", *parameters)
        try:
            return [parse_change(row) for row in rows]
        except (ValueError, TypeError, AttributeError, msgspec.MsgspecError) as error:
            raise LedgerError(self._path, f"a row of table 'changes' is damaged: {error}") from error

    def _value(self, query: str, *parameters: Any) -> Any:
        rows = self._rows(query, *parameters)
        return rows[0][0] if rows else None

    def _rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise LedgerError(self._path, str(error)) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LedgerError(self._path, str(error)) from error


def _read_boot_id(proc_root: Path, path: Path) -> str:
    try:
        return (proc_root / "sys/kernel/random/boot_id").read_text().strip()
    except OSError as error:
        raise LedgerError(path, f"cannot tell this boot from another one: {error}") from error
