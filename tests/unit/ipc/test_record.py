# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import ctypes
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.ipc.declaration import Declaration, EventField, MapTable, Scenario
from bpftune.ipc.errors import ProtocolError
from bpftune.ipc.record import HEADER, RecordDecoder, decode_row, payload_struct, unpack_header

CTYPES = {
    "u8": ctypes.c_uint8,
    "s8": ctypes.c_int8,
    "u16": ctypes.c_uint16,
    "s16": ctypes.c_int16,
    "u32": ctypes.c_uint32,
    "s32": ctypes.c_int32,
    "u64": ctypes.c_uint64,
    "s64": ctypes.c_int64,
}

DECLARATION = Declaration(
    name="t",
    description="d",
    tunables=[],
    probes=[],
    scenarios=[
        Scenario(id="a", name="n", tunable="x.y", why="w", reason="r", event=["u32 one", "u64 many[2]"]),
        Scenario(id="b", name="n", tunable="x.y", why="w", reason="r", event=["s64 two"]),
    ],
)


def record(index: int, payload: bytes) -> bytes:
    return HEADER.pack(123, 7, 9, DECLARATION.id, index, 5, 0) + payload


def test_fields_are_decoded_by_scenario() -> None:
    fields = DECLARATION.scenarios[0].fields
    event = RecordDecoder(DECLARATION).decode(record(0, payload_struct(fields).pack(1, 2, 3)))
    assert (event.scenario, event.netns_cookie, event.suppressed) == ("a", 7, 5)
    assert (event["one"], event.vectors["many"]) == (1, (2, 3))
    event = RecordDecoder(DECLARATION).decode(record(1, (-4).to_bytes(8, "little", signed=True)))
    assert (event.scenario, event["two"]) == ("b", -4)


@pytest.mark.parametrize("data", [b"", b"x" * 31, record(2, b"x" * 64), record(0, b"x" * 23)])
def test_short_or_foreign_records_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        RecordDecoder(DECLARATION).decode(data)


def test_longer_records_are_padding() -> None:
    assert unpack_header(record(1, b"\0" * 40)).scenario_index == 1


@given(st.lists(st.tuples(st.sampled_from(sorted(CTYPES)), st.integers(0, 5)), min_size=1, max_size=12))
def test_layout_is_the_one_of_a_c_struct(shape: list[tuple[str, int]]) -> None:
    fields = [EventField(kind, f"f{number}", count) for number, (kind, count) in enumerate(shape)]
    members = [
        (field.name, CTYPES[field.type] * field.count if field.count else CTYPES[field.type])
        for field in fields
    ]
    # the generated struct is aligned to 8, as the header in front of it is
    layout = type("Layout", (ctypes.Structure,), {"_fields_": [*members, ("end", ctypes.c_uint64 * 0)]})
    assert payload_struct(fields).size == ctypes.sizeof(layout)


TABLE = MapTable(map="m", key=["u64 netns_cookie", "u8 address[4]"], value=["u32 seen", "u32 rates[2]"])
KEY, VALUE = struct.pack("=Q4B4x", 7, 192, 0, 2, 1), struct.pack("=III4x", 3, 10, 20)


def test_a_row_has_the_fields_of_key_and_value() -> None:
    row = decode_row(TABLE, KEY, VALUE)
    assert (row["netns_cookie"], row["seen"]) == (7, 3)
    assert row.vectors == {"address": (192, 0, 2, 1), "rates": (10, 20)}


@pytest.mark.parametrize(("key", "value"), [(KEY[:8], VALUE), (KEY, VALUE + b"\0"), (b"", b"")])
def test_a_row_of_another_size_is_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(ProtocolError, match="map 'm'"):
        decode_row(TABLE, key, value)
