# SPDX-License-Identifier: GPL-2.0-or-later
"""How the daemon ends: probes out, the workers' last words, the summary, and nobody left behind."""

from __future__ import annotations

from collections.abc import Callable

from bpftune.ipc.messages import Table
from bpftune.supervisor.collector import SummaryCollector
from bpftune.supervisor.logger import Logger
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.notify import ServiceNotifier
from bpftune.supervisor.rollback import ALL, Rollback
from bpftune.supervisor.status import Parts, summary_text
from bpftune.supervisor.summary import format_summary

STOP_WITHIN_S = 2.0
"""Workers that are still there then are killed with the fork server."""


class Ending:
    """Stops the loop when all is done."""

    def __init__(
        self,
        *,
        loop: Loop,
        notifier: ServiceNotifier,
        parts: Parts,
        collector: SummaryCollector,
        consume: Callable[[], None],
        rollback: Rollback | None,
        logger: Logger,
    ) -> None:
        """`consume` takes the last events in. `rollback` puts back what we changed; None: it stays."""
        self.begun = False
        self._loop = loop
        self._notifier = notifier
        self._parts = parts
        self._collector = collector
        self._consume = consume
        self._rollback = rollback
        self._logger = logger

    def begin(self) -> None:
        if self.begun:
            return
        self.begun = True
        self._notifier.stopping()
        for tuner in self._parts.roster:
            self._parts.roster.detach(tuner, "bpftune is stopping")
        self._consume()
        self._collector.collect(self._sum_up)

    def _sum_up(self, tables: list[Table]) -> None:
        for line in format_summary(summary_text(self._parts), tables):
            self._logger.notice(line)
        if self._rollback is not None:
            for one in self._rollback.run(ALL, list, dry_run=self._parts.options.dry_run):
                self._logger.notice(f"rollback: {one.tunable} in '{one.netns.name}': {one.outcome}")
        for tuner in self._parts.roster:
            if tuner.worker is not None:
                tuner.worker.stop()
        self._loop.call_later(STOP_WITHIN_S, self._loop.stop)
        self._loop.call_later(0, self._stop_when_alone)

    def _stop_when_alone(self) -> None:
        if any(tuner.worker is not None and tuner.worker.pid is not None for tuner in self._parts.roster):
            self._loop.call_later(0.01, self._stop_when_alone)
        else:
            self._loop.stop()
