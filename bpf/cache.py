# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiled units on disk, one file per tuner and flavour.

What is in here is loaded into the kernel as it stands, so the directory is root's alone and an
entry must prove itself: one line "bpftune-cache 2 <key> <CRC-32 of the rest>", then JSON. Anything
else is passed over with one log line, and the rebuilt entry takes its place. The builder calls this.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path

from bpftune.bpf.unit import Object, Unit

_MAGIC = b"bpftune-cache 2"
_MAX_ENTRY_BYTES = 4 << 20
_TEMPORARY = ".new"
_OPEN_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class _Unusable(Exception):
    """Why an entry, or the directory, is not to be trusted."""


class Cache:
    def __init__(self, directory: Path, log: Callable[[str], None]) -> None:
        self._directory = directory
        self._log = log
        self._fd: int | None = None
        try:
            self._fd = _open_directory(directory)
            self._remove_leftovers(self._fd)
        except (OSError, _Unusable) as error:
            self._log(f"cannot use cache {directory}: {error}; programs are compiled at every start")

    def read(self, unit: Unit, key: str) -> Object | None:
        """None: there is no entry, or none that can be trusted (logged)."""
        if self._fd is None:
            return None
        name = _entry_name(unit)
        try:
            return _parse(_read_entry(self._fd, name), key)
        except FileNotFoundError:
            return None
        except (OSError, _Unusable) as error:
            self._log(f"cannot use cache entry {self._directory / name}: {_cause(error)}; rebuilding it")
            return None

    def write(self, unit: Unit, key: str, compiled: Object) -> None:
        """Written aside and renamed: a reader sees the old entry or the new one."""
        if self._fd is None:
            return
        name = _entry_name(unit)
        try:
            _replace_entry(self._fd, name, _format(compiled, key))
        except OSError as error:
            self._log(f"cannot write cache entry {self._directory / name}: {error.strerror}")

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @staticmethod
    def _remove_leftovers(directory: int) -> None:
        """A process that died while writing leaves its temporary file behind."""
        for name in os.listdir(directory):
            if name.endswith(_TEMPORARY):
                os.unlink(name, dir_fd=directory)


def _cause(error: OSError | _Unusable) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "foreign, a symbolic link"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _open_directory(directory: Path) -> int:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_owner(os.fstat(descriptor))
        # Readable by others is a slip of whoever made it and harms nothing.
        os.fchmod(descriptor, 0o700)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_owner(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise _Unusable(f"foreign, it belongs to uid {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _Unusable(f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})")


def _entry_name(unit: Unit) -> str:
    return f"{unit.tuner}.{unit.flavour}"


def _read_entry(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | _OPEN_FLAGS, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable("foreign, not a regular file")
        _check_owner(status)
        return file.read(_MAX_ENTRY_BYTES)


def _parse(data: bytes, key: str) -> Object:
    head, _, payload = data.partition(b"\n")
    magic, _, rest = head.rpartition(b" ")
    magic, _, made_for = magic.rpartition(b" ")
    if magic != _MAGIC:
        raise _Unusable("foreign, not made by this version of bpftune")
    if made_for != key.encode():
        raise _Unusable("stale, made for another kernel, source or compiler")
    if _checksum(payload) != rest:
        raise _Unusable("damaged, its checksum does not match")
    try:
        return Object.from_json(json.loads(payload))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Unusable(f"damaged, {error}") from error


def _format(compiled: Object, key: str) -> bytes:
    payload = json.dumps(compiled.as_json()).encode()
    return b"%s %s %s\n%s" % (_MAGIC, key.encode(), _checksum(payload), payload)


def _checksum(payload: bytes) -> bytes:
    return b"%08x" % zlib.crc32(payload)


def _replace_entry(directory: int, name: str, data: bytes) -> None:
    temporary = f"{name}.{os.getpid()}{_TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OPEN_FLAGS
    descriptor = os.open(temporary, flags, mode=0o600, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
