# SPDX-License-Identifier: GPL-2.0-or-later
"""Where network namespaces can be found in the file system, and what people call them.

Called by netns.py only. It reads directories and never opens a namespace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bpftune.ipc.printable import show_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    name: str
    pid: int = 0
    """The process inside that it is called after."""
    lasting: bool = False
    """Whether the name is one of /run/netns; any other is replaced when such a name appears."""


class NetnsNames:
    """`ip netns` names by inode number, re-read when the directory changed."""

    def __init__(self, *, run_netns: Path, proc_root: Path, nsfs_device: int) -> None:
        self._run_netns = str(run_netns)
        self._proc_root = str(proc_root)
        self._device = nsfs_device
        self._names: dict[int, str] = {}
        """As in the directory; what no message can carry is escaped when they are shown."""
        self._read_at_mtime_ns = -1

    def named(self, inum: int) -> str | None:
        """The /run/netns name of a namespace; one stat(2) when nothing changed."""
        self._refresh()
        name = self._names.get(inum)
        return show_path(name) if name is not None else None

    def describe(self, pids: Mapping[int, int]) -> dict[int, Described]:
        """What to call namespaces, by inode number: after /run/netns, else after a process inside, first of
        all the one given (0: none is known).

        One pass over /proc at most, however many there are: a container runtime's process that made the
        namespace is usually gone.
        """
        found = {inum: self._cheap_description(inum, pid) for inum, pid in pids.items()}
        missing = {inum for inum, described in found.items() if described is None}
        paths = self._of_processes() if missing else iter(())
        for path in paths:
            inum = self._inum(path)
            if inum in missing and (described := _of_process(path)) is not None:
                found[inum] = described
                missing.remove(inum)
                if not missing:
                    break
        return {inum: one or Described(name=f"inode {inum}") for inum, one in found.items()}

    def paths(self, inum: int, pid: int) -> Iterator[str]:
        """Paths that name the namespace right now, cheapest to find first."""
        self._refresh()
        if inum in self._names:
            yield f"{self._run_netns}/{self._names[inum]}"
        if self._is_inside(pid, inum):
            yield self._of_pid(str(pid))
        yield from (path for path in self._of_processes() if self._inum(path) == inum)

    def all(self) -> Iterator[tuple[int, str, int]]:
        """(inum, path, pid or 0) of every name and process, so with repetitions."""
        self._refresh()
        for inum, name in self._names.items():
            yield inum, f"{self._run_netns}/{name}", 0
        for path in self._of_processes():
            inum = self._inum(path)
            if inum:
                yield inum, path, _pid_of(path)

    def _refresh(self) -> None:
        try:
            mtime_ns = os.stat(self._run_netns).st_mtime_ns
            if mtime_ns == self._read_at_mtime_ns:
                return
            listed = os.listdir(self._run_netns)
        except OSError:  # not there, or no directory
            self._names.clear()
            self._read_at_mtime_ns = -1
            return
        found = ((self._inum(f"{self._run_netns}/{name}"), name) for name in listed)
        self._names = {inum: name for inum, name in found if inum}
        # `ip netns add` makes a plain file first and mounts the namespace over it, which does
        # not change the directory again: until then read it anew every time.
        self._read_at_mtime_ns = mtime_ns if len(self._names) == len(listed) else -1

    def _cheap_description(self, inum: int, pid: int) -> Described | None:
        name = self.named(inum)
        if name is not None:
            return Described(name=name, lasting=True)
        return _of_process(self._of_pid(str(pid))) if self._is_inside(pid, inum) else None

    def _is_inside(self, pid: int, inum: int) -> bool:
        return pid != 0 and self._inum(self._of_pid(str(pid))) == inum

    def _of_pid(self, pid: str) -> str:
        return f"{self._proc_root}/{pid}/ns/net"

    def _of_processes(self) -> Iterator[str]:
        return (self._of_pid(pid) for pid in os.listdir(self._proc_root) if pid.isdigit())

    def _inum(self, path: str) -> int:
        """Inode number of the namespace at `path`, 0 when it names none."""
        try:
            found = os.stat(path)
        except OSError:
            return 0
        return found.st_ino if found.st_dev == self._device else 0


def _of_process(path: str) -> Described | None:
    """After the process whose ns/net `path` is; None when it has ended meanwhile."""
    try:
        comm = Path(path.removesuffix("ns/net") + "comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return None
    return Described(name=f"pid {_pid_of(path)} ({comm})", pid=_pid_of(path))


def _pid_of(path: str) -> int:
    return int(path.split("/")[-3])
