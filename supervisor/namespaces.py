# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps what is known about network namespaces in step with the namespaces that exist.

New ones are announced by the BPF programs of watch_netns or first heard of in an event, ends by
rtnetlink (netns_ends.py). Where the kernel does not tell, a vanished one is noticed when it is
entered in vain or when others come. Nothing wakes up while nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bpftune.ipc.errors import BpftuneError
from bpftune.ipc.record import Event
from bpftune.supervisor.loop import Loop, Timer
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.netns_ends import NetnsEnds

SWEEP_DELAY_S = 1.0
"""Lets a burst of ends and beginnings be one sweep."""

Forget = Callable[[int], None]


class Namespaces:
    def __init__(
        self,
        *,
        loop: Loop,
        registry: NetnsRegistry,
        forget: Sequence[Forget],
        warn: Callable[[str], None],
        debug: Callable[[str], None],
    ) -> None:
        """`forget`: everyone who keeps something by cookie."""
        self._loop = loop
        self._registry = registry
        self._forget = forget
        self._warn = warn
        self._debug = debug
        self._announced = {registry.initial.cookie}
        self._sweep: Timer | None = None
        self._ends = self._open_ends()

    def close(self) -> None:
        if self._ends is not None:
            self._ends.close()

    def created(self, event: Event) -> None:
        """A record of watch_netns."""
        self._registry.learn(event.netns_cookie, event.netns_inum, event["pid"])
        self.suspect()

    def suspect(self) -> None:
        """Something began or ended: look soon."""
        if self._sweep is None or not self._sweep.pending:
            self._sweep = self._loop.call_later(SWEEP_DELAY_S, self.sweep)

    def sweep(self) -> None:
        """Forget the namespaces that are gone, have the ends of the new ones announced, name them all."""
        for cookie in self._registry.gone():
            self._announced.discard(cookie)
            for forget in self._forget:
                self._try(forget, cookie)
        self._registry.rename()
        if self._ends is not None:
            for netns in self._registry.known():
                if netns.cookie not in self._announced:
                    self._announced.add(netns.cookie)
                    self._try(self._announce, netns.cookie)

    def _announce(self, cookie: int) -> None:
        assert self._ends is not None
        with self._registry.descriptor(cookie) as netns_fd:
            self._ends.announce(netns_fd)

    def _open_ends(self) -> NetnsEnds | None:
        try:
            return NetnsEnds(self._loop, self.suspect)
        except OSError as error:
            self._warn(f"ended network namespaces are noticed late: {error.strerror}")
            return None

    def _try(self, act: Callable[[int], None], cookie: int) -> None:
        """One namespace's trouble, most likely that it is gone, is not the others'."""
        try:
            act(cookie)
        except (BpftuneError, OSError) as error:
            self._debug(str(error))
