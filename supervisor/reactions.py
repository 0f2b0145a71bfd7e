# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows from a decision or an override: it is logged, counted, told to BPF and the worker.

The listener of decision.py and overrides.py. Decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from bpftune.bpf.runtime import Bpf
from bpftune.ipc.control import Change, Override
from bpftune.ipc.declaration import Scope, Tunable
from bpftune.ipc.errors import BpftuneError
from bpftune.ipc.messages import GLOBAL, Netns, Outcome, Status, Value
from bpftune.supervisor.announcer import Announcer
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.overrides import EVERYWHERE
from bpftune.supervisor.roster import Roster, Tuner
from bpftune.supervisor.sysctl_writer import SysctlWriter


class Reactions:
    def __init__(
        self,
        *,
        announcer: Announcer,
        bpf: Bpf,
        roster: Roster,
        registry: NetnsRegistry,
        not_entered: Callable[[str], None],
    ) -> None:
        """`not_entered` hears of a namespace that is not to be entered any more."""
        self._announcer = announcer
        self._bpf = bpf
        self._roster = roster
        self._registry = registry
        self._not_entered = not_entered

    def changed(self, change: Change, tunable: Tunable) -> None:
        tuner = self._roster[change.tuner]
        line = self._announcer.changed(tuner.declaration, change, tunable)
        tuner.occurrences[change.scenario, change.tunable, change.netns] += 1
        if change.outcome == Status.OBSERVED:
            return
        tuner.made_changes(line)
        self._bpf.set_changed(change.netns.cookie, tuner.name, changed=True)

    def cap_reached(self, tuner: str, outcome: Outcome, netns: Netns, cap: Value) -> None:
        tunable = self._roster[tuner].declaration.tunables_by_name[outcome.proposal.tunable]
        self._announcer.cap_reached(tunable, tuner, outcome, netns, cap)

    def turned_off(self, tuner: str, override: Override, writer: SysctlWriter | None) -> None:
        self._announcer.turned_off(tuner, override, writer)
        if tuner in self._roster:
            self.silence(self._roster[tuner], override)

    def silence(self, tuner: Tuner, override: Override) -> None:
        """Stop what an override forbids, as early as possible: at the hook, else in the kernel's filter."""
        cookie = override.netns.cookie
        if cookie == EVERYWHERE.cookie or (override.netns.initial and _is_global(tuner)):
            self._roster.detach(tuner, f"off because of {override.by}")
            return
        self._bpf.set_off(cookie, tuner.name, off=True)
        if tuner.worker is not None:
            tuner.worker.forget(cookie, state=False)
            if override.netns.initial:
                tuner.worker.forget(GLOBAL, state=False)

    def adopt(self, tuner: str, probes: Collection[str] | None = None) -> None:
        """Show probes that were attached what was there before them, connections for one; `attach` did so
        for the initial namespace. None: all that the tuner has attached."""
        for netns in self._registry.known():
            if netns.initial:
                continue
            try:
                with self._registry.enter(netns.cookie):
                    self._bpf.run_iterators(tuner, probes)
            except BpftuneError as error:
                self._not_entered(f"{tuner}: connections in '{netns.name}' are not seen: {error}")

    def turned_on(self, tuner: str, netns: Netns) -> None:
        self._announcer.turned_on(tuner, netns)
        if tuner not in self._roster:
            return
        loaded = self._roster[tuner]
        if loaded.detached_because:
            self._roster.attach(loaded)
            self.adopt(tuner)
        for one in self._registry.known() if netns.cookie == EVERYWHERE.cookie else [netns]:
            self._bpf.set_off(one.cookie, tuner, off=False)
            if loaded.worker is not None:
                loaded.worker.invalidate(one.cookie)
        if loaded.worker is not None:
            loaded.worker.invalidate(GLOBAL)


def _is_global(tuner: Tuner) -> bool:
    """Whether all it tunes is in the initial namespace, so that without it nothing is left to tune."""
    return all(tunable.scope is Scope.GLOBAL for tunable in tuner.declaration.tunables)
