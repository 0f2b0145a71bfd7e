# SPDX-License-Identifier: GPL-2.0-or-later
"""What outlives a worker process: the state records it handed out, and which views it was sent.

The records are a worker's words and stay opaque; only their number and size are bounded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import GLOBAL, SavedState, View

MAX_RECORD_BYTES = 256 << 10

ReadView = Callable[[int], View | None]
"""The view of one namespace, None when it is gone."""


class WorkerMemory:
    def __init__(self, changed: Iterable[int] = ()) -> None:
        """`changed`: namespaces where an earlier supervisor left changes of this tuner behind."""
        self._known = {GLOBAL, *changed}
        self._saved: dict[int, bytes] = {}
        self._viewed: set[int] = set()
        self._asleep: set[int] = set()

    def start(self, read_view: ReadView) -> tuple[list[SavedState], list[View]]:
        """What a new process is told: every record, and the views of where it is to go on."""
        self._viewed.clear()
        views = []
        for cookie in sorted(self._known - self._asleep):
            view = self._read(cookie, read_view)
            if view is not None:
                views.append(view)
        saved = [SavedState(netns_cookie=cookie, record=record) for cookie, record in self._saved.items()]
        return saved, views

    def views_to_send(self, cookie: int, read_view: ReadView) -> tuple[View | None, View | None] | None:
        """The namespace's view and the global one, each only if the process lacks it.

        None: the namespace is gone, and with it everything known about it.
        """
        view = None
        if cookie not in self._viewed:
            view = self._read(cookie, read_view)
            if view is None:
                return None
        self._known.add(cookie)
        self._asleep.discard(cookie)
        return view, None if GLOBAL in self._viewed else self._read(GLOBAL, read_view)

    def save(self, states: list[SavedState]) -> None:
        """Keep the records of namespaces that still matter. Raises ProtocolError for an oversized one."""
        for state in states:
            if len(state.record) > MAX_RECORD_BYTES:
                raise ProtocolError(
                    f"cannot keep its state: {len(state.record)} bytes, at most {MAX_RECORD_BYTES}"
                )
            if state.netns_cookie in self._known:
                self._saved[state.netns_cookie] = state.record

    def knows(self, cookie: int) -> bool:
        """Whether the tuner ever had an event there; of the global tunables every tuner knows."""
        return cookie in self._known

    def invalidate(self, cookie: int) -> None:
        self._viewed.discard(cookie)

    def forget(self, cookie: int, *, state: bool) -> None:
        """`state`: the namespace is gone; else the tuner only rests there until its next event."""
        self._viewed.discard(cookie)
        if not state:
            self._asleep.add(cookie)
            return
        self._asleep.discard(cookie)
        self._saved.pop(cookie, None)
        if cookie != GLOBAL:
            self._known.discard(cookie)

    def drop_states(self) -> int:
        """Start from nothing; how many records that costs."""
        dropped = len(self._saved)
        self._saved.clear()
        return dropped

    def _read(self, cookie: int, read_view: ReadView) -> View | None:
        view = read_view(cookie)
        if view is not None:
            self._viewed.add(cookie)
        elif cookie != GLOBAL:
            self.forget(cookie, state=True)
        return view
