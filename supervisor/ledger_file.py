# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening the ledger's SQLite file: permissions, schema, and what happens to a damaged one.

Called by ledger.py. A file that is not a whole ledger of this schema is set aside, never repaired
and never deleted, and a new one is started.

The database runs with synchronous=NORMAL over a write-ahead log. NORMAL can lose the last commits
when the power fails, and so can the sysctls they describe: those do not survive a reboot. A killed
process loses nothing, because every commit was handed to the kernel. FULL would put an fsync of
milliseconds between every event and its change.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bpftune.ipc.control import Override
from bpftune.ipc.errors import LedgerError
from bpftune.supervisor.ledger_rows import CELL_COLUMNS, CHANGE_COLUMNS, parse_cell, parse_change

LEDGER_FILE = "ledger.db"
_APPLICATION_ID = 0x62706674  # "bpft"
_SCHEMA_VERSION = 1
_SIDE_FILES = ("", "-wal", "-shm", "-journal")
_BUSY_TIMEOUT_S = 1

_TABLES = {
    "boots": "boot INTEGER PRIMARY KEY, boot_id TEXT NOT NULL UNIQUE, unknown TEXT",
    "changes": """id INTEGER PRIMARY KEY, boot INTEGER NOT NULL, time_s REAL NOT NULL,
        tuner TEXT NOT NULL, tunable TEXT NOT NULL, cookie INTEGER NOT NULL, inum INTEGER NOT NULL,
        netns TEXT NOT NULL, initial INTEGER NOT NULL, old TEXT NOT NULL, new TEXT NOT NULL,
        scenario TEXT NOT NULL, reason TEXT NOT NULL, evidence TEXT NOT NULL,
        outcome TEXT NOT NULL, why TEXT NOT NULL DEFAULT ''""",
    "cells": """boot INTEGER NOT NULL, cookie INTEGER NOT NULL, tunable TEXT NOT NULL,
        tuner TEXT NOT NULL, format TEXT NOT NULL, inum INTEGER NOT NULL, netns TEXT NOT NULL,
        original TEXT NOT NULL, text TEXT NOT NULL, last TEXT NOT NULL, released TEXT,
        PRIMARY KEY (boot, cookie, tunable)""",
    "overrides": """boot INTEGER NOT NULL, cookie INTEGER NOT NULL, tuner TEXT NOT NULL,
        record BLOB NOT NULL, PRIMARY KEY (boot, cookie, tuner)""",
}
_INDEXES = ("CREATE INDEX changes_by_cell ON changes (boot, cookie, tunable)",)
_WITHOUT_ROWID = frozenset({"cells", "overrides"})

# Moving the log into the database costs an fsync. SQLite's default of 1000 pages would do that in
# the middle of every 200th decision, this one in every 1000th or so; closing and opening do it too.
_CHECKPOINT_PAGES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLedger:
    connection: sqlite3.Connection
    set_aside: str | None
    """Why an older file was set aside, and where it is now."""


class _Unusable(Exception):
    """The file is there but is no ledger of this schema."""


def open_ledger(state_dir: Path) -> OpenLedger:
    """Open or create `state_dir`/ledger.db. Raises LedgerError when that cannot be done safely."""
    path = state_dir / LEDGER_FILE
    try:
        _secure_folder(state_dir)
        _secure_file(path)
        try:
            return OpenLedger(connection=_connect(path), set_aside=None)
        except _Unusable as error:
            aside = _set_aside(path)
            _secure_file(path)
            text = f"cannot use ledger {path}: {error}; set aside as {aside.name}, started a new one"
            return OpenLedger(connection=_connect(path), set_aside=text)
    except (OSError, sqlite3.Error, _Unusable) as error:
        raise LedgerError(path, str(error)) from error


def _secure_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise LedgerError(folder / LEDGER_FILE, f"{folder} is not a directory, or a symbolic link to one")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise LedgerError(folder / LEDGER_FILE, f"others than user {os.geteuid()} can write to {folder}")
    folder.chmod(0o700)


def _secure_file(path: Path) -> None:
    """Make the file before SQLite does, so that it is never readable by others, and no link."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise LedgerError(path, "it is not a regular file")
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_TIMEOUT_S)
    try:
        _check(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 1048576")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return connection
    except sqlite3.Error as error:
        connection.close()
        if _is_damage(error):
            raise _Unusable(str(error)) from error
        raise
    except _Unusable:
        connection.close()
        raise


def _check(connection: sqlite3.Connection) -> None:
    application, version = (_pragma(connection, name) for name in ("application_id", "user_version"))
    if not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() and not version:
        _create(connection)
        return
    if (application, version) != (_APPLICATION_ID, _SCHEMA_VERSION):
        raise _Unusable(f"schema {version} of application {application:#x} is not ours")
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
    for table in _TABLES:
        if found.get(table) != _create_statement(table):
            raise _Unusable(f"table '{table}' is missing or not ours")
    result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if result != "ok":
        raise _Unusable(result)
    _check_rows(connection)


def _check_rows(connection: sqlite3.Connection) -> None:
    """Rows that a start relies on; a damaged row of history fails when it is asked for."""
    open_intents = "FROM changes WHERE outcome = 'intent'"
    try:
        for row in connection.execute(f"SELECT {CELL_COLUMNS} FROM cells"):
            parse_cell(row)
        for (record,) in connection.execute("SELECT record FROM overrides"):
            msgspec.json.decode(record, type=Override)
        for row in connection.execute(f"SELECT {CHANGE_COLUMNS} {open_intents}"):
            parse_change(row)
        without_cell = (
            f"{open_intents} AND (boot, cookie, tunable) NOT IN (SELECT boot, cookie, tunable FROM cells)"
        )
        for (change_id,) in connection.execute(f"SELECT id {without_cell}"):
            raise ValueError(f"change {change_id} has no cell")
    except (ValueError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise _Unusable(f"damaged row: {error}") from error


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for table in _TABLES:
        connection.execute(_create_statement(table))
    for index in _INDEXES:
        connection.execute(index)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _create_statement(table: str) -> str:
    options = " WITHOUT ROWID" if table in _WITHOUT_ROWID else ""
    return f"CREATE TABLE {table} ({_TABLES[table]}){options}"


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, and not the disk, a lock or a limit."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


def _set_aside(path: Path) -> Path:
    """Rename the database with its log, so that sqlite3(1) can still open the pair."""
    stamp = time.strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.name}.broken-{stamp}")
    count = 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.broken-{stamp}-{count}")
    for suffix in _SIDE_FILES:
        try:
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        except FileNotFoundError:
            continue
    return aside
