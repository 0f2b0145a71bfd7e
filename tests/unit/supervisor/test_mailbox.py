# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from bpftune.ipc.messages import Netns
from bpftune.supervisor.mailbox import Entry, Mailbox


def entry(record: bytes, cookie: int = 1, scenario_id: str = "full") -> Entry:
    return Entry(record=record, netns=Netns(cookie=cookie), scenario_id=scenario_id)


def take_all(mailbox: Mailbox) -> list[bytes]:
    records = []
    while (taken := mailbox.take()) is not None:
        records.append(taken.record)
    return records


def test_the_newest_replaces_an_older_one_and_keeps_its_place() -> None:
    mailbox = Mailbox()
    for waiting in (
        entry(b"old"),
        entry(b"other", cookie=2),
        entry(b"new"),
        entry(b"third", scenario_id="x"),
    ):
        mailbox.put(waiting)
    assert take_all(mailbox) == [b"new", b"other", b"third"]
    assert (mailbox.merged, mailbox.dropped) == (1, 0)


def test_a_full_mailbox_still_merges_and_drops_the_rest() -> None:
    mailbox = Mailbox(capacity=2)
    for cookie in (1, 2, 3, 1):
        mailbox.put(entry(b"%d" % cookie, cookie=cookie))
    assert take_all(mailbox) == [b"1", b"2"]
    assert (mailbox.merged, mailbox.dropped) == (1, 1)


def test_a_forgotten_namespace_loses_its_events_only() -> None:
    mailbox = Mailbox()
    for cookie, scenario_id in ((1, "a"), (2, "a"), (1, "b")):
        mailbox.put(entry(b"%d" % cookie, cookie=cookie, scenario_id=scenario_id))
    mailbox.forget(1)
    assert mailbox.dropped == 2
    assert take_all(mailbox) == [b"2"]


def test_clear_counts_what_it_drops() -> None:
    mailbox = Mailbox()
    mailbox.put(entry(b"x"))
    mailbox.clear()
    assert mailbox.dropped == 1
    assert mailbox.take() is None
