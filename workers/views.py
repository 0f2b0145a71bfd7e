# SPDX-License-Identifier: GPL-2.0-or-later
"""The tunables' values as the supervisor last told them, and the Situation made from them."""

from __future__ import annotations

import msgspec

from bpftune.ipc.declaration import Declaration
from bpftune.ipc.messages import GLOBAL, Deliver, Outcome, View
from bpftune.tuners.base import Situation


class Views:
    def __init__(self, declaration: Declaration, *, shift: int, strategy: str = "") -> None:
        self._declaration = declaration
        self._shift = shift
        self._strategy = strategy
        self._views: dict[int, View] = {}

    def __contains__(self, cookie: int) -> bool:
        return cookie in self._views

    def use(self, strategy: str) -> None:
        self._strategy = strategy

    def put(self, view: View) -> None:
        self._views[view.netns.cookie] = view

    def forget(self, cookie: int) -> None:
        self._views.pop(cookie, None)

    def apply(self, outcome: Outcome) -> None:
        """Note the value that holds after a proposal, whatever became of it."""
        cookie, name = outcome.proposal.netns_cookie, outcome.proposal.tunable
        view = self._views.get(cookie)
        if view is None or name not in view.tunables or not outcome.current:
            return
        tunable = msgspec.structs.replace(view.tunables[name], current=outcome.current)
        self.put(msgspec.structs.replace(view, tunables={**view.tunables, name: tunable}))

    def situation(self, cookie: int, now_ns: int, deliver: Deliver | None = None) -> Situation:
        """The view of `cookie` merged with the global one. KeyError if the supervisor never sent it."""
        view = self._views[cookie]
        tunables = view.tunables
        if cookie != GLOBAL and GLOBAL in self._views:
            tunables = {**self._views[GLOBAL].tunables, **tunables}
        return Situation(
            declaration=self._declaration,
            netns=deliver.netns if deliver else view.netns,
            now_ns=now_ns,
            shift=self._shift,
            memory_bytes=view.memory_bytes,
            tunables=tunables,
            strategy=self._strategy,
            counters=deliver.counters if deliver else {},
        )
