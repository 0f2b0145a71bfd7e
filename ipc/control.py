# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests and replies of the control socket, and the stream of events beside it.

`control.sock` (ROUTER) takes one request per message and answers each with the reply of the same
tag (`done` for restart, enable, disable), or with a Failure. `events.sock` (PUB) carries one
LogEvent per message. Both are ipc sockets of mode 0660, root and the service's group; verbs in
CHANGING need uid 0. The supervisor reads the peer's credentials from the socket (SO_PEERCRED),
never from the message. Who asks more than QUEUED_MESSAGES times without fetching replies may lose some.

Replies are what `bpftune-ctl --json` prints: fields are added (with a default, so that client and
daemon may differ in age), never renamed or removed.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from bpftune.ipc.codec import Codec
from bpftune.ipc.declaration import Format
from bpftune.ipc.messages import Netns, Number, Table, Value

CONTROL_SOCKET = "control.sock"
EVENTS_SOCKET = "events.sock"
RUN_DIR = Path("/run/bpftune")
STATE_DIR = Path("/var/lib/bpftune")
MAX_REQUEST_BYTES = 64 << 10
QUEUED_MESSAGES = 8
"""Per client and direction."""
HIGHEST_CHANGE = 2**63 - 1
"""SQLite counts no further."""
HIGHEST_HISTORY = 5000
"""Changes in one reply: some 2 MB."""


class StatusRequest(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    pass


class TunablesRequest(msgspec.Struct, frozen=True, kw_only=True, tag="tunables"):
    """Every tunable of every tuner where it was read or changed."""


class SummaryRequest(msgspec.Struct, frozen=True, kw_only=True, tag="summary"):
    pass


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True, tag="history"):
    limit: Annotated[int, msgspec.Meta(ge=0, le=HIGHEST_HISTORY)] = 100


class ExplainRequest(msgspec.Struct, frozen=True, kw_only=True, tag="explain"):
    change: Annotated[int, msgspec.Meta(ge=0, le=HIGHEST_CHANGE)]


class RestartRequest(msgspec.Struct, frozen=True, kw_only=True, tag="restart"):
    tuner: str


class EnableRequest(msgspec.Struct, frozen=True, kw_only=True, tag="enable"):
    tuner: str
    netns: str | None = None
    """A name, a cookie or an inode number; None: everywhere."""


class DisableRequest(msgspec.Struct, frozen=True, kw_only=True, tag="disable"):
    tuner: str
    netns: str | None = None


class RollbackRequest(msgspec.Struct, frozen=True, kw_only=True, tag="rollback"):
    target: str
    """"all", a tuner's name, or a change's number."""
    dry_run: bool = False


class VerifyRequest(msgspec.Struct, frozen=True, kw_only=True, tag="verify"):
    """Compare every tunable that bpftune changed with what the ledger says it should be."""


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True, tag="export"):
    """The current values of everything changed in the initial namespace."""


class SupportRequest(msgspec.Struct, frozen=True, kw_only=True, tag="support"):
    pass


Request = (
    StatusRequest
    | TunablesRequest
    | SummaryRequest
    | HistoryRequest
    | ExplainRequest
    | RestartRequest
    | EnableRequest
    | DisableRequest
    | RollbackRequest
    | VerifyRequest
    | ExportRequest
    | SupportRequest
)

CHANGING = (RestartRequest, EnableRequest, DisableRequest, RollbackRequest)


class TunerState(StrEnum):
    STARTING = "starting"
    ACTIVE = "active"
    RESTARTING = "restarting"
    DISABLED = "disabled"
    """Off everywhere or in the initial namespace: an administrator's doing."""
    INACTIVE = "inactive"
    """No scenario of it can be observed on this kernel, or the kernel does not enforce its limits."""
    FAILED = "failed"


class HookStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One probe's place on its ladder."""

    probe: str
    scenarios: list[str]
    hook: str | None
    """The rung in use; None: none was accepted."""
    refused: dict[str, str]
    """Better rungs and why the kernel refused them."""
    unused: str = ""
    """Why the probe would be of no use on this kernel; no rung is tried then."""
    resting: bool = False
    """Not attached at present: the strategy that uses it is not the active one, or the tuner is off."""


class StrategyStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    timeout_s: int
    active: bool
    value: float | None
    """In the last evaluation; None: there was none yet."""


class ScenarioCounters(msgspec.Struct, frozen=True, kw_only=True):
    scenario: str
    sent: int
    suppressed: int
    """held back in the kernel by the 25 ms limit"""
    dropped: int
    """lost because the ring buffer was full"""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Why a tuner is off in one namespace."""

    netns: Netns
    by: str
    """`pid 12, cmd 'sysctl', user 'root'`, or `bpftune-ctl disable (uid 0, pid 12)`."""
    tunable: str | None = None
    old: str | None = None
    new: str | None = None
    since_s: float = 0
    """wall clock, seconds since the epoch"""


class TunerStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    state: TunerState
    why: str
    folder: str
    pid: int | None
    uptime_s: float
    restarts: int
    events_in: int
    events_merged: int
    events_dropped: int
    changes: int
    last_change: str | None
    """The log line of the newest change of this run."""
    last_change_s: float | None
    hooks: list[HookStatus]
    counters: list[ScenarioCounters]
    overrides: list[Override]
    left_alone: list[str]
    """Tunables that sysctl.d sets: the administrator's from the start."""
    pss_bytes: int | None
    cpu_s: float | None
    write_latency_us: list[int] = []
    """From the event's BPF timestamp to its value written, the newest 256 changes."""
    strategies: list[StrategyStatus] = []


class NetnsChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Tunables that differ from the administrator's values because of us; cookie 0: global ones."""

    netns_cookie: int
    tunables: list[str]


class StatusReply(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    version: str
    pid: int
    uptime_s: float
    mode: str
    """"auto" or "observe"."""
    learning_rate: int
    kernel: str
    support: str
    """The first line of `bpftune -S`."""
    pss_bytes: int
    """All processes of bpftune together."""
    cpu_s: float
    ring_dropped: int
    tuners: list[TunerStatus]
    namespaces: list[Netns]
    refused_folders: list[str]
    changed_in: list[NetnsChanges] = []
    rivals: list[str] = []
    """Other programs that tune the same settings, seen at start."""


class TunableStatus(msgspec.Struct, frozen=True, kw_only=True):
    tunable: str
    tuner: str
    netns: Netns
    original: Value
    current: Value
    floor: Value
    cap: Value
    state: str
    """"unchanged", "changed", "overridden", "left alone" (set in sysctl.d)."""
    format: Format = Format.INTEGERS
    """How sysctl(8) writes the values."""


class TunablesReply(msgspec.Struct, frozen=True, kw_only=True, tag="tunables"):
    tunables: list[TunableStatus]


class SummaryReply(msgspec.Struct, frozen=True, kw_only=True, tag="summary"):
    lines: list[str]
    tables: list[Table]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the ledger."""

    id: int
    time_s: float
    tuner: str
    tunable: str
    netns: Netns
    old: Value
    new: Value
    scenario: str
    reason: str
    evidence: dict[str, Number]
    outcome: str
    """"intent", "applied", "failed", "undone", "left" (someone else wrote meanwhile), "rolled back"."""
    format: Format = Format.INTEGERS
    """How sysctl(8) writes the values; the ledger itself does not know."""


class HistoryReply(msgspec.Struct, frozen=True, kw_only=True, tag="history"):
    changes: list[Change]


class ExplainReply(msgspec.Struct, frozen=True, kw_only=True, tag="explain"):
    change: Change
    why: str
    """The scenario's sentence."""
    text: list[str]
    followed_by: list[Change]
    """Later changes of the same tunable in the same namespace."""


class DoneReply(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """What a changing verb did, as lines for people."""

    lines: list[str]


class RestoredTunable(msgspec.Struct, frozen=True, kw_only=True):
    tunable: str
    netns: Netns
    current: Value
    original: Value
    outcome: str
    """"restored", "would restore", "left: <why>", "failed: <why>"."""
    format: Format = Format.INTEGERS
    """How sysctl(8) writes the values."""


class RollbackReply(msgspec.Struct, frozen=True, kw_only=True, tag="rollback"):
    restored: list[RestoredTunable]
    unknown: str | None = None
    """What cannot be known, when an unreadable ledger was set aside."""


class VerifyReply(msgspec.Struct, frozen=True, kw_only=True, tag="verify"):
    checked: int
    differences: list[str]


class ExportReply(msgspec.Struct, frozen=True, kw_only=True, tag="export"):
    settings: dict[str, str]
    """sysctl key -> value as sysctl(8) takes it."""


class SupportReply(msgspec.Struct, frozen=True, kw_only=True, tag="support"):
    supported: bool
    lines: list[str]
    hooks: dict[str, list[HookStatus]]
    """tuner -> its probes"""


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    kind: str
    """Name of the class in errors.py."""
    message: str
    value: str | int | None = None
    exit_code: int = 1


Reply = (
    StatusReply
    | TunablesReply
    | SummaryReply
    | HistoryReply
    | ExplainReply
    | DoneReply
    | RollbackReply
    | VerifyReply
    | ExportReply
    | SupportReply
    | Failure
)


class LogEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One log line as `events --follow` shows it; empty strings where a field does not apply."""

    time_s: float
    priority: int
    """syslog level, 0..7"""
    message: str
    tuner: str = ""
    tunable: str = ""
    scenario: str = ""
    netns: str = ""
    old: str = ""
    new: str = ""
    change_id: int = 0


requests: Codec[Request] = Codec(Request, max_bytes=MAX_REQUEST_BYTES)
replies: Codec[Reply] = Codec(Reply)
events: Codec[LogEvent] = Codec(LogEvent)
