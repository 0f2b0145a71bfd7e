# SPDX-License-Identifier: GPL-2.0-or-later
"""Gathers the tuners' own tables from all workers; a worker that is gone gives its last ones."""

from __future__ import annotations

import functools
from collections.abc import Callable

from bpftune.ipc.messages import Table
from bpftune.supervisor.roster import Roster


class SummaryCollector:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def collect(self, done: Callable[[list[Table]], None]) -> None:
        """Call `done` once, when every worker has answered or missed its deadline."""
        workers = [tuner.worker for tuner in self._roster if tuner.worker is not None]
        waiting = len(workers)
        gathered: list[list[Table]] = [[] for _ in workers]

        def take(position: int, tables: list[Table]) -> None:
            nonlocal waiting
            waiting -= 1
            gathered[position] = tables
            if waiting == 0:
                done([table for tables in gathered for table in tables])

        if not workers:
            done([])
        for position, worker in enumerate(workers):
            worker.summarize(functools.partial(take, position))
