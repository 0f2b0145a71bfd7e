# SPDX-License-Identifier: GPL-2.0-or-later
"""The maps that all tuners share, as user space reads and writes them: bpftune.h has the same
structs in C.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from bpftune.bpf import libbpf
from bpftune.bpf.maps import Maps
from bpftune.ipc.control import ScenarioCounters
from bpftune.ipc.declaration import Declaration
from bpftune.ipc.errors import BpfError

_SETTINGS = struct.Struct("=III4x")
_PLACE = struct.Struct("=QII")
_COUNTERS = struct.Struct("=QQQ")
_SLOT = struct.Struct("=I")
_ZERO = _SLOT.pack(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    shift: int
    supervisor_pid: int = 0
    dry_run: bool = False


class SharedState:
    """Knows the layout of the shared maps' values; `maps` has them once a tuner was loaded."""

    def __init__(self, maps: Maps, warn: Callable[[str], None]) -> None:
        self._maps = maps
        self._warn = warn
        self._full: set[str] = set()
        self._cpus = libbpf.possible_cpus()

    def write_settings(self, settings: Settings) -> None:
        value = _SETTINGS.pack(settings.shift, settings.supervisor_pid, settings.dry_run)
        libbpf.update(self._maps["shared_settings"], _ZERO, value)

    def write_mark(self, map_name: str, tuner_id: int, netns_cookie: int, *, present: bool) -> None:
        """Whether a tuner is named for a namespace in shared_off or shared_changed.

        Where there is no room it is not: what the filter lets through, the router drops.
        """
        key = _PLACE.pack(netns_cookie, tuner_id, 0)
        if not present:
            libbpf.delete(self._maps[map_name], key)
            return
        try:
            libbpf.update(self._maps[map_name], key, b"\1")
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            self._warn_full(map_name)

    def _warn_full(self, map_name: str) -> None:
        if map_name not in self._full:
            self._full.add(map_name)
            self._warn(f"BPF map {map_name} is full: some events that nobody wants come from the kernel")

    def add_counters(self, declaration: Declaration) -> None:
        """Probes count only where a counter exists, so that they never allocate. Raises BpfError."""
        try:
            for slot in _slots(declaration).values():
                libbpf.update(self._maps["shared_counters"], slot, bytes(_COUNTERS.size * self._cpus))
        except OSError as error:
            self.remove_counters(declaration)
            cause = "there are too many scenarios" if error.errno == errno.E2BIG else error.strerror
            text = f"cannot count the events of '{declaration.name}': {cause}"
            raise BpfError(text, errno=error.errno or 0) from error

    def remove_counters(self, declaration: Declaration) -> None:
        for slot in _slots(declaration).values():
            libbpf.delete(self._maps["shared_counters"], slot)

    def read_counters(self, declaration: Declaration) -> list[ScenarioCounters]:
        return [self._read(scenario, slot) for scenario, slot in _slots(declaration).items()]

    def _read(self, scenario: str, slot: bytes) -> ScenarioCounters:
        size = _COUNTERS.size * self._cpus
        data = libbpf.lookup(self._maps["shared_counters"], slot, size) or bytes(size)
        sent, suppressed, dropped = map(sum, zip(*_COUNTERS.iter_unpack(data), strict=True))
        return ScenarioCounters(scenario=scenario, sent=sent, suppressed=suppressed, dropped=dropped)


def _slots(declaration: Declaration) -> dict[str, bytes]:
    return {
        scenario.id: _SLOT.pack(declaration.id << 16 | index)
        for index, scenario in enumerate(declaration.scenarios)
        if scenario.event is not None
    }
