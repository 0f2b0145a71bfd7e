# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import msgspec

from bpftune.ipc.messages import SavedState
from bpftune.workers.states import StateRecords


class Learned(msgspec.Struct):
    count: int = 0


def test_only_changes_are_handed_out() -> None:
    states = StateRecords(Learned, log=print)
    states.get(1)
    assert [saved.netns_cookie for saved in states.take_changes(1)] == [1]
    assert states.take_changes(1) == []
    states.get(1).count += 1
    assert len(states.take_changes(1)) == 1


def test_a_record_comes_back_as_it_went() -> None:
    states = StateRecords(Learned, log=print)
    states.get(3).count = 7
    (saved,) = states.take_changes(3)
    restored = StateRecords(Learned, log=print)
    restored.restore(saved)
    assert restored.by_cookie == {3: Learned(count=7)}
    assert restored.take_changes(3) == []


def test_a_record_that_does_not_fit_is_dropped_with_a_line() -> None:
    lines: list[str] = []
    states = StateRecords(Learned, log=lines.append)
    states.restore(SavedState(netns_cookie=3, record=msgspec.msgpack.encode({"count": "many"})))
    states.restore(SavedState(netns_cookie=4, record=b"\xc1"))
    assert states.by_cookie == {}
    assert ["namespace 3" in lines[0], "namespace 4" in lines[1]] == [True, True]


def test_a_forgotten_namespace_starts_over() -> None:
    states = StateRecords(Learned, log=print)
    states.get(1).count = 9
    states.take_changes(1)
    states.forget(1)
    assert states.get(1).count == 0
