# SPDX-License-Identifier: GPL-2.0-or-later
"""The tuners that are loaded: their folders, BPF programs, workers and what they did.

The roster follows the folders: a folder dropped in is compiled, attached and given a worker; one
that goes is taken out again. Whatever fails for one tuner is logged and costs that tuner only.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bpftune.bpf.runtime import Bpf, ProbeSource
from bpftune.ipc.control import HookStatus, TunerState
from bpftune.ipc.declaration import Declaration, Poll
from bpftune.ipc.errors import BpfError, UnknownName
from bpftune.ipc.messages import Netns
from bpftune.supervisor.applicability import inactive_reason, unused_hooks
from bpftune.supervisor.folders import Scan, TunerFolder
from bpftune.supervisor.polls import Poller
from bpftune.supervisor.strategist import Strategist
from bpftune.supervisor.worker import Worker

LATENCIES_KEPT = 256

VANISHED = Netns(cookie=-2, name="(gone)")
"""Stands for every namespace that exists no longer."""

Load = Callable[[Sequence[ProbeSource]], dict[str, BpfError]]


class Equipper(Protocol):
    """Makes what a tuner gets besides its programs."""

    def worker(self, folder: TunerFolder) -> Worker: ...

    def poller(self, declaration: Declaration, poll: Poll) -> Poller: ...

    def strategist(self, tuner: Tuner, hooks: list[HookStatus]) -> Strategist:
        """`hooks` tell where each probe would stand."""


@dataclass(slots=True, kw_only=True)
class Tuner:
    """One loaded tuner. `worker` is None where nothing of it can be observed."""

    folder: TunerFolder
    equipper: Equipper
    worker: Worker | None = None
    hooks: list[HookStatus] = field(default_factory=list)
    detached_because: str = ""
    strategist: Strategist | None = None
    """None for a tuner without strategies."""
    pollers: dict[Poll, Poller] = field(default_factory=dict)
    occurrences: Counter[tuple[str, str, Netns]] = field(default_factory=Counter)
    """(scenario, tunable, namespace) -> changes made because of it, by us or by a probe itself."""
    changes: int = 0
    last_change: str | None = None
    last_change_s: float | None = None
    write_latency_us: deque[int] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    def made_changes(self, line: str, *, count: int = 1) -> None:
        """`line` is what the log says about the newest."""
        self.changes += count
        self.last_change = line
        self.last_change_s = time.time()

    def forget(self, cookie: int) -> None:
        """The namespace is gone: its counts live on among those of all that are."""
        for key in [key for key in self.occurrences if key[2].cookie == cookie]:
            scenario, tunable, _ = key
            self.occurrences[scenario, tunable, VANISHED] += self.occurrences.pop(key)
        if self.worker is not None:
            self.worker.forget(cookie, state=True)

    @property
    def declaration(self) -> Declaration:
        return self.folder.declaration

    @property
    def name(self) -> str:
        return self.folder.declaration.name

    @property
    def probes(self) -> list[str]:
        """Those that are attached unless the tuner is off."""
        if self.strategist is None:
            return [probe.name for probe in self.declaration.probes]
        return self.declaration.probes_with(self.strategist.active)

    @property
    def state(self) -> TunerState:
        if self.worker is None:
            return TunerState.INACTIVE
        return TunerState.DISABLED if self.detached_because else self.worker.state

    @property
    def unused(self) -> str:
        """Why the tuner is of no use on this kernel; empty: it is."""
        return next((status.unused for status in self.hooks if status.unused), "")

    @property
    def why(self) -> str:
        if self.unused:
            return self.unused
        if self.worker is None:
            return "; ".join(
                f"{hook}: {reason}" for status in self.hooks for hook, reason in status.refused.items()
            )
        return self.detached_because or self.worker.why


class Roster:
    def __init__(
        self,
        *,
        bpf: Bpf,
        load: Load,
        allow: Collection[str],
        warn: Callable[[str], None],
        notice: Callable[[str], None],
    ) -> None:
        self._bpf = bpf
        self._load = load
        self._allow = frozenset(allow)
        self._warn = warn
        self._notice = notice
        self._tuners: dict[str, Tuner] = {}
        self._by_id: dict[int, Tuner] = {}
        self._refused: list[str] = []
        self._left_out: dict[str, tuple[TunerFolder, str]] = {}
        """Folders whose programs could not be loaded, and why: tried again only once they changed."""

    def __iter__(self) -> Iterator[Tuner]:
        return iter(self._tuners.values())

    def __len__(self) -> int:
        return len(self._tuners)

    def __contains__(self, name: str) -> bool:
        return name in self._tuners

    def __getitem__(self, name: str) -> Tuner:
        """Raises UnknownName, with the nearest name there is."""
        try:
            return self._tuners[name]
        except KeyError:
            raise UnknownName("tuner", name, self._tuners) from None

    @property
    def refused(self) -> list[str]:
        """Why there are folders without a tuner, one line each."""
        return [*self._refused, *(why for _, why in self._left_out.values())]

    def by_id(self, tuner_id: int) -> Tuner | None:
        return self._by_id.get(tuner_id)

    def follow(self, scan: Scan, equipper: Equipper) -> list[str]:
        """Make the roster what the folders say; returns the names that were added."""
        self._note_refusals(scan)
        wanted = {name: folder for name, folder in scan.accepted.items() if self._allowed(name)}
        for name in [*self._tuners]:
            if wanted.get(name) != self._tuners[name].folder:
                self.remove(name)
        self._left_out = {name: one for name, one in self._left_out.items() if wanted.get(name) == one[0]}
        known = self._tuners.keys() | self._left_out.keys()
        return self._add([folder for name, folder in wanted.items() if name not in known], equipper)

    def remove(self, name: str) -> None:
        tuner = self._tuners.pop(name)
        del self._by_id[tuner.declaration.id]
        if tuner.strategist is not None:
            tuner.strategist.stop()
        for poller in tuner.pollers.values():
            poller.close()
        self._bpf.unload(name)
        if tuner.worker is not None:
            tuner.worker.stop()

    def attach(self, tuner: Tuner) -> None:
        """Hook the tuner's probes; polls stand in for probes that have no hook."""
        tuner.detached_because = ""
        if tuner.unused:
            return
        self.hook(tuner)
        if tuner.strategist is not None:
            tuner.strategist.start()

    def hook(self, tuner: Tuner) -> None:
        """Have the probes attached that its strategy calls for, and no others."""
        tuner.hooks = self._bpf.attach(tuner.name, tuner.probes)
        self._poll(tuner)

    def detach(self, tuner: Tuner, why: str) -> None:
        """Take the probes out: the tuner then costs nothing."""
        tuner.detached_because = why
        if tuner.strategist is not None:
            tuner.strategist.stop()
        self._bpf.detach(tuner.name)
        if not tuner.unused:
            tuner.hooks = self._bpf.hooks(tuner.name)
        self._poll(tuner)

    def _poll(self, tuner: Tuner) -> None:
        """A poller that is wanted still goes on undisturbed."""
        wanted = self._bpf.polls(tuner.name)
        for poll in [poll for poll in tuner.pollers if poll not in wanted]:
            tuner.pollers.pop(poll).close()
        for poll in wanted:
            if poll not in tuner.pollers:
                tuner.pollers[poll] = tuner.equipper.poller(tuner.declaration, poll)

    def _allowed(self, name: str) -> bool:
        return not self._allow or name in self._allow

    def _note_refusals(self, scan: Scan) -> None:
        refused = sorted(scan.refused.values())
        for text in refused:
            if text not in self._refused:
                self._warn(text)
        self._refused = refused

    def _add(self, folders: list[TunerFolder], equipper: Equipper) -> list[str]:
        failures = self._load(
            [ProbeSource(declaration=folder.declaration, folder=folder.path) for folder in folders]
        )
        for folder in folders:
            name = folder.declaration.name
            if name in failures:
                self._warn(f"tuner '{name}' is left out: {failures[name]}")
                self._left_out[name] = folder, str(failures[name])
        added = [folder for folder in folders if folder.declaration.name not in failures]
        for folder in added:
            self._enter(Tuner(folder=folder, equipper=equipper))
        return [folder.declaration.name for folder in added]

    def _enter(self, tuner: Tuner) -> None:
        self._tuners[tuner.name] = tuner
        self._by_id[tuner.declaration.id] = tuner
        reason = inactive_reason(tuner.declaration)
        if reason is not None:
            tuner.hooks = unused_hooks(self._bpf.hooks(tuner.name), reason)
        elif tuner.declaration.strategies:
            tuner.strategist = tuner.equipper.strategist(tuner, self._bpf.attach(tuner.name, ()))
        self.attach(tuner)
        if any(status.hook for status in tuner.hooks):
            tuner.worker = tuner.equipper.worker(tuner.folder)
            if tuner.strategist is not None:
                tuner.worker.use(tuner.strategist.active.name)
            tuner.worker.start()
        else:
            self._notice(f"tuner '{tuner.name}' is inactive: {tuner.why}")
