# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps what is known about network namespaces in step with the namespaces that exist.

New ones are announced by the BPF programs of watch_netns. A vanished one is noticed when it is
entered in vain, and by a sweep some time after others came: a machine that makes namespaces also
removes them. Nothing wakes up while nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable

from bpftune.ipc.record import Event
from bpftune.supervisor.loop import Loop, Timer
from bpftune.supervisor.netns import NetnsRegistry

SWEEP_DELAY_S = 2.0

Forget = Callable[[int], None]


class Namespaces:
    def __init__(self, *, loop: Loop, registry: NetnsRegistry, forget: list[Forget]) -> None:
        """`forget`: everyone who keeps something by cookie."""
        self._loop = loop
        self._registry = registry
        self._forget = forget
        self._sweep: Timer | None = None

    def created(self, event: Event) -> None:
        """A record of watch_netns."""
        self._registry.learn(event.netns_cookie, event.netns_inum, event["pid"])
        self.suspect()

    def suspect(self) -> None:
        """Some namespace may be gone."""
        if self._sweep is None or not self._sweep.pending:
            self._sweep = self._loop.call_later(SWEEP_DELAY_S, self.sweep)

    def sweep(self) -> None:
        for cookie in self._registry.gone():
            for forget in self._forget:
                forget(cookie)
