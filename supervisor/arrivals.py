# SPDX-License-Identifier: GPL-2.0-or-later
"""Tuners come and go with their folders; one that comes is brought up to what holds for it.

Called at the start and whenever folders changed. What a tuner consists of is the roster's.
"""

from __future__ import annotations

from collections.abc import Collection

from bpftune.bpf.runtime import Bpf
from bpftune.ipc.errors import UnknownName, UsageError
from bpftune.ipc.messages import GLOBAL
from bpftune.supervisor.decision import Decisions
from bpftune.supervisor.equipment import Equipment
from bpftune.supervisor.folders import Scan, TunerFolders
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.logger import Logger
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.reactions import Reactions
from bpftune.supervisor.roster import Roster


class Arrivals:
    def __init__(
        self,
        *,
        folders: TunerFolders,
        roster: Roster,
        equipment: Equipment,
        bpf: Bpf,
        ledger: Ledger,
        decisions: Decisions,
        overrides: Overrides,
        reactions: Reactions,
        logger: Logger,
    ) -> None:
        self._folders = folders
        self._roster = roster
        self._equipment = equipment
        self._bpf = bpf
        self._ledger = ledger
        self._decisions = decisions
        self._overrides = overrides
        self._reactions = reactions
        self._logger = logger

    def load(self, allow: Collection[str]) -> None:
        """Load every tuner that is there. Raises UnknownName or UsageError for one of `allow` that is not."""
        scan = self._folders.scan()
        require_accepted(allow, scan)
        self._follow(scan)

    def rescan(self) -> None:
        self._follow(self._folders.scan())

    def _follow(self, scan: Scan) -> None:
        before = [tuner.name for tuner in self._roster]
        for name in self._roster.follow(scan, self._equipment):
            self._greet(name, is_new=bool(before))
        for name in before:
            if name not in self._roster:
                self._logger.notice(f"tuner '{name}' is gone: its folder was removed or changed")

    def _greet(self, name: str, *, is_new: bool) -> None:
        tuner = self._roster[name]
        if is_new:
            self._logger.notice(f"tuner '{name}' was added from {tuner.folder.path}", tuner=name)
        if tuner.declaration.mirrored:
            # Reading is enough: the mirror is told of every value that is seen.
            self._decisions.view(tuner.declaration, GLOBAL)
        for override in self._overrides.of(name):
            self._reactions.silence(tuner, override)
        for cookie in self._ledger.namespaces_of(tuner.declaration):
            self._bpf.set_changed(cookie, name, changed=True)
        self._reactions.adopt(name)


def require_accepted(allow: Collection[str], scan: Scan) -> None:
    """Raises UnknownName or UsageError for a name of `allow` that no folder has."""
    for name in allow:
        if name not in scan.accepted:
            raise _missing(name, scan)


def _missing(name: str, scan: Scan) -> UnknownName | UsageError:
    for path, why in scan.refused.items():
        if path.name == name:
            return UsageError(why)
    return UnknownName("tuner", name, scan.accepted)
