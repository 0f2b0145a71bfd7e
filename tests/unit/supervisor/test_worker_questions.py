# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from typing import Any, cast

import pytest

from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import Report, Summarize, Table
from bpftune.supervisor.worker_questions import WorkerQuestions
from tests.unit.supervisor.still_loop import StillLoop


class Life:
    """A process that was asked for everything that it answers."""

    def send(self, message: object, *, owing: str = "") -> None:
        pass

    def paid(self, owing: str) -> bool:
        return True


@pytest.fixture
def questions() -> WorkerQuestions:
    made = WorkerQuestions(
        loop=StillLoop(),
        life=cast("Any", Life()),
        request=lambda seq: Summarize(seq=seq),
        number=lambda: 1,
        report_within_s=5,
    )
    made.ready()
    return made


@pytest.mark.parametrize(
    "table",
    [
        Table(title="t", columns=["a", "b"], rows=[["x", 1], ["y"]]),
        Table(title="t", columns=["a"], rows=[["x", 1]]),
        Table(title="t", columns=[], rows=[[]]),
        Table(title="t", columns=[], rows=[]),
    ],
)
def test_a_table_that_is_none_is_refused_before_anybody_prints_it(
    questions: WorkerQuestions, table: Table
) -> None:
    heard: list[list[Table]] = []
    questions.tables(heard.append)
    with pytest.raises(ProtocolError, match="a table whose rows"):
        questions.take_report(Report(seq=1, tables=[table]))
    assert heard == []
    questions.settle()
    assert heard == [[]]
