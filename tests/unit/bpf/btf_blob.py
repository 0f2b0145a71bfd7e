# SPDX-License-Identifier: GPL-2.0-or-later
"""Packs BTF by hand, straight from Documentation/bpf/btf.rst, so that the reader is not tested
against the library that it reads with."""

from __future__ import annotations

import struct

from bpftune.bpf.btf import Kind

_MAGIC = 0xEB9F
_HEADER_BYTES = 24
BITFIELDS = 1 << 31
SIGNED = 1


class BtfBlob:
    """Each method adds one type and returns its id."""

    def __init__(self) -> None:
        self._types = b""
        self._strings = b"\0"
        self._count = 0

    def integer(self, name: str, size: int, *, signed: bool = False) -> int:
        return self._add(name, Kind.INT, 0, size, struct.pack("=I", SIGNED * signed << 24 | size * 8))

    def pointer(self, target: int) -> int:
        return self._add("", Kind.PTR, 0, target)

    def typedef(self, name: str, target: int) -> int:
        return self._add(name, Kind.TYPEDEF, 0, target)

    def const(self, target: int) -> int:
        return self._add("", Kind.CONST, 0, target)

    def array(self, element: int, count: int) -> int:
        return self._add("", Kind.ARRAY, 0, 0, struct.pack("=III", element, element, count))

    def struct(self, name: str, size: int, members: list[tuple[str, int, int]]) -> int:
        """Members are (name, type, offset in bytes)."""
        return self._composite(Kind.STRUCT, name, size, members)

    def union(self, name: str, size: int, members: list[tuple[str, int, int]]) -> int:
        return self._composite(Kind.UNION, name, size, members)

    def bitfields(self, name: str, size: int, members: list[tuple[str, int, int, int]]) -> int:
        """Members are (name, type, offset in bits, width in bits, 0: no bitfield)."""
        packed = b"".join(
            struct.pack("=III", self._string(member), type_id, width << 24 | offset)
            for member, type_id, offset, width in members
        )
        return self._add(name, Kind.STRUCT, len(members) | BITFIELDS, size, packed)

    def enum(self, name: str, constants: dict[str, int]) -> int:
        packed = b"".join(struct.pack("=Ii", self._string(key), value) for key, value in constants.items())
        return self._add(name, Kind.ENUM, len(constants), 4, packed)

    def prototype(self, result: int, parameters: list[int]) -> int:
        packed = b"".join(struct.pack("=II", 0, parameter) for parameter in parameters)
        return self._add("", Kind.FUNC_PROTO, len(parameters), result, packed)

    def function(self, name: str, prototype: int) -> int:
        return self._add(name, Kind.FUNC, 0, prototype)

    def data(self) -> bytes:
        header = struct.pack(
            "=HBBIIIII",
            _MAGIC,
            1,
            0,
            _HEADER_BYTES,
            0,
            len(self._types),
            len(self._types),
            len(self._strings),
        )
        return header + self._types + self._strings

    def _composite(self, kind: Kind, name: str, size: int, members: list[tuple[str, int, int]]) -> int:
        packed = b"".join(
            struct.pack("=III", self._string(member), type_id, offset * 8)
            for member, type_id, offset in members
        )
        return self._add(name, kind, len(members), size, packed)

    def _add(self, name: str, kind: Kind, info: int, size_or_type: int, trailer: bytes = b"") -> int:
        record = struct.pack("=III", self._string(name), kind << 24 | info, size_or_type)
        self._types += record + trailer
        self._count += 1
        return self._count

    def _string(self, text: str) -> int:
        if not text:
            return 0
        offset = len(self._strings)
        self._strings += text.encode() + b"\0"
        return offset
