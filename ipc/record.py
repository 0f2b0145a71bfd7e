# SPDX-License-Identifier: GPL-2.0-or-later
"""The event record that BPF writes to the ring buffer: a fixed header, then the scenario's fields.

`bpf/include/bpftune.h` has the same header in C; the field structs are generated from tuner.toml
with natural alignment, so both sides follow from one declaration.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bpftune.ipc.declaration import Declaration, EventField, MapTable
from bpftune.ipc.errors import ProtocolError

HEADER = struct.Struct("=QQIHHII")
"""time_ns (CLOCK_MONOTONIC), netns cookie, netns inum, tuner id, scenario index,
events suppressed by the 25 ms limit since the last record of this (tuner, scenario, netns), padding."""

_CODES = {"u8": "B", "s8": "b", "u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q"}


class Header(NamedTuple):
    time_ns: int
    netns_cookie: int
    netns_inum: int
    tuner_id: int
    scenario_index: int
    suppressed: int


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded record: what a policy sees."""

    scenario: str
    time_ns: int
    netns_cookie: int
    suppressed: int
    numbers: dict[str, int]
    vectors: dict[str, tuple[int, ...]]
    netns_inum: int = 0

    def __getitem__(self, field: str) -> int:
        return self.numbers[field]

    def text(self, field: str) -> str:
        """A u8 array that holds a string: up to its first NUL."""
        return bytes(self.vectors[field]).partition(b"\0")[0].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Row:
    """A decoded entry of a map that tuner.toml declares as a table: fields of key and value alike."""

    numbers: dict[str, int]
    vectors: dict[str, tuple[int, ...]]

    def __getitem__(self, field: str) -> int:
        return self.numbers[field]


def unpack_header(record: bytes) -> Header:
    """Raises ProtocolError when the record is too short to have a header."""
    if len(record) < HEADER.size:
        raise ProtocolError(f"cannot decode event record: {len(record)} bytes, header needs {HEADER.size}")
    return Header(*HEADER.unpack_from(record)[:6])


def restamp(record: bytes, time_ns: int) -> bytes:
    """The record as if it came at `time_ns`, with nothing suppressed before it. It has a header."""
    header = unpack_header(record)
    return HEADER.pack(time_ns, *header[1:5], 0, 0) + record[HEADER.size :]


def payload_struct(fields: Sequence[EventField]) -> struct.Struct:
    """Layout of fields behind an event's header or in a map: natural alignment, padded to 8 bytes."""
    body = "".join(f"{field.count or ''}{_CODES[field.type]}" for field in fields)
    return struct.Struct(f"@{body}0Q")


class RecordDecoder:
    """Decodes one tuner's records."""

    def __init__(self, declaration: Declaration) -> None:
        self._scenarios = declaration.scenarios
        self._payloads = [payload_struct(scenario.fields) for scenario in declaration.scenarios]

    def decode(self, record: bytes) -> Event:
        """Raises ProtocolError for a record this tuner cannot have written."""
        header = unpack_header(record)
        if header.scenario_index >= len(self._scenarios):
            raise ProtocolError(f"cannot decode event record: no scenario {header.scenario_index}")
        scenario = self._scenarios[header.scenario_index]
        payload = self._payloads[header.scenario_index]
        if len(record) < HEADER.size + payload.size:
            raise ProtocolError(
                f"cannot decode event record of scenario '{scenario.id}': {len(record)} bytes,"
                f" {HEADER.size + payload.size} expected"
            )
        return Event(
            scenario.id,
            header.time_ns,
            header.netns_cookie,
            header.suppressed,
            *_named(scenario.fields, payload.unpack_from(record, HEADER.size)),
            header.netns_inum,
        )


def decode_row(table: MapTable, key: bytes, value: bytes) -> Row:
    """Raises ProtocolError when the sizes are not those of the declared fields."""
    key_layout, value_layout = payload_struct(table.key_fields), payload_struct(table.value_fields)
    if (len(key), len(value)) != (key_layout.size, value_layout.size):
        raise ProtocolError(f"cannot decode row of map '{table.map}': {len(key)} and {len(value)} bytes")
    fields = [*table.key_fields, *table.value_fields]
    return Row(*_named(fields, key_layout.unpack(key) + value_layout.unpack(value)))


def _named(
    fields: Sequence[EventField], unpacked: tuple[int, ...]
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    numbers: dict[str, int] = {}
    vectors: dict[str, tuple[int, ...]] = {}
    position = 0
    for field in fields:
        if field.count:
            vectors[field.name] = unpacked[position : position + field.count]
        else:
            numbers[field.name] = unpacked[position]
        position += field.count or 1
    return numbers, vectors
