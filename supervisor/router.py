# SPDX-License-Identifier: GPL-2.0-or-later
"""From the ring buffer to whom it concerns: a tuner's worker, or one of the supervisor's watchers.

A worker gets the raw record; only the header is read here. Nothing that a record says may end the
daemon.
"""

from __future__ import annotations

from collections.abc import Callable

from bpftune.ipc.declaration import Declaration
from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.record import Event, RecordDecoder, unpack_header
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.overrides import Overrides
from bpftune.supervisor.repeats import Repeats
from bpftune.supervisor.roster import Roster

Watcher = Callable[[Event], None]


class Router:
    def __init__(
        self,
        *,
        roster: Roster,
        registry: NetnsRegistry,
        overrides: Overrides,
        repeats: Repeats,
        new_namespace: Callable[[], None],
        debug: Callable[[str], None],
    ) -> None:
        self._roster = roster
        self._registry = registry
        self._overrides = overrides
        self._repeats = repeats
        self._new_namespace = new_namespace
        self._debug = debug
        self._watchers: dict[int, tuple[RecordDecoder, Watcher]] = {}

    def add_watcher(self, declaration: Declaration, handle: Watcher) -> None:
        self._watchers[declaration.id] = (RecordDecoder(declaration), handle)

    def route(self, record: bytes) -> None:
        try:
            self._route(record)
        except ProtocolError as error:
            self._debug(str(error))

    def _route(self, record: bytes) -> None:
        header = unpack_header(record)
        if header.tuner_id in self._watchers:
            decoder, handle = self._watchers[header.tuner_id]
            handle(decoder.decode(record))
            return
        tuner = self._roster.by_id(header.tuner_id)
        if tuner is None or tuner.worker is None:
            return  # unloaded between the record and now
        if self._overrides.is_off(tuner.name, header.netns_cookie):
            return  # written before the kernel-side filter knew
        if header.scenario_index >= len(tuner.declaration.scenarios):
            raise ProtocolError(f"cannot route record of '{tuner.name}': no scenario {header.scenario_index}")
        if header.netns_cookie not in self._registry:
            self._new_namespace()
        netns = self._registry.learn(header.netns_cookie, header.netns_inum)
        scenario = tuner.declaration.scenarios[header.scenario_index]
        for poller in tuner.pollers.values():
            poller.follow(scenario.id)
        tuner.worker.deliver(record, netns, scenario.id)
        self._repeats.follow(tuner.declaration, scenario, netns.cookie, record, self.route)
