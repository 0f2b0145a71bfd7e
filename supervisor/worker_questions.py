# SPDX-License-Identifier: GPL-2.0-or-later
"""What others ask of a worker's policy: the tuner's tables, and what its strategies are worth.

Tables are waited for, a crash in between included; an evaluation is of the moment or not at all.
"""

from __future__ import annotations

from collections.abc import Callable

from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import Evaluate, Evaluation, Report, Summarize, Table
from bpftune.supervisor.loop import Loop, Timer
from bpftune.supervisor.worker_lifecycle import WorkerLifecycle

TakeTables = Callable[[list[Table]], None]
TakeEvaluation = Callable[[dict[str, float | None] | None], None]


class WorkerQuestions:
    def __init__(
        self,
        *,
        loop: Loop,
        life: WorkerLifecycle,
        request: Callable[[int], Summarize],
        number: Callable[[], int],
        report_within_s: float,
    ) -> None:
        """`request` makes the message that asks for the tables, `number` a sequence number."""
        self._loop = loop
        self._life = life
        self._request = request
        self._number = number
        self._report_within_s = report_within_s
        self._ready = False
        self._tables: list[Table] = []
        self._waiting: list[TakeTables] = []
        self._deadline: Timer | None = None
        self._report_asked = 0
        self._evaluations: dict[int, TakeEvaluation] = {}

    def tables(self, done: TakeTables) -> None:
        """Call `done` once. Without an answer in time the last tables known have to do."""
        self._waiting.append(done)
        if self._deadline is None or not self._deadline.pending:
            self._deadline = self._loop.call_later(self._report_within_s, self.settle)
        self._ask()

    def evaluate(self, done: TakeEvaluation) -> None:
        """Call `done` once: with what the policy finds each strategy worth, or None without a process
        that can tell."""
        if not self._ready:
            done(None)
            return
        seq = self._number()
        self._evaluations[seq] = done
        self._life.send(Evaluate(seq=seq), owing=_evaluation(seq))

    def settle(self) -> None:
        """Answer with the tables known: there is nobody to wait for."""
        if self._deadline is not None:
            self._deadline.cancel()
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(self._tables)

    def ready(self) -> None:
        """There is a process that can be asked."""
        self._ready = True
        self._ask()

    def gone(self) -> None:
        """The process that was asked is no more."""
        self._ready = False
        self._report_asked = 0
        evaluations, self._evaluations = self._evaluations, {}
        for done in evaluations.values():
            done(None)

    def take_report(self, report: Report) -> None:
        """Raises ProtocolError if nobody asked, or for a table that is none."""
        if report.seq != self._report_asked or not self._life.paid(_report(report.seq)):
            raise ProtocolError(f"cannot accept report {report.seq}: nobody asked for it")
        for table in report.tables:
            if not table.columns or any(len(row) != len(table.columns) for row in table.rows):
                raise ProtocolError(f"cannot accept report {report.seq}: a table whose rows have no columns")
        self._report_asked = 0
        self._tables = report.tables
        self.settle()

    def take_evaluation(self, evaluation: Evaluation) -> None:
        """Raises ProtocolError if nobody asked."""
        if not self._life.paid(_evaluation(evaluation.seq)):
            raise ProtocolError(f"cannot accept evaluation {evaluation.seq}: nobody asked for it")
        self._evaluations.pop(evaluation.seq)(evaluation.values)

    def _ask(self) -> None:
        if self._ready and self._waiting and not self._report_asked:
            self._report_asked = self._number()
            self._life.send(self._request(self._report_asked), owing=_report(self._report_asked))


def _report(seq: int) -> str:
    return f"answer summary {seq}"


def _evaluation(seq: int) -> str:
    return f"answer evaluation {seq}"
