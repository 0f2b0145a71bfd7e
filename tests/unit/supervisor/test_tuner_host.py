# SPDX-License-Identifier: GPL-2.0-or-later
"""What a worker says and asks for, among fakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from bpftune.ipc.control import LogEvent, TunerState
from bpftune.ipc.declaration import Declaration, MapTable, Scenario, Scope, Tunable, Writer
from bpftune.ipc.errors import NetnsGone
from bpftune.ipc.messages import Answer, MapRow, Netns, Note
from bpftune.supervisor import tuner_host
from bpftune.supervisor.announcer import Announcer
from bpftune.supervisor.folders import TunerFolder
from bpftune.supervisor.logger import Logger
from bpftune.supervisor.loop import Loop
from bpftune.supervisor.roster import Tuner
from bpftune.supervisor.tuner_host import TunerHost

BLUE = Netns(cookie=7, name="blue")
HOME = Netns(cookie=1, name="global", initial=True)
BY_PROBE, BY_US = "net.persock.colour", "net.colour"


def declaration() -> Declaration:
    return Declaration(
        name="painter",
        description="d",
        tunables=[
            Tunable(name=BY_PROBE, scope=Scope.NETNS, writer=Writer.SOCKET),
            Tunable(name=BY_US, scope=Scope.NETNS),
        ],
        scenarios=[Scenario(id="pale", name="too pale", tunable=BY_PROBE, why="It is.", reason="paleness")],
        probes=[],
        tables=[MapTable(map="colours", key=["u64 netns_cookie"], value=["u64 seen"])],
    )


class Lines:
    """A sink of the logger."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, event: LogEvent, message_id: str) -> None:
        self.texts.append(event.message)

    def close(self) -> None:
        pass


class Tuners(dict[str, Tuner]):
    """A roster: it iterates over its tuners, not their names."""

    def __iter__(self) -> Iterator[Tuner]:  # type: ignore[override]
        return iter(self.values())


@dataclass
class FakeWorker:
    state: TunerState
    why: str = ""


def tuner(state: TunerState | None = None) -> Tuner:
    """With a worker in that state; None: an inactive one without."""
    folder = TunerFolder(path=Path("/x"), declaration=declaration(), fingerprint=())
    return Tuner(
        folder=folder, equipper=cast("Any", None), worker=cast("Any", FakeWorker(state)) if state else None
    )


class Stage:
    """Stands for the registry, the roster, the decisions and the BPF layer."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self.tuner = tuner()
        self.lines = Lines()
        self.roster = Tuners({"painter": self.tuner})
        self.found = {b"12345678": b"abcdefgh"}
        self.remarks: list[str] = []
        self.status_told: list[int] = []
        logger = Logger(self.lines, loop=Loop(), now_ns=lambda: 0)
        self.host = TunerHost(
            bpf=cast("Any", self),
            roster=cast("Any", self.roster),
            decisions=cast("Any", self),
            counters=cast("Any", None),
            registry=cast("Any", self),
            announcer=Announcer(logger),
            logger=logger,
            namespace_missing=lambda: None,
            state_changed=lambda: self.status_told.append(self.tuner.changes),
            all_failed=lambda: self.lines.texts.append("all failed"),
            dry_run=dry_run,
        )

    def netns(self, cookie: int) -> Netns:
        for one in self.known():
            if one.cookie == cookie:
                return one
        raise NetnsGone(cookie)

    def known(self) -> list[Netns]:
        return [HOME, BLUE]

    def remark(self, note: Note) -> None:
        self.remarks.append(note.text)

    def rows(self, tuner: str, map_name: str) -> dict[bytes, bytes]:
        assert (tuner, map_name) == ("painter", "colours")
        return self.found

    def note(self, tunable: str = BY_PROBE, *, acts: int = 0, cookie: int = BLUE.cookie) -> None:
        note = Note(tunable=tunable, netns_cookie=cookie, scenario="pale", text="Painted", acts=acts)
        self.host.decide("painter", Answer(seq=1, notes=[note]), 0)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_what_a_probe_did_is_announced_and_counted_like_a_change(stage: Stage) -> None:
    stage.note(acts=3)
    stage.note(acts=2)

    assert stage.lines.texts == [
        f"Scenario 'too pale' occurred for tunable '{BY_PROBE}' in netns 'blue'. It is.",
        "Painted in netns 'blue'",
    ], "the second time both lines are folded"
    assert stage.tuner.occurrences == Counter({("pale", BY_PROBE, BLUE): 5})
    assert (stage.tuner.changes, stage.tuner.last_change) == (5, "Painted in netns 'blue'")
    assert stage.status_told == [3, 5]


def test_what_a_probe_would_have_done_is_no_change() -> None:
    stage = Stage(dry_run=True)
    stage.note(acts=3)

    assert stage.tuner.occurrences == Counter({("pale", BY_PROBE, BLUE): 3})
    assert (stage.tuner.changes, stage.tuner.last_change) == (0, None)


def test_in_the_initial_namespace_the_line_does_not_say_where(stage: Stage) -> None:
    stage.note(acts=1, cookie=HOME.cookie)
    assert stage.lines.texts[1] == "Painted"


@pytest.mark.parametrize(("tunable", "acts"), [(BY_PROBE, 0), (BY_PROBE, -1), (BY_US, 5)])
def test_a_mere_note_counts_for_nothing(stage: Stage, tunable: str, acts: int) -> None:
    stage.note(tunable, acts=acts)
    assert stage.lines.texts == [f"{tunable} in netns 'blue': Painted"]
    assert stage.remarks == ["Painted"]
    assert not stage.tuner.occurrences


def test_notes_about_the_unknown_are_dropped(stage: Stage) -> None:
    stage.note("net.unknown", acts=1)
    stage.note(acts=1, cookie=99)
    assert stage.lines.texts == []
    assert not stage.tuner.occurrences


def test_a_summary_is_asked_for_with_rows_and_the_names_to_them(stage: Stage) -> None:
    asked = stage.host.summarize("painter", 4)
    assert (asked.seq, asked.namespaces) == (4, [HOME, BLUE])
    assert asked.maps == {"colours": [MapRow(key=b"12345678", value=b"abcdefgh")]}


def test_a_large_map_does_not_outgrow_a_message(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner_host, "MAX_MAP_BYTES", 40)
    stage.found = {number.to_bytes(8, "little"): bytes(8) for number in range(9)}
    assert len(stage.host.summarize("painter", 1).maps["colours"]) == 2


def test_an_empty_map_has_no_rows(stage: Stage) -> None:
    stage.found = {}
    assert stage.host.summarize("painter", 1).maps == {"colours": []}


@pytest.mark.parametrize(
    ("others", "gives_up"),
    [
        ([], True),
        ([None], True),
        ([None, TunerState.FAILED], True),
        ([TunerState.ACTIVE], False),
        ([None, TunerState.RESTARTING], False),
    ],
)
def test_without_a_tuner_that_can_work_there_is_no_point(
    stage: Stage, others: list[TunerState | None], *, gives_up: bool
) -> None:
    stage.roster |= {"painter": tuner(TunerState.FAILED)}
    stage.roster |= {f"other{number}": tuner(state) for number, state in enumerate(others)}
    stage.host.state_changed("painter")
    assert ("all failed" in stage.lines.texts) is gives_up
