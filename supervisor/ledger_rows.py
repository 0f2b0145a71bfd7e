# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger's records and their rows.

Called by ledger.py, which owns the database. Values are stored as decimal text because a cpumask
is larger than an SQLite integer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bpftune.ipc.control import Change
from bpftune.ipc.declaration import Format, Scope, Tunable
from bpftune.ipc.messages import GLOBAL, Netns, Number, Proposal, Value
from bpftune.supervisor.tunables import Reading

CHANGE_COLUMNS = (
    "id, time_s, tuner, tunable, cookie, inum, netns, initial, old, new, scenario, reason, evidence, outcome"
)
CELL_COLUMNS = "cookie, tunable, tuner, format, inum, netns, original, text, last, released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A change that is about to be written."""

    tuner: str
    tunable: Tunable
    netns: Netns
    proposal: Proposal
    before: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One tunable in one namespace that bpftune changed during this boot."""

    cookie: int
    tunable: str
    tuner: str
    """Who changed it last."""
    format: Format
    inum: int
    netns: str
    original: Value
    """What it was before our first change since anyone else wrote it."""
    text: str
    """`original` as the kernel showed it, byte for byte."""
    last: Value
    """What it was after our last write."""
    released: str | None = None
    """Who took it over since; None: it is still ours."""

    @property
    def declared(self) -> Tunable:
        """Enough of a declaration to read and write it, also when its tuner's folder is gone."""
        scope = Scope.GLOBAL if self.cookie == GLOBAL else Scope.NETNS
        return Tunable(name=self.tunable, scope=scope, width=len(self.original), format=self.format)


def change_of(intent: Intent, change_id: int, outcome: str) -> Change:
    return Change(
        id=change_id,
        time_s=time.time(),
        tuner=intent.tuner,
        tunable=intent.tunable.name,
        netns=intent.netns,
        old=intent.before.value,
        new=intent.proposal.new,
        scenario=intent.proposal.scenario,
        reason=intent.proposal.reason,
        evidence=intent.proposal.evidence,
        outcome=outcome,
    )


def change_row(change: Change) -> tuple[Any, ...]:
    """In the order of CHANGE_COLUMNS, without the id."""
    netns = change.netns
    return (
        change.time_s,
        change.tuner,
        change.tunable,
        netns.cookie,
        netns.inum,
        netns.name,
        netns.initial,
        encode_value(change.old),
        encode_value(change.new),
        change.scenario,
        change.reason,
        msgspec.json.encode(change.evidence).decode(),
        change.outcome,
    )


def parse_change(row: Sequence[Any]) -> Change:
    change_id, time_s, tuner, tunable, cookie, inum, name, initial, old, new, scenario, reason, *rest = row
    evidence, outcome = rest
    return Change(
        id=change_id,
        time_s=time_s,
        tuner=tuner,
        tunable=tunable,
        netns=Netns(cookie=cookie, inum=inum, name=name, initial=bool(initial)),
        old=decode_value(old),
        new=decode_value(new),
        scenario=scenario,
        reason=reason,
        evidence=msgspec.json.decode(evidence, type=dict[str, Number]),
        outcome=outcome,
    )


def cell_row(cell: Cell) -> tuple[Any, ...]:
    """In the order of CELL_COLUMNS."""
    return (
        cell.cookie,
        cell.tunable,
        cell.tuner,
        cell.format.value,
        cell.inum,
        cell.netns,
        encode_value(cell.original),
        cell.text,
        encode_value(cell.last),
        cell.released,
    )


def parse_cell(row: Sequence[Any]) -> Cell:
    cookie, tunable, tuner, format_, inum, netns, original, text, last, released = row
    return Cell(
        cookie=cookie,
        tunable=tunable,
        tuner=tuner,
        format=Format(format_),
        inum=inum,
        netns=netns,
        original=decode_value(original),
        text=text,
        last=decode_value(last),
        released=released,
    )


def encode_value(value: Value) -> str:
    return " ".join(map(str, value))


def decode_value(text: str) -> Value:
    return tuple(map(int, text.split()))
