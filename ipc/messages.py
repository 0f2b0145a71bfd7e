# SPDX-License-Identifier: GPL-2.0-or-later
"""What supervisor and workers say to each other.

One ZeroMQ ipc socket per worker, so the socket is the sender's identity. The supervisor keeps at
most one `Deliver` unanswered per worker; everything else needs no answer unless it says so.
A namespace is named by its cookie; cookie 0 stands for "no namespace": global tunables and the
state that belongs to no single namespace.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

PROTOCOL_VERSION = 2
GLOBAL = 0

Value = tuple[int, ...]
"""A tunable's value: one integer per field; a cpumask is one integer of any size."""

Number = int | float

MOST = 64
"""Of anything that one answer lists. What a worker says is kept, logged and shown to people."""
Name = Annotated[str, msgspec.Meta(max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=400)]
Fields = Annotated[Value, msgspec.Meta(max_length=8)]
Evidence = Annotated[dict[Name, Number], msgspec.Meta(max_length=MOST)]


class Netns(msgspec.Struct, frozen=True, kw_only=True):
    """One network namespace as people and the kernel know it."""

    cookie: int
    inum: int = 0
    name: str = ""
    initial: bool = False


class TunableView(msgspec.Struct, frozen=True, kw_only=True):
    """A tunable in one namespace, as the worker may rely on it."""

    original: Value
    current: Value
    floor: Value
    cap: Value
    adopted: bool = True
    """False: set in sysctl.d by the administrator, or the tuner is off there. Proposals are refused."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All tunables of one tuner in one namespace. Tunables the namespace lacks are absent."""

    netns: Netns
    tunables: dict[str, TunableView]
    memory_bytes: int
    """Managed pages above the high watermark of zone Normal (else DMA32), in bytes."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    tunable: Name
    netns_cookie: int
    expected: Fields
    new: Fields
    scenario: Name
    reason: Text
    evidence: Evidence = {}
    device: int = 0
    """ifindex that the cap depends on (neighbour tables), else 0."""
    device_netns_cookie: int = GLOBAL
    """The namespace that `device` is in: a global tunable can depend on any namespace's device."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A decision worth a log line that asks for no change: growth stopped, frozen, at the cap."""

    tunable: Name
    netns_cookie: int
    scenario: Name
    text: Text
    acts: int = 0
    """How often the probe acted by itself, for a tunable with writer "socket": counted like changes,
    and announced with the scenario's sentence."""


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """One namespace's policy state, opaque to the supervisor."""

    netns_cookie: int
    record: bytes


class Status(StrEnum):
    APPLIED = "applied"
    OBSERVED = "observed"
    """--dry-run: everything was checked, nothing was written."""
    STALE = "stale"
    REFUSED = "refused"
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    proposal: Proposal
    status: Status
    current: Value
    why: str = ""
    change_id: int = 0


# supervisor -> worker


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """First message after connecting; answered with `Ready`."""

    version: int
    tuner: str
    shift: int
    """Each step moves a value by value >> shift, 2..6."""
    saved: list[SavedState] = []
    strategy: str = ""
    """The active one, empty for a tuner that has no strategies."""
    views: list[View] = []
    """The current values of every namespace in `saved`, and the global ones (netns cookie 0)."""


class Deliver(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One raw BPF record, answered with `Answer`. `view` comes when the worker has none or it changed."""

    seq: int
    record: bytes
    netns: Netns
    view: View | None = None
    global_view: View | None = None
    counters: dict[str, int] = {}
    """The counters that the event's scenario names; those the namespace lacks are absent."""


class UseStrategy(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """From here on this strategy is the active one."""

    strategy: str


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The active strategy has had its time; answered with `Evaluation`."""

    seq: int


class Outcomes(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    outcomes: list[Outcome]


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The namespace is gone, or the tuner was turned off there: drop its view and pending wake-ups.
    `state` too says that the learned state goes as well."""

    netns_cookie: int
    state: bool


class MapRow(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a BPF map, as the kernel hands it out."""

    key: bytes
    value: bytes


class Summarize(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answered with `Report`."""

    seq: int
    maps: dict[str, list[MapRow]] = {}
    """What the maps declared under [[tables]] hold."""
    namespaces: list[Netns] = []
    """Who is meant by a cookie in those maps; empty for a tuner without any."""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker ends with exit code 0."""


ToWorker = Start | Deliver | UseStrategy | Evaluate | Outcomes | Forget | Summarize | Stop


# worker -> supervisor


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    version: int


class Unusable(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Instead of Ready: the policy cannot be loaded, and another worker could not do it either."""

    why: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the policy wants after event `seq`; seq 0: after one of its own timers or an outcome."""

    seq: int
    proposals: Annotated[list[Proposal], msgspec.Meta(max_length=MOST)] = []
    notes: Annotated[list[Note], msgspec.Meta(max_length=MOST)] = []
    saved: list[SavedState] = []


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A tuner's own table in the summary."""

    title: str
    columns: list[str]
    rows: list[list[str | int | float]]


class Report(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    seq: int
    tables: list[Table]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What each strategy is worth, by name; None where that is no finite number, which JSON lacks."""

    seq: int
    values: dict[str, float | None]


ToSupervisor = Ready | Unusable | Answer | Report | Evaluation
