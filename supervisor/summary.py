# SPDX-License-Identifier: GPL-2.0-or-later
"""The merged summary: what occurred, what was changed, what each tuner has to tell.

Pure. The daemon logs it at exit and answers `bpftune-ctl summary` with it, so both read the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bpftune.ipc.declaration import Scenario, Tunable
from bpftune.ipc.messages import Netns, Table, Value
from bpftune.ipc.text_table import format_table
from bpftune.supervisor.wording import changed_line, scenario_summary_line

NOTHING_LINE = "Summary: no scenario occurred, nothing was changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioCount:
    """How often a scenario led to a decision for a tunable in one namespace."""

    scenario: Scenario
    tunable: str
    netns: Netns
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedTunable:
    """What the administrator had and what holds now; equal once everything borrowed was returned."""

    tunable: Tunable
    netns: Netns
    original: Value
    current: Value


def summary_lines(counts: Iterable[ScenarioCount], changed: Iterable[ChangedTunable]) -> list[str]:
    """The lines above the tables, the initial namespace first, in an order that never varies."""
    lines = [
        scenario_summary_line(
            name=one.scenario.name,
            count=one.count,
            tunable=one.tunable,
            netns=one.netns,
            why=one.scenario.why,
        )
        for one in sorted(counts, key=lambda one: (*_place(one.netns), one.tunable, one.scenario.id))
        if one.count
    ]
    lines += [
        changed_line(tunable=one.tunable, netns=one.netns, original=one.original, current=one.current)
        for one in sorted(changed, key=lambda one: (*_place(one.netns), one.tunable.name))
        if one.original != one.current
    ]
    return lines or [NOTHING_LINE]


def format_summary(lines: Sequence[str], tables: Iterable[Table]) -> list[str]:
    """All of it as text: the lines, then every table that has rows."""
    shown = [format_table(table) for table in tables if table.rows]
    return [*lines, *(line for table in shown for line in table)]


def _place(netns: Netns) -> tuple[bool, str, int]:
    return not netns.initial and netns.cookie != 0, netns.name, netns.cookie
