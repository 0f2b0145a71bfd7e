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
SYSCTL, NETNS = "watch_sysctl", "watch_netns"


class Watchers:
    def __init__(self, bpf: Bpf, warn: Callable[[str], None]) -> None:
        self._bpf = bpf
        self._warn = warn
        self._sources = [
            ProbeSource(declaration=load_declaration(HERE / name), folder=HERE / name)
            for name in (SYSCTL, NETNS)
        ]
        self._attached = False

    @property
    def sysctl(self) -> Declaration:
        return self._sources[0].declaration

    @property
    def netns(self) -> Declaration:
        return self._sources[1].declaration

    def load_with(self, sources: Sequence[ProbeSource]) -> dict[str, BpfError]:
        """Load the tuners' programs, and at the first call the watchers' with them.

        Raises NotSupported when sysctl writes cannot be watched.
        """
        if self._attached:
            return self._bpf.load(sources)
        failures = self._bpf.load([*self._sources, *sources])
        self._attach(failures)
        return failures

    def _attach(self, failures: dict[str, BpfError]) -> None:
        self._attached = True
        error = failures.pop(SYSCTL, None)
        if error is not None:
            raise NotSupported(f"cannot watch sysctl writes: {error}") from error
        for status in self._bpf.attach(SYSCTL):
            if status.hook is None:
                raise NotSupported(f"cannot watch sysctl writes: {_reasons(status.refused)}")
        lost = failures.pop(NETNS, None)
        if lost is not None:
            self._warn(f"new network namespaces are noticed late: {lost}")
            return
        for status in self._bpf.attach(NETNS):
            if status.hook is None:
                self._warn(f"new network namespaces are noticed late: {_reasons(status.refused)}")


def _reasons(refused: dict[str, str]) -> str:
    return "; ".join(f"{hook}: {reason}" for hook, reason in refused.items())
