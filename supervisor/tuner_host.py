# SPDX-License-Identifier: GPL-2.0-or-later
"""What the workers get from the supervisor: views of their tunables, decisions, the rows of their
maps, a place in the log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from bpftune.bpf.runtime import Bpf
from bpftune.ipc.control import TunerState
from bpftune.ipc.declaration import Writer
from bpftune.ipc.errors import NetnsGone
from bpftune.ipc.messages import Answer, MapRow, Note, Outcome, Status, Summarize, View
from bpftune.supervisor.announcer import Announcer
from bpftune.supervisor.counters import Counters
from bpftune.supervisor.decision import Decisions
from bpftune.supervisor.logger import Logger, MessageId, Priority
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.roster import Roster, Tuner
from bpftune.supervisor.wording import not_done_line

MAX_MAP_BYTES = 1 << 20
"""of one map, in one message"""


class TunerHost:
    """The WorkerOwner of every worker."""

    def __init__(
        self,
        *,
        bpf: Bpf,
        roster: Roster,
        decisions: Decisions,
        counters: Counters,
        registry: NetnsRegistry,
        announcer: Announcer,
        logger: Logger,
        namespace_missing: Callable[[], None],
        state_changed: Callable[[], None],
        all_failed: Callable[[], None],
        dry_run: bool,
    ) -> None:
        self._bpf = bpf
        self._roster = roster
        self._decisions = decisions
        self._counters = counters
        self._registry = registry
        self._announcer = announcer
        self._logger = logger
        self._namespace_missing = namespace_missing
        self._state_changed = state_changed
        self._all_failed = all_failed
        self._dry_run = dry_run

    def view(self, tuner: str, netns_cookie: int) -> View | None:
        view = self._decisions.view(self._roster[tuner].declaration, netns_cookie)
        if view is None:
            self._namespace_missing()
        return view

    def read_counters(self, tuner: str, scenario_id: str, netns_cookie: int) -> dict[str, int]:
        return self._counters.read(self._roster[tuner].declaration, scenario_id, netns_cookie)

    def decide(self, tuner: str, answer: Answer, scenario_time_ns: int) -> list[Outcome]:
        entry = self._roster[tuner]
        for note in answer.notes:
            self._note(entry, note)
        outcomes = []
        for proposal in answer.proposals:
            outcome = self._decisions.apply(entry.declaration, proposal)
            if outcome.status is Status.APPLIED and scenario_time_ns:
                written_ns = self._decisions.written_ns(proposal)
                entry.write_latency_us.append((written_ns - scenario_time_ns) // 1000)
            self._report(tuner, outcome)
            outcomes.append(outcome)
        self._state_changed()
        return outcomes

    def summarize(self, tuner: str, seq: int) -> Summarize:
        tables = self._roster[tuner].declaration.tables
        return Summarize(
            seq=seq,
            maps={table.map: self._rows(tuner, table.map) for table in tables},
            namespaces=self._registry.known() if tables else [],
        )

    def log_worker(self, tuner: str, text: str, priority: int) -> None:
        self._logger.log(Priority(priority), f"{tuner}: {text}", tuner=tuner)

    def state_changed(self, tuner: str) -> None:
        if tuner not in self._roster:
            return
        self._state_changed()
        entry = self._roster[tuner]
        if entry.state is TunerState.FAILED:
            self._announce_failure(entry)
            if all(one.state in (TunerState.FAILED, TunerState.INACTIVE) for one in self._roster):
                self._all_failed()

    def _rows(self, tuner: str, map_name: str) -> list[MapRow]:
        rows = [MapRow(key=key, value=value) for key, value in self._bpf.rows(tuner, map_name).items()]
        row_bytes = len(rows[0].key) + len(rows[0].value) if rows else 1
        return rows[: MAX_MAP_BYTES // row_bytes]

    def _announce_failure(self, tuner: Tuner) -> None:
        self._logger.log(
            Priority.ERROR,
            f"tuner '{tuner.name}' failed: {tuner.why}; 'bpftune-ctl restart {tuner.name}' tries again",
            tuner=tuner.name,
            message_id=MessageId.WORKER_FAILED,
        )

    def _note(self, tuner: Tuner, note: Note) -> None:
        declaration = tuner.declaration
        tunable = declaration.tunables_by_name.get(note.tunable)
        if tunable is None or note.scenario not in declaration.scenarios_by_id:
            return
        with contextlib.suppress(NetnsGone):
            netns = self._registry.netns(note.netns_cookie)
            if note.acts > 0 and tunable.writer is Writer.SOCKET:
                tuner.occurrences[note.scenario, note.tunable, netns] += note.acts
                line = self._announcer.acted(declaration, note, netns)
                if not self._dry_run:
                    tuner.made_changes(line, count=note.acts)
            else:
                self._announcer.noted(declaration, note, netns)
                self._decisions.remark(note)

    def _report(self, tuner: str, outcome: Outcome) -> None:
        """What was not done is for the curious, unless the kernel or the ledger refused it."""
        if outcome.status in (Status.APPLIED, Status.OBSERVED):
            return
        proposal = outcome.proposal
        priority = Priority.WARNING if outcome.status is Status.FAILED else Priority.DEBUG
        text = not_done_line(outcome)
        self._logger.log(priority, text, tuner=tuner, tunable=proposal.tunable, scenario=proposal.scenario)
