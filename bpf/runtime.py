# SPDX-License-Identifier: GPL-2.0-or-later
"""The BPF layer as the supervisor sees it: tuner folders in, events and counters out.

Everything happens on the caller's thread. BCC, LLVM and BTF never enter this process. When it
ends, in whatever way, the kernel drops every program, map and link with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bpftune.bpf.builder import Builder, CompileUnits, compile_in_child
from bpftune.bpf.cache import Cache
from bpftune.bpf.maps import Maps
from bpftune.bpf.ring import Ring
from bpftune.bpf.shared_state import Settings, SharedState
from bpftune.bpf.source import make_unit
from bpftune.bpf.tuner import TunerBpf
from bpftune.bpf.unit import Flavour, Object, Unit
from bpftune.ipc.control import HookStatus, ScenarioCounters
from bpftune.ipc.declaration import Declaration, Poll
from bpftune.ipc.errors import BpfError, CompileError
from bpftune.ipc.messages import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSource:
    """What to compile: a declaration and the folder that holds its probe.bpf.c."""

    declaration: Declaration
    folder: Path

    def unit(self, flavour: Flavour) -> Unit:
        """Raises CompileError."""
        return make_unit(self.declaration, self.folder, flavour, machine=os.uname().machine)


class Bpf:
    def __init__(
        self,
        *,
        cache_dir: Path,
        shift: int,
        log: Callable[[str], None],
        legacy: bool = False,
        dry_run: bool = False,
        cgroup: Path | None = None,
        compile_units: CompileUnits = compile_in_child,
    ) -> None:
        self._cache = Cache(cache_dir, log)
        self._builder = Builder(self._cache, compile_units=compile_units)
        self._legacy = legacy
        self._cgroup = cgroup
        self._settings = Settings(shift=shift, dry_run=dry_run)
        self._log = log
        self._maps = Maps()
        self._shared: SharedState | None = None
        self._ring: Ring | None = None
        self._tuners: dict[str, TunerBpf] = {}
        self._dropped_by_unloaded = 0

    def load(self, sources: Sequence[ProbeSource]) -> dict[str, BpfError]:
        """Compile what the cache lacks and create the maps. Returns, by tuner, why some could not be
        loaded; all others are."""
        failures: dict[str, BpfError] = {}
        units: list[tuple[ProbeSource, Unit]] = []
        for source in sources:
            try:
                units.append((source, source.unit(Flavour.TYPED)))
            except CompileError as error:
                failures[source.declaration.name] = error
        built = self._builder.build([unit for _, unit in units])
        for (source, _), result in zip(units, built, strict=True):
            try:
                self._open(source, result)
            except BpfError as error:
                failures[source.declaration.name] = error
        return failures

    def attach(self, tuner: str, probes: Collection[str] | None = None) -> list[HookStatus]:
        """Climb the ladders of `probes` (None: of all) and take out the others. Idempotent.

        What is new is attached before anything is detached; no other tuner's link is touched.
        """
        loaded = self._loaded(tuner)
        loaded.attach_only(_names(loaded) if probes is None else probes)
        return loaded.hooks

    def detach(self, tuner: str) -> None:
        """Close the links; maps and programs stay for the next attach."""
        self._loaded(tuner).detach()

    def unload(self, tuner: str) -> None:
        loaded = self._loaded(tuner)
        loaded.detach()
        self._dropped_by_unloaded += sum(counted.dropped for counted in self.counters(tuner))
        self._state.remove_counters(loaded.declaration)
        loaded.close()
        del self._tuners[tuner]

    def run_iterators(self, tuner: str, probes: Collection[str] | None = None) -> None:
        """Run the attached iter programs of `probes` (None: of all) over the current network namespace;
        `attach` did for the one that it ran in."""
        loaded = self._loaded(tuner)
        loaded.run_iterators(_names(loaded) if probes is None else probes)

    def hooks(self, tuner: str) -> list[HookStatus]:
        return self._loaded(tuner).hooks

    def survey(self, tuner: str) -> list[HookStatus]:
        """Like `hooks` of an attached tuner, after trying every rung of its ladders."""
        return self._loaded(tuner).survey()

    def polls(self, tuner: str) -> list[Poll]:
        """What has to be polled for the tuner; nothing while it is detached."""
        return self._loaded(tuner).polls

    def fileno(self) -> int:
        """Readable while events wait. Raises BpfError before the first tuner is loaded."""
        return self._open_ring.fileno()

    def consume(self, handle: Callable[[bytes], None]) -> int:
        """Pass every waiting event record to `handle`; how many there were."""
        return self._open_ring.consume(handle)

    def counters(self, tuner: str) -> list[ScenarioCounters]:
        return self._state.read_counters(self._loaded(tuner).declaration)

    def rows(self, tuner: str, map_name: str) -> dict[bytes, bytes]:
        """What a map that the tuner declares as a table holds now, by key."""
        return self._loaded(tuner).rows(map_name)

    def forget(self, netns_cookie: int, tuner: str) -> None:
        """A namespace is gone, and with it everything noted for it in the kernel."""
        self.set_off(netns_cookie, tuner, off=False)
        self.set_changed(netns_cookie, tuner, changed=False)
        self._loaded(tuner).forget(netns_cookie)

    def ring_dropped(self) -> int:
        """Events of all tuners lost because the ring buffer was full, since the start."""
        counted = [counters for tuner in self._tuners for counters in self.counters(tuner)]
        return self._dropped_by_unloaded + sum(counters.dropped for counters in counted)

    def set_off(self, netns_cookie: int, tuner: str, *, off: bool) -> None:
        """Filter a tuner's events of one namespace in the kernel."""
        self._mark("shared_off", netns_cookie, tuner, present=off)

    def set_changed(self, netns_cookie: int, tuner: str, *, changed: bool) -> None:
        """Tell probes whether the tuner has changed something in that namespace."""
        self._mark("shared_changed", netns_cookie, tuner, present=changed)

    def write_mirror(self, tuner: str, tunable: str, value: Value) -> None:
        """Tell the tuner's probes the value of a tunable that it declares with `mirror`."""
        self._loaded(tuner).write_mirror(tunable, value)

    def set_supervisor(self, pid: int) -> None:
        """Whose sysctl writes the watcher ignores: a pid of the initial pid namespace."""
        self._settings = replace(self._settings, supervisor_pid=pid)
        if self._shared is not None:
            self._shared.write_settings(self._settings)

    def close(self) -> None:
        """Detach and drop everything."""
        while self._tuners:
            self._tuners.popitem()[1].close()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        self._shared = None
        self._maps.close()
        self._cache.close()

    def _open(self, source: ProbeSource, built: Object | CompileError) -> None:
        if isinstance(built, CompileError):
            raise built
        name = source.declaration.name
        if name in self._tuners:
            raise BpfError(f"cannot load the probes of '{name}': they are loaded")
        tuner = TunerBpf(
            source.declaration,
            built,
            shared=self._maps,
            compile_probed=lambda: self._compile_probed(source),
            cgroup=self._cgroup,
            legacy=self._legacy,
        )
        self._open_shared()
        try:
            self._state.add_counters(source.declaration)
        except BpfError:
            tuner.close()
            raise
        self._tuners[name] = tuner

    def _open_shared(self) -> None:
        if self._shared is None:
            self._shared = SharedState(self._maps, self._log)
            self._shared.write_settings(self._settings)
            self._ring = Ring(self._maps["shared_events"])

    def _compile_probed(self, source: ProbeSource) -> Object:
        (built,) = self._builder.build([source.unit(Flavour.PROBED)])
        if isinstance(built, CompileError):
            raise built
        return built

    def _mark(self, map_name: str, netns_cookie: int, tuner: str, *, present: bool) -> None:
        tuner_id = self._loaded(tuner).declaration.id
        self._state.write_mark(map_name, tuner_id, netns_cookie, present=present)

    def _loaded(self, tuner: str) -> TunerBpf:
        try:
            return self._tuners[tuner]
        except KeyError:
            raise BpfError(f"cannot use the probes of '{tuner}': they are not loaded") from None

    @property
    def _state(self) -> SharedState:
        if self._shared is None:
            raise BpfError("cannot use the shared maps: no tuner is loaded")
        return self._shared

    @property
    def _open_ring(self) -> Ring:
        if self._ring is None:
            raise BpfError("cannot read the ring buffer: no tuner is loaded")
        return self._ring


def _names(loaded: TunerBpf) -> list[str]:
    return [probe.name for probe in loaded.declaration.probes]
