# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/btf.py on blobs packed by hand."""

from __future__ import annotations

import pytest

from bpftune.bpf.btf import Btf, Kind
from tests.unit.bpf.btf_blob import BtfBlob


def test_a_member_is_found_through_unnamed_structs_and_unions() -> None:
    blob = BtfBlob()
    u32 = blob.integer("unsigned int", 4)
    inner = blob.struct("", 8, [("first", u32, 0), ("second", u32, 4)])
    union = blob.union("", 8, [("", inner, 0), ("whole", u32, 0)])
    outer = blob.struct("outer", 24, [("head", u32, 0), ("", union, 16)])

    found = Btf(blob.data()).member(outer, "second")

    assert found is not None
    assert (found.type_id, found.bit_offset, found.bits) == (u32, 20 * 8, 0)


def test_a_missing_member_is_none() -> None:
    blob = BtfBlob()
    u32 = blob.integer("unsigned int", 4)
    outer = blob.struct("outer", 4, [("head", u32, 0)])

    assert Btf(blob.data()).member(outer, "tail") is None


def test_bitfields_have_their_width_and_offset() -> None:
    blob = BtfBlob()
    u8 = blob.integer("unsigned char", 1)
    flags = blob.bitfields("flags", 2, [("low", u8, 8, 3), ("high", u8, 11, 5), ("plain", u8, 0, 0)])

    members = {member.name: (member.bit_offset, member.bits) for member in Btf(blob.data()).members(flags)}

    assert members == {"low": (8, 3), "high": (11, 5), "plain": (0, 0)}


def test_strip_looks_through_typedefs_and_qualifiers() -> None:
    blob = BtfBlob()
    u64 = blob.integer("unsigned long", 8)
    wrapped = blob.typedef("u64", blob.const(blob.typedef("__u64", u64)))
    btf = Btf(blob.data())

    assert btf.strip(wrapped) == u64
    assert btf.kind(btf.strip(wrapped)) is Kind.INT
    assert btf.size(wrapped) == 8


def test_integers_know_their_sign() -> None:
    blob = BtfBlob()
    signed = blob.integer("int", 4, signed=True)
    unsigned = blob.integer("unsigned int", 4)
    btf = Btf(blob.data())

    assert (btf.is_signed(signed), btf.is_signed(unsigned)) == (True, False)


def test_constants_of_an_enum() -> None:
    blob = BtfBlob()
    blob.enum("reason", {"NOT_DROPPED": 0, "BACKLOG": 71, "NEGATIVE": -1})
    btf = Btf(blob.data())

    assert btf.constants("reason") == {"NOT_DROPPED": 0, "BACKLOG": 71, "NEGATIVE": -1}
    assert btf.constants("absent") == {}


def test_find_wants_name_and_kind() -> None:
    blob = BtfBlob()
    u32 = blob.integer("thing", 4)
    struct = blob.struct("thing", 4, [("value", u32, 0)])
    btf = Btf(blob.data())

    assert btf.find("thing", Kind.STRUCT) == struct
    assert btf.find("thing", Kind.FUNC) == 0


def test_parameters_of_a_function() -> None:
    blob = BtfBlob()
    u32 = blob.integer("unsigned int", 4)
    pointer = blob.pointer(u32)
    function = blob.function("probe_me", blob.prototype(u32, [pointer, u32]))
    btf = Btf(blob.data())

    assert btf.parameters(btf.target(function)) == [pointer, u32]


@pytest.mark.parametrize("data", [b"", b"not BTF at all, but long enough for a header"])
def test_what_is_no_btf_is_refused(data: bytes) -> None:
    with pytest.raises(OSError, match="cannot parse BTF"):
        Btf(data)
