# SPDX-License-Identifier: GPL-2.0-or-later
"""Where tuners come from: the folders shipped with bpftune and those of the administrator.

`TunerFolders.scan` tells what is there now; between scans inotify says when to look again. A folder
runs code as our worker and loads BPF as root, so it is trusted only if nobody but root can have
written it. Reading a folder executes nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bpftune.ipc.declaration import DECLARATION_FILE, POLICY_FILE, PROBE_FILE, Declaration
from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.errors import DeclarationError
from bpftune.supervisor.inotify import Change, Inotify
from bpftune.supervisor.loop import Loop, Timer

SHIPPED_DIR = Path(__file__).parent.parent / "tuners"
LOCAL_DIR = Path("/usr/local/lib/bpftune/tuners")
SETTLE_S = 0.3
"""A folder being copied in is read once it has been quiet for this long."""

_WATCHED = (
    Change.CREATE
    | Change.DELETE
    | Change.MOVED_FROM
    | Change.MOVED_TO
    | Change.CLOSE_WRITE
    | Change.ATTRIB
    | Change.DELETE_SELF
    | Change.ONLY_DIRECTORY
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunerFolder:
    """An accepted folder; two scans of an unchanged folder compare equal."""

    path: Path
    declaration: Declaration
    fingerprint: tuple[tuple[int, int, int], ...]
    """(inode, size, mtime_ns) of each file: a changed folder is loaded anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    accepted: dict[str, TunerFolder]
    refused: dict[Path, str]


class TunerFolders:
    """`shipped` is trusted as our own program is; every other directory is checked."""

    def __init__(self, shipped: Path, added: Sequence[Path], *, owner_uid: int = 0) -> None:
        self._shipped = shipped
        self._added = tuple(added)
        self._owner_uid = owner_uid
        self._inotify: Inotify | None = None
        self._settling: Timer | None = None

    def scan(self) -> Scan:
        """Read all folders. A name, id or tunable that is taken belongs to who had it first."""
        if self._inotify is not None:
            self._add_watches(self._inotify)
        accepted: dict[str, TunerFolder] = {}
        refused: dict[Path, str] = {}
        for directory in (self._shipped, *self._added):
            for path in _subfolders(directory):
                try:
                    if directory is not self._shipped:
                        check_trust(directory, path, self._owner_uid)
                    folder = _read(path)
                    _check_unique(folder, accepted.values())
                except DeclarationError as error:
                    refused[path] = str(error)
                else:
                    accepted[folder.declaration.name] = folder
        return Scan(accepted=accepted, refused=refused)

    def watch(self, loop: Loop, changed: Callable[[], None]) -> None:
        """Call `changed`, which scans, when the added directories settled after a change."""
        inotify = self._inotify = Inotify()
        self._add_watches(inotify)

        def noticed() -> None:
            inotify.drain()
            if self._settling is not None:
                self._settling.cancel()
            self._settling = loop.call_later(SETTLE_S, changed)
            self._add_watches(inotify)

        loop.watch(inotify.fileno(), noticed)

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def _add_watches(self, inotify: Inotify) -> None:
        for directory in self._added:
            for path in (*_way_to(directory), *_subfolders(directory)):
                with suppress(OSError):  # gone again, or not a directory: the next scan tells
                    inotify.watch(path, _WATCHED)


def check_trust(directory: Path, folder: Path, owner_uid: int = 0) -> None:
    """Raise DeclarationError unless only `owner_uid` can have written the folder."""
    for path in (directory, folder, *_list(folder, "**/*")):
        try:
            status = path.lstat()
        except OSError as error:
            raise DeclarationError(folder, f"{path}: {error.strerror}") from error
        if stat.S_ISLNK(status.st_mode):
            raise DeclarationError(folder, f"{path} is a symbolic link")
        if status.st_uid != owner_uid:
            raise DeclarationError(folder, f"{path} belongs to uid {status.st_uid}, not {owner_uid}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise DeclarationError(folder, f"{path} is writable by group or others")


def _way_to(directory: Path) -> list[Path]:
    """From the nearest ancestor that exists down to the directory: watched in this order, no step that is
    made meanwhile goes unnoticed."""
    way = [directory]
    while not way[-1].is_dir() and way[-1] != way[-1].parent:
        way.append(way[-1].parent)
    return way[::-1]


def _list(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError as error:
        raise DeclarationError(folder, f"{error.filename}: {error.strerror}") from error


def _subfolders(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_dir() and path.name[0] not in "._")
    except OSError:
        return []


def _read(path: Path) -> TunerFolder:
    declaration = load_declaration(path)
    fingerprint = []
    modules = [module.name for module in _list(path, "*.py")]
    for name in dict.fromkeys((DECLARATION_FILE, PROBE_FILE, POLICY_FILE, *modules)):
        try:
            status = (path / name).stat()
        except OSError as error:
            raise DeclarationError(path, f"{name}: {error.strerror}") from error
        fingerprint.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return TunerFolder(path=path, declaration=declaration, fingerprint=tuple(fingerprint))


def _check_unique(folder: TunerFolder, others: Iterable[TunerFolder]) -> None:
    mine = folder.declaration
    for other in others:
        theirs = other.declaration
        if theirs.name == mine.name:
            raise DeclarationError(folder.path, f"tuner '{mine.name}' is already loaded from {other.path}")
        if theirs.id == mine.id:
            raise DeclarationError(
                folder.path, f"its id {mine.id} is that of '{theirs.name}'; give it another name"
            )
        shared = sorted(theirs.tunables_by_name.keys() & mine.tunables_by_name.keys())
        if shared:
            raise DeclarationError(folder.path, f"{shared[0]} belongs to tuner '{theirs.name}'")
