# SPDX-License-Identifier: GPL-2.0-or-later
"""Two network namespaces that are folders, and a machine whose size is made up. machine.py uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from bpftune.ipc.declaration import Tunable
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.quantities import Device, Quantities

OTHER = 7_000_000
"""Cookie of the namespace beside the initial one."""
PREFIX_HOSTS = 1 << 16


class Places(NetnsRegistry):
    """Entering a namespace shows its files at `proc`/sys."""

    def __init__(self, root: Path, proc: Path) -> None:
        super().__init__(run_netns=root / "netns", proc_root=proc)
        self._shown = proc / "sys"
        self._place = self.initial.cookie
        self.trees = {cookie: root / f"sys.{cookie}" for cookie in (self.initial.cookie, OTHER)}
        for tree in self.trees.values():
            tree.mkdir()
        self._show(self._place)
        self.learn(OTHER, 1)

    def enter(self, cookie: int) -> AbstractContextManager[None]:
        place = cookie or self.initial.cookie
        return nullcontext() if place == self._place else self._visit(place)

    @contextmanager
    def _visit(self, cookie: int) -> Iterator[None]:
        home = self._place
        self._show(cookie)
        try:
            yield
        finally:
            self._show(home)

    def _show(self, cookie: int) -> None:
        self._shown.unlink(missing_ok=True)
        self._shown.symlink_to(self.trees[cookie])
        self._place = cookie


class Amounts(Quantities):
    """Those of a machine that does not depend on the one the tests run on."""

    def prefix_hosts(self, tunable: Tunable, device: Device) -> int:
        return PREFIX_HOSTS
