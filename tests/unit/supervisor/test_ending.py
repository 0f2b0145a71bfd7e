# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from bpftune.ipc.control import RestoredTunable
from bpftune.ipc.messages import Table
from bpftune.supervisor import ending
from bpftune.supervisor.ending import Ending
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.options import Options


class Stage:
    """Stands for everything that an ending deals with; no tuner is loaded."""

    def __init__(self, *, dry_run: bool) -> None:
        self.options = Options(dry_run=dry_run)
        self.roster: list[Any] = []
        self.dry_runs: list[bool] = []
        everything = cast("Any", self)
        Ending(
            loop=Loop(),
            notifier=everything,
            parts=everything,
            collector=everything,
            consume=lambda: None,
            rollback=everything,
            logger=everything,
        ).begin()

    def stopping(self) -> None:
        pass

    def notice(self, line: str) -> None:
        pass

    def collect(self, done: Callable[[list[Table]], None]) -> None:
        done([])

    def run(self, target: str, tuners: Callable[[], list[str]], *, dry_run: bool) -> list[RestoredTunable]:
        self.dry_runs.append(dry_run)
        return []


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_rollback_at_exit_writes_no_more_than_everything_else(
    monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    monkeypatch.setattr(ending, "summary_text", lambda parts: [])
    assert Stage(dry_run=dry_run).dry_runs == [dry_run]
