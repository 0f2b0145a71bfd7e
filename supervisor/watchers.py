# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor's own BPF programs: they see sysctl writes and new namespaces.

They are declared like tuners and compiled together with them. The one for sysctls is attached
before any tuner can write and detached last; without it bpftune must not run, because it could not
get out of an administrator's way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bpftune.bpf.runtime import Bpf, ProbeSource
from bpftune.ipc.declaration import Declaration
from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.errors import BpfError, NotSupported

HERE = Path(__file__).parent
SYSCTL, NETNS, NETNS_CALLS = "watch_sysctl", "watch_netns", "watch_netns_calls"
"""The last is for kernels that refuse the one before it, and for -L; its probe.bpf.c says what it costs."""


class Watchers:
    def __init__(self, bpf: Bpf, warn: Callable[[str], None], *, legacy: bool) -> None:
        """`legacy`: as on a kernel without the hooks that only newer ones have."""
        self._bpf = bpf
        self._warn = warn
        self._legacy = legacy
        self._sources = {
            name: ProbeSource(declaration=load_declaration(HERE / name), folder=HERE / name)
            for name in (SYSCTL, NETNS, NETNS_CALLS)
        }
        self._attached = False

    @property
    def sysctl(self) -> Declaration:
        return self._sources[SYSCTL].declaration

    @property
    def netns(self) -> list[Declaration]:
        """Either of them may announce new namespaces, by the same event."""
        return [self._sources[name].declaration for name in (NETNS, NETNS_CALLS)]

    def load_with(self, sources: Sequence[ProbeSource]) -> dict[str, BpfError]:
        """Load the tuners' programs, and at the first call the watchers' with them.

        Raises NotSupported when sysctl writes cannot be watched.
        """
        if self._attached:
            return self._bpf.load(sources)
        self._attached = True
        netns = NETNS_CALLS if self._legacy else NETNS
        failures = self._bpf.load([self._sources[SYSCTL], self._sources[netns], *sources])
        if trouble := self._attach(SYSCTL, failures):
            raise NotSupported(f"cannot watch sysctl writes: {trouble}")
        trouble = self._attach(netns, failures)
        if trouble and netns == NETNS:
            failures |= self._bpf.load([self._sources[NETNS_CALLS]])
            trouble = self._attach(NETNS_CALLS, failures)
        if trouble:
            self._warn(f"new network namespaces are noticed late: {trouble}")
        return failures

    def _attach(self, name: str, failures: dict[str, BpfError]) -> str:
        """Why not every probe of the watcher has a hook; empty when each has."""
        if (error := failures.pop(name, None)) is not None:
            return str(error)
        refused = [status.refused for status in self._bpf.attach(name) if status.hook is None]
        return "; ".join(f"{hook}: {reason}" for rungs in refused for hook, reason in rungs.items())
