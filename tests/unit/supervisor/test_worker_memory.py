# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.messages import GLOBAL, Netns, SavedState, View
from bpftune.supervisor.worker_memory import MAX_RECORD_BYTES, WorkerMemory

GONE = 99


def read_view(cookie: int) -> View | None:
    return None if cookie == GONE else View(netns=Netns(cookie=cookie), tunables={}, memory_bytes=0)


def save(memory: WorkerMemory, cookie: int, record: bytes = b"learned") -> None:
    memory.save([SavedState(netns_cookie=cookie, record=record)])


def told(memory: WorkerMemory) -> tuple[list[int], list[int]]:
    """Cookies of the states and of the views that a new process is given."""
    saved, views = memory.start(read_view)
    return [state.netns_cookie for state in saved], [view.netns.cookie for view in views]


@pytest.fixture
def memory() -> WorkerMemory:
    """Of a worker that was started and handed one event in namespace 1."""
    made = WorkerMemory()
    made.start(read_view)
    made.views_to_send(1, read_view)
    return made


def test_views_are_sent_once_and_again_when_invalidated(memory: WorkerMemory) -> None:
    assert memory.views_to_send(1, read_view) == (None, None)
    memory.invalidate(1)
    assert memory.views_to_send(1, read_view) == (read_view(1), None)
    memory.invalidate(GLOBAL)
    assert memory.views_to_send(1, read_view) == (None, read_view(GLOBAL))


def test_a_new_process_gets_the_records_and_views_of_what_is_known(memory: WorkerMemory) -> None:
    save(memory, 1)
    save(memory, GLOBAL)
    assert told(memory) == ([1, GLOBAL], [GLOBAL, 1])


def test_a_namespace_with_changes_of_an_earlier_run_is_known() -> None:
    assert told(WorkerMemory([5])) == ([], [GLOBAL, 5])


def test_a_namespace_that_is_gone_is_forgotten() -> None:
    memory = WorkerMemory([GONE])
    assert memory.views_to_send(GONE, read_view) is None
    save(memory, GONE)
    assert told(memory) == ([], [GLOBAL])


def test_records_of_unknown_namespaces_are_not_kept(memory: WorkerMemory) -> None:
    save(memory, 7)
    assert told(memory)[0] == []


def test_an_oversized_record_is_an_error(memory: WorkerMemory) -> None:
    with pytest.raises(ProtocolError, match="at most"):
        save(memory, 1, b"x" * (MAX_RECORD_BYTES + 1))


def test_where_the_tuner_rests_the_record_waits_for_the_next_event(memory: WorkerMemory) -> None:
    save(memory, 1)
    memory.forget(1, state=False)
    assert told(memory) == ([1], [GLOBAL])
    assert memory.views_to_send(1, read_view) == (read_view(1), None)
    assert told(memory) == ([1], [GLOBAL, 1])


def test_dropping_states_keeps_the_namespaces(memory: WorkerMemory) -> None:
    save(memory, 1)
    assert memory.drop_states() == 1
    assert told(memory) == ([], [GLOBAL, 1])
