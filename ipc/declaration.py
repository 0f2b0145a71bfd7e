# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tuner is, as data: the records that a tuner.toml (declaration_file.py) becomes.

Supervisor, BPF layer and worker all work from them. Nothing here reads a file.
"""

from __future__ import annotations

import re
import zlib
from enum import StrEnum
from functools import cached_property
from typing import Annotated

import msgspec
from msgspec.structs import replace

DECLARATION_FILE = "tuner.toml"
PROBE_FILE = "probe.bpf.c"
POLICY_FILE = "policy.py"

Identifier = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Sentence = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]

_FIELD = re.compile(r"(u8|u16|u32|u64|s8|s16|s32|s64) ([a-z][a-z0-9_]*)(?:\[(\d{1,3})\])?")
_HOOK = re.compile(
    r"(?P<kind>tp_btf|fentry|fexit|kprobe|kretprobe|raw_tp|tracepoint|sockops|cgroup|iter|poll)"
    r"(?::(?P<target>[A-Za-z0-9_/.]+))?(?:\((?P<arguments>\d(?:,\d)*)\))?(?:@(?P<body>[a-z][a-z0-9_]*))?"
)


class Scope(StrEnum):
    NETNS = "netns"
    GLOBAL = "global"


class Format(StrEnum):
    INTEGERS = "integers"
    CPUMASK = "cpumask"


class Writer(StrEnum):
    SYSCTL = "sysctl"
    SOCKET = "socket"
    """Set per connection by BPF; declared for the summary, never proposed."""


class Tunable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting. `floor` and `cap` are formulas (bounds.py), one per field or one for all."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+(\.[a-zA-Z0-9_-]+)+$")]
    scope: Scope
    width: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    floor: str | int | list[str | int] = 0
    cap: str | int | list[str | int] = 2**31 - 1
    moves: list[int] | None = None
    """Indexes of the fields that may change; None: all."""
    fields: list[Identifier] = []
    """What the kernel's documentation calls each field, for log lines; empty: not named."""
    writer: Writer = Writer.SYSCTL
    format: Format = Format.INTEGERS
    mirror: bool = False
    """Probes may read the current value, with TUNABLE(); for what they cannot find in kernel memory."""

    def bounds(self, side: str) -> list[str]:
        """The formulas of "floor" or "cap", one per field."""
        given = getattr(self, side)
        texts = given if isinstance(given, list) else [given] * self.width
        return [str(text) for text in texts]


class EventField(msgspec.Struct, frozen=True):
    type: str
    name: str
    count: int
    """0: a scalar; else the number of array elements."""


NETNS_COOKIE = EventField("u64", "netns_cookie", 0)


class Counter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A count that the kernel keeps per namespace, read there when an event of a scenario that names
    it is handed over. For evidence; what happens often enough to cost something is better counted by
    the kernel than by a probe.

    `match` is a regular expression with one group, an integer; all matches are added up. `column` stands
    in for it in files like /proc/net/netstat, where kernels differ in what column a count is: "TcpExt
    ListenDrops", the table and the column's head.
    """

    name: Identifier
    file: Annotated[str, msgspec.Meta(pattern=r"^/proc/net/[a-z0-9_/]+$")]
    match: str = ""
    column: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9]+ [A-Za-z0-9]+)?$")] = ""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened. Without `event` it is one that only the policy raises."""

    id: Identifier
    name: Sentence
    tunable: str = ""
    """The tunable it is about; empty for the supervisor's own watchers, which change nothing."""
    why: Sentence
    reason: Sentence
    event: list[str] | None = None
    scope: Scope = Scope.NETNS
    counters: list[Identifier] = []
    repeat_while_rising: list[Identifier] = []
    """Some of `counters`: the last event is handed over again, a second later each time, until none of them
    rises any more. For what goes on without another event."""

    @property
    def fields(self) -> list[EventField]:
        return [_parse_field(text) for text in self.event or []]


class Poll(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A counter in /proc that the supervisor reads, at least 1 s apart: the last rung of a ladder, or
    with `follows` what the probe's own events call for.

    `match` is a regular expression with one group, an integer in `base`; all matches are added up. An
    event is made when the sum is nearly full of a limit, or with `rise` when it has grown.
    """

    file: Annotated[str, msgspec.Meta(pattern=r"^/proc/[a-z0-9_/]+$")]
    match: str
    base: int = 10
    limit: str = ""
    """tunable whose field `limit_field` is the limit."""
    limit_field: int = 0
    limit_event_field: str = ""
    rise: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Instead of a limit: an event is made when the sum grew by at least this since the last reading."""
    interval_event_field: str = ""
    """Takes the nanoseconds in which it grew."""
    value_event_field: str
    """Takes the sum, or by how much it grew."""
    scenario: Identifier
    interval_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 1
    follows: str = ""
    """A scenario of the same probe: where the probe has a hook, the counter is read only while events
    of that scenario keep coming."""
    follow_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 3
    """How long reading goes on after such an event."""

    @property
    def unprompted(self) -> Poll:
        """The same, without waiting for events."""
        return replace(self, follows="")


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One body in probe.bpf.c and its ladder, best rung first."""

    name: Identifier
    scenarios: list[str]
    hooks: Annotated[list[str], msgspec.Meta(min_length=1)]
    needs: list[str] = []
    """Constants of the declaration's `enums` without which no hook is of use, only a poll rung."""
    poll: Poll | None = None

    @property
    def ladder(self) -> list[Hook]:
        return [parse_hook(text) for text in self.hooks]

    @property
    def iterates(self) -> bool:
        """Whether it looks once at what is there, instead of waiting for something to happen."""
        return any(hook.kind == "iter" for hook in self.ladder)

    def body_of(self, hook: Hook) -> str:
        """The body in probe.bpf.c that serves `hook`."""
        return hook.body or self.name


class MapTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A BPF map of the probes that the summary shows: its rows go to the policy, which makes tables of them.

    A key whose first field is `u64 netns_cookie` goes with that namespace.
    """

    map: Identifier
    key: Annotated[list[str], msgspec.Meta(min_length=1)]
    value: Annotated[list[str], msgspec.Meta(min_length=1)]

    @property
    def key_fields(self) -> list[EventField]:
        return [_parse_field(text) for text in self.key]

    @property
    def value_fields(self) -> list[EventField]:
        return [_parse_field(text) for text in self.value]

    @property
    def per_netns(self) -> bool:
        return self.key_fields[0] == NETNS_COOKIE


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """`kind:target`; `arguments` maps the body's arguments to the hook's, None: in order."""

    kind: str
    target: str = ""
    arguments: tuple[int, ...] | None = None
    body: str = ""
    """The body for a rung that sees something else than the others; empty: the probe's own."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind


class Strategy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way of doing the tuner's work. One is active at a time; when its time is over, the policy
    says what each is worth and the best goes on."""

    name: Identifier
    description: Sentence
    timeout_s: Annotated[int, msgspec.Meta(ge=1, le=604_800)]
    probes: list[str]
    """Attached only while a strategy that names them is active."""


class InactiveWhen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The kernel's default of a tunable that shows that the tuner would be of no use: it stays
    inactive then and says why."""

    tunable: str
    field: int = 0
    at_least: int
    why: Sentence


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """One tuner.toml."""

    name: Identifier
    description: Sentence
    tunables: list[Tunable]
    scenarios: list[Scenario]
    probes: list[Probe]
    strategies: list[Strategy] = []
    """At the start the first one is active whose probes this kernel has hooks for. Empty: all probes are
    always attached."""
    tables: list[MapTable] = []
    counters: list[Counter] = []
    inactive_when: list[InactiveWhen] = []
    structs: dict[str, list[str]] = {}
    """Kernel structs and the members that probe.bpf.c names; `?member` may be missing."""
    enums: dict[str, list[str]] = {}
    """Kernel enums and the constants that probe.bpf.c names; each becomes a macro."""

    @cached_property
    def id(self) -> int:
        """The tuner's number in event records: stable, so that it can be compiled in."""
        return zlib.crc32(self.name.encode()) & 0xFFFF

    @cached_property
    def tunables_by_name(self) -> dict[str, Tunable]:
        return {tunable.name: tunable for tunable in self.tunables}

    @cached_property
    def scenarios_by_id(self) -> dict[str, Scenario]:
        return {scenario.id: scenario for scenario in self.scenarios}

    def probes_with(self, active: Strategy) -> list[str]:
        """What is attached while a strategy is active: its probes and those that no strategy names."""
        resting = {name for strategy in self.strategies for name in strategy.probes} - {*active.probes}
        return [probe.name for probe in self.probes if probe.name not in resting]

    @cached_property
    def mirrored(self) -> list[Tunable]:
        """What probes read with TUNABLE()."""
        return [tunable for tunable in self.tunables if tunable.mirror]

    @cached_property
    def counters_by_name(self) -> dict[str, Counter]:
        return {counter.name: counter for counter in self.counters}


def parse_hook(text: str) -> Hook:
    match = _HOOK.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot parse hook '{text}'")
    arguments = match["arguments"]
    return Hook(
        kind=match["kind"],
        target=match["target"] or "",
        arguments=tuple(map(int, arguments.split(","))) if arguments else None,
        body=match["body"] or "",
    )


def _parse_field(text: str) -> EventField:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot parse event field '{text}': want 'u32 name' or 'u32 name[3]'")
    return EventField(match[1], match[2], int(match[3] or 0))
