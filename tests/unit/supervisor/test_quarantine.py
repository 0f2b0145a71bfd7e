# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from bpftune.ipc.messages import Netns
from bpftune.supervisor.mailbox import Entry
from bpftune.supervisor.quarantine import Quarantine


def entry(cookie: int = 1) -> Entry:
    return Entry(record=b"same bytes", netns=Netns(cookie=cookie), scenario_id="full")


def test_the_second_death_in_a_row_proves_it() -> None:
    quarantine, poison = Quarantine(), entry()
    assert quarantine.died(poison) is None
    assert quarantine.take() is poison
    assert quarantine.take() is None
    assert quarantine.died(poison) is poison
    assert quarantine.take() is None


def test_an_answer_acquits_it() -> None:
    quarantine, event = Quarantine(), entry()
    quarantine.died(event)
    quarantine.answered()
    assert quarantine.died(event) is None


def test_equal_bytes_are_another_event() -> None:
    quarantine = Quarantine()
    quarantine.died(entry())
    assert quarantine.died(entry()) is None


def test_a_death_with_nothing_in_hand_keeps_the_waiting_event() -> None:
    quarantine, event = Quarantine(), entry()
    quarantine.died(event)
    assert quarantine.died(None) is None
    assert quarantine.take() is event


def test_an_end_on_request_is_no_death() -> None:
    quarantine, event = Quarantine(), entry()
    quarantine.give_back(event)
    assert quarantine.take() is event
    assert quarantine.died(event) is None


def test_a_forgotten_namespace_takes_its_event_along() -> None:
    quarantine = Quarantine()
    quarantine.died(entry(cookie=1))
    assert not quarantine.forget(2)
    assert quarantine.forget(1)
    assert quarantine.take() is None
