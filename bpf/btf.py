# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads BTF, the kernel's description of its own types (Documentation/bpf/btf.rst).

libbpf holds the data; this walks its records. Only the compiler child uses it: parsing costs
megabytes that the supervisor never pays. Standard library only, as all that the child imports.
"""

from __future__ import annotations

import ctypes as ct
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")


class Kind(IntEnum):
    """enum in include/uapi/linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


COMPOSITE = (Kind.STRUCT, Kind.UNION)
_MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
_HEADER_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    name: str
    type_id: int
    bit_offset: int
    bits: int
    """Width of a bitfield, 0 for everything else."""


@dataclass(frozen=True, slots=True)
class _Record:
    name_offset: int
    kind: Kind
    count: int
    flag: bool
    size_or_type: int
    address: int

    def trailer(self, layout: str) -> tuple[int, ...]:
        data = ct.string_at(self.address + _HEADER_BYTES, struct.calcsize(layout))
        return struct.unpack(layout, data)

    def entries(self, layout: str) -> Iterator[tuple[int, ...]]:
        size = struct.calcsize(layout)
        data = ct.string_at(self.address + _HEADER_BYTES, size * self.count)
        return struct.iter_unpack(layout, data)


class Btf:
    """One BTF blob. Ids are those of the kernel; id 0 is void."""

    def __init__(self, data: bytes) -> None:
        self._lib = _library()
        self._handle = self._lib.btf__new(data, len(data))
        if not self._handle:
            code = ct.get_errno()
            raise OSError(code, f"cannot parse BTF: {os.strerror(code)}")

    def find(self, name: str, *kinds: Kind) -> int:
        """The id of the first type of that name and one of the kinds; 0: there is none."""
        for kind in kinds:
            type_id: int = self._lib.btf__find_by_name_kind(self._handle, name.encode(), kind)
            if type_id > 0:
                return type_id
        return 0

    def kind(self, type_id: int) -> Kind:
        return self._record(type_id).kind if type_id else Kind.VOID

    def name(self, type_id: int) -> str:
        return self._name_at(self._record(type_id).name_offset) if type_id else ""

    def size(self, type_id: int) -> int:
        """Bytes that a value of the type takes."""
        size: int = self._lib.btf__resolve_size(self._handle, type_id)
        if size < 0:
            raise ValueError(f"type {type_id} has no size")
        return size

    def strip(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers."""
        while type_id and (record := self._record(type_id)).kind in _MODIFIERS:
            type_id = record.size_or_type
        return type_id

    def target(self, type_id: int) -> int:
        """What a pointer points to, a function's prototype, a prototype's result."""
        return self._record(type_id).size_or_type

    def is_signed(self, type_id: int) -> bool:
        return bool(self._record(type_id).trailer("=I")[0] >> 24 & 1)

    def is_union(self, type_id: int) -> bool:
        record = self._record(type_id)
        return record.kind is Kind.UNION or (record.kind is Kind.FWD and record.flag)

    def element(self, type_id: int) -> tuple[int, int]:
        """An array's element type and how many there are."""
        element, _, count = self._record(type_id).trailer("=III")
        return element, count

    def members(self, type_id: int) -> Iterator[Member]:
        record = self._record(type_id)
        for name, member_type, offset in record.entries("=III"):
            yield Member(
                name=self._name_at(name),
                type_id=member_type,
                bit_offset=offset & 0xFFFFFF if record.flag else offset,
                bits=offset >> 24 if record.flag else 0,
            )

    def member(self, type_id: int, name: str) -> Member | None:
        """The member of that name, searched through unnamed structs and unions as C does."""
        for member in self.members(type_id):
            if member.name == name:
                return member
            inner = self.strip(member.type_id)
            if member.name or self.kind(inner) not in COMPOSITE:
                continue
            found = self.member(inner, name)
            if found is not None:
                return Member(
                    name=name,
                    type_id=found.type_id,
                    bit_offset=member.bit_offset + found.bit_offset,
                    bits=found.bits,
                )
        return None

    def constants(self, name: str) -> dict[str, int]:
        """The constants of an enum; empty when there is no such enum."""
        type_id = self.find(name, Kind.ENUM, Kind.ENUM64)
        if not type_id:
            return {}
        record = self._record(type_id)
        if record.kind is Kind.ENUM:
            return {self._name_at(offset): value for offset, value in record.entries("=Ii")}
        return {self._name_at(offset): low | high << 32 for offset, low, high in record.entries("=III")}

    def parameters(self, prototype: int) -> list[int]:
        """The types of a function prototype's parameters."""
        return [type_id for _, type_id in self._record(prototype).entries("=II")]

    def close(self) -> None:
        self._lib.btf__free(self._handle)
        self._handle = None

    def _record(self, type_id: int) -> _Record:
        address = self._lib.btf__type_by_id(self._handle, type_id)
        if not address:
            raise ValueError(f"BTF has no type {type_id}")
        name_offset, info, size_or_type = struct.unpack("=III", ct.string_at(address, _HEADER_BYTES))
        kind = Kind(info >> 24 & 0x1F)
        return _Record(name_offset, kind, info & 0xFFFF, bool(info >> 31), size_or_type, address)

    def _name_at(self, offset: int) -> str:
        name: bytes | None = self._lib.btf__name_by_offset(self._handle, offset)
        return (name or b"").decode()


def read_vmlinux(path: Path = VMLINUX) -> Btf:
    """The running kernel's types. Raises OSError when the kernel was built without BTF."""
    return Btf(path.read_bytes())


def _library() -> ct.CDLL:
    library = ct.CDLL("libbpf.so.1", use_errno=True)
    library.btf__new.argtypes = [ct.c_char_p, ct.c_uint32]
    library.btf__new.restype = ct.c_void_p
    library.btf__free.argtypes = [ct.c_void_p]
    library.btf__free.restype = None
    library.btf__find_by_name_kind.argtypes = [ct.c_void_p, ct.c_char_p, ct.c_uint32]
    library.btf__find_by_name_kind.restype = ct.c_int32
    library.btf__type_by_id.argtypes = [ct.c_void_p, ct.c_uint32]
    library.btf__type_by_id.restype = ct.c_void_p
    library.btf__name_by_offset.argtypes = [ct.c_void_p, ct.c_uint32]
    library.btf__name_by_offset.restype = ct.c_char_p
    library.btf__resolve_size.argtypes = [ct.c_void_p, ct.c_uint32]
    library.btf__resolve_size.restype = ct.c_int64
    return library
