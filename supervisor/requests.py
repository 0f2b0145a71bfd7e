# SPDX-License-Identifier: GPL-2.0-or-later
"""What each verb of bpftune-ctl does in the supervisor. Raises BpftuneError; the server answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from bpftune.ipc.control import (
    Change,
    DisableRequest,
    DoneReply,
    EnableRequest,
    ExplainReply,
    ExplainRequest,
    ExportReply,
    ExportRequest,
    HistoryReply,
    HistoryRequest,
    Reply,
    Request,
    RestartRequest,
    RollbackReply,
    RollbackRequest,
    StatusReply,
    StatusRequest,
    SummaryReply,
    SummaryRequest,
    SupportReply,
    SupportRequest,
    TunablesReply,
    TunablesRequest,
    VerifyReply,
    VerifyRequest,
)
from bpftune.ipc.errors import UnknownName, UsageError
from bpftune.ipc.messages import Netns
from bpftune.supervisor.collector import SummaryCollector
from bpftune.supervisor.namespaces import Namespaces
from bpftune.supervisor.peers import Peer
from bpftune.supervisor.rollback import Rollback
from bpftune.supervisor.status import (
    Parts,
    status_reply,
    summary_text,
    support_reply,
    tunable_statuses,
)
from bpftune.supervisor.tunables import format_value
from bpftune.supervisor.wording import format_where


class Requests:
    def __init__(
        self,
        *,
        parts: Parts,
        rollback: Rollback,
        namespaces: Namespaces,
        collector: SummaryCollector,
        log: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._rollback = rollback
        self._namespaces = namespaces
        self._collector = collector
        self._log = log
        self._verbs: dict[type[Request], Callable[[Any, Peer], Reply]] = {
            StatusRequest: self._status,
            TunablesRequest: self._tunables,
            HistoryRequest: self._history,
            ExplainRequest: self._explain,
            RestartRequest: self._restart,
            EnableRequest: self._enable,
            DisableRequest: self._disable,
            RollbackRequest: self._roll_back,
            VerifyRequest: self._verify,
            ExportRequest: self._export,
            SupportRequest: self._support,
        }

    def answer(self, request: Request, peer: Peer, reply: Callable[[Reply], None]) -> None:
        """Give `reply` the answer, now or (a summary asks the workers) a little later."""
        if isinstance(request, SummaryRequest):
            self._collector.collect(
                lambda tables: reply(SummaryReply(lines=summary_text(self._parts), tables=tables))
            )
            return
        reply(self._verbs[type(request)](request, peer))

    def _status(self, request: StatusRequest, peer: Peer) -> StatusReply:
        self._namespaces.sweep()
        return status_reply(self._parts)

    def _tunables(self, request: TunablesRequest, peer: Peer) -> TunablesReply:
        return TunablesReply(tunables=tunable_statuses(self._parts))

    def _history(self, request: HistoryRequest, peer: Peer) -> HistoryReply:
        return HistoryReply(changes=self._with_formats(self._parts.ledger.changes(request.limit)))

    def _support(self, request: SupportRequest, peer: Peer) -> SupportReply:
        return support_reply(self._parts)

    def _restart(self, request: RestartRequest, peer: Peer) -> DoneReply:
        name = request.tuner
        tuner = self._parts.roster[name]
        if tuner.worker is None:
            raise UsageError(f"cannot restart '{name}': it has no worker, {tuner.why}")
        self._log(f"restarting '{name}': bpftune-ctl restart ({peer})")
        tuner.worker.restart()
        return DoneReply(lines=[f"restarted '{name}'"])

    def _enable(self, request: EnableRequest, peer: Peer) -> DoneReply:
        name = self._parts.roster[request.tuner].name
        lifted = self._parts.overrides.enable(name, self._netns(request.netns))
        if not lifted:
            return DoneReply(lines=[f"'{name}' was not off"])
        return DoneReply(lines=[f"'{name}' is on again: no longer {one.by}" for one in lifted])

    def _disable(self, request: DisableRequest, peer: Peer) -> DoneReply:
        tuner = self._parts.roster[request.tuner]
        netns = self._netns(request.netns)
        self._parts.overrides.disable(tuner.name, netns, by=f"bpftune-ctl disable ({peer})")
        where = format_where(netns) if netns is not None else "everywhere"
        return DoneReply(lines=[f"'{tuner.name}' is off {where}"])

    def _roll_back(self, request: RollbackRequest, peer: Peer) -> RollbackReply:
        """What is put back stays put: its tuner is turned off there, or it would change it again."""
        restored = self._rollback.run(
            request.target, lambda: [tuner.name for tuner in self._parts.roster], dry_run=request.dry_run
        )
        if not request.dry_run:
            owners = {
                tunable.name: tuner.name
                for tuner in self._parts.roster
                for tunable in tuner.declaration.tunables
            }
            for one in restored:
                if one.outcome == "restored" and one.tunable in owners:
                    netns = self._parts.registry.initial if one.netns.initial else one.netns
                    self._parts.overrides.disable(
                        owners[one.tunable], netns, by=f"bpftune-ctl rollback ({peer})"
                    )
        return RollbackReply(restored=restored, unknown=self._rollback.unknown)

    def _explain(self, request: ExplainRequest, peer: Peer) -> ExplainReply:
        ledger = self._parts.ledger
        change = ledger.change(request.change)
        followed_by = ledger.followed_by(change)
        why = change.reason
        if change.tuner in self._parts.roster:
            scenarios = self._parts.roster[change.tuner].declaration.scenarios_by_id
            if change.scenario in scenarios:
                why = scenarios[change.scenario].why
        remark = ledger.remark_on(change)
        text = [*([f"Said of it: {remark}."] if remark else []), *self._aftermath(change)]
        shown, *later = self._with_formats([change, *followed_by])
        return ExplainReply(change=shown, why=why, text=text, followed_by=later)

    def _with_formats(self, changes: list[Change]) -> list[Change]:
        formats = {cell.tunable: cell.format for cell in self._parts.ledger.cells()}
        for tuner in self._parts.roster:
            formats |= {tunable.name: tunable.format for tunable in tuner.declaration.tunables}
        return [replace(one, format=formats.get(one.tunable, one.format)) for one in changes]

    def _aftermath(self, change: Change) -> list[str]:
        """What became of the tunable since; of an earlier boot nothing is left."""
        cell = self._parts.ledger.cell(change.netns.cookie, change.tunable)
        if cell is None or not self._parts.ledger.of_this_boot(change):
            return ["Its boot or its namespace is over, and the value with it."]
        original, last = (format_value(cell.declared, value) for value in (cell.original, cell.last))
        if cell.released is not None:
            return [f"Since then {cell.released} took {cell.tunable} over; it is left alone."]
        if cell.last == cell.original:
            return [f"{cell.tunable} is back at what the administrator had: ({original})."]
        return [f"The administrator had ({original}), bpftune left ({last})."]

    def _verify(self, request: VerifyRequest, peer: Peer) -> VerifyReply:
        differences = []
        cells = [cell for cell in self._parts.ledger.cells() if cell.released is None]
        for cell in cells:
            current = self._rollback.read_cell(cell)
            if current != cell.last:
                found = "gone" if current is None else f"({format_value(cell.declared, current)})"
                expected = format_value(cell.declared, cell.last)
                differences.append(f"{cell.tunable} in '{cell.netns}' is {found}, expected ({expected})")
        return VerifyReply(checked=len(cells), differences=differences)

    def _export(self, request: ExportRequest, peer: Peer) -> ExportReply:
        initial = (0, self._parts.registry.initial.cookie)
        return ExportReply(
            settings={
                cell.tunable: format_value(cell.declared, cell.last)
                for cell in self._parts.ledger.cells()
                if cell.cookie in initial and cell.released is None and cell.last != cell.original
            }
        )

    def _netns(self, text: str | None) -> Netns | None:
        if text is None:
            return None
        try:
            return self._parts.registry.resolve(text)
        except UnknownName:
            self._namespaces.sweep()
            raise
