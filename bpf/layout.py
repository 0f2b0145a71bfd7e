# SPDX-License-Identifier: GPL-2.0-or-later
"""C structs with the running kernel's offsets, holding only the members that probes name.

Each struct is a union of its size in bytes and, per member, {padding; member}: every offset is
exact whatever the order, members of unions may overlap, and nothing depends on how a compiler
lays out neighbours. A complete dump does: BCC parses with the host's data layout and generates
code with BPF's, and runs of bitfields over 64 bits, which dumps write as padding, then shift what
follows without any message.

    net = ["net_cookie", "ns.inum", "ipv4.sysctl_tcp_rmem", "?ipv6.fqdir"]

A path is dotted, also through arrays of structs; unnamed structs and unions are looked through; `?`
marks a path that a kernel may lack; "a->b" is member b of the unnamed struct that a points to. A
struct member that is itself listed under [structs] can be used whole; any other only by its address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bpftune.bpf.btf import COMPOSITE, Btf, Kind, Member

_STEP = re.compile(r"(\w+)(\.|->)?(.*)")
_INTEGERS = {
    (size, signed): f"{'s' if signed else 'u'}{size * 8}" for size in (1, 2, 4, 8) for signed in (0, 1)
}


class LayoutError(Exception):
    """This kernel has no such struct or member."""


@dataclass(slots=True)
class _Wanted:
    """What is named of one member."""

    optional: bool = True
    inner: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Declarator:
    """A C type around a member's name."""

    before: str
    after: str = ""


class Layout:
    """Emits the C for one unit's [structs] and [enums]."""

    def __init__(self, btf: Btf, structs: Mapping[str, Sequence[str]]) -> None:
        self._btf = btf
        self._structs = structs
        self._forward: dict[str, None] = {}
        self._emitted: dict[str, str] = {}
        self._macros: list[str] = []

    def text(self, enums: Mapping[str, Sequence[str]]) -> str:
        """All structs, HAVE_ macros, offset assertions and constants. Raises LayoutError."""
        for name in self._structs:
            self._emit(name)
        return "\n".join(
            [*self._forward, *self._emitted.values(), *self._macros, *self._constants(enums), ""]
        )

    def _constants(self, enums: Mapping[str, Sequence[str]]) -> list[str]:
        lines = []
        for enum, wanted in enums.items():
            known = self._btf.constants(enum)
            for text in wanted:
                name = text.lstrip("?")
                if name in known:
                    lines.append(f"#define {name} {known[name]}")
                elif not text.startswith("?"):
                    raise LayoutError(f"this kernel's enum {enum} has no {name}")
        return lines

    def _emit(self, name: str) -> None:
        if name in self._emitted:
            return
        type_id = self._btf.find(name, *COMPOSITE)
        paths = self._structs[name]
        if not type_id:
            if all(path.startswith("?") for path in paths):
                return
            raise LayoutError(f"this kernel has no struct {name}")
        self._emitted[name] = ""
        body = self._body(type_id, paths)
        # A struct that this one holds by value was emitted meanwhile: it must come first.
        del self._emitted[name]
        self._emitted[name] = f"{self._keyword(type_id)} {name} {body};"
        self._macros.extend(self._facts(name, type_id, paths))

    def _facts(self, name: str, type_id: int, paths: Sequence[str]) -> list[str]:
        tag = f"{self._keyword(type_id)} {name}"
        lines = [f'_Static_assert(sizeof({tag}) == {self._btf.size(type_id)}, "{name}");']
        for path in dict.fromkeys(path.lstrip("?") for path in paths):
            found = resolve(self._btf, type_id, path)
            if found is None:
                continue
            lines.append(f"#define HAVE_{name}__{re.sub(r'[.]|->', '_', path)} 1")
            if found.bits == 0 and found.plain:
                lines.append(
                    f"_Static_assert(__builtin_offsetof({tag}, {path}) == {found.bit_offset // 8},"
                    f' "{name}.{path}");'
                )
        return lines

    def _body(self, type_id: int, paths: Sequence[str]) -> str:
        parts = [f"u8 __bytes[{self._btf.size(type_id)}];"]
        for name, wanted in _group(paths).items():
            member = self._btf.member(type_id, name)
            if member is None and not wanted.optional:
                owner = self._btf.name(type_id) or "(unnamed)"
                raise LayoutError(f"this kernel's struct {owner} has no member {name}")
            if member is not None:
                parts.append(self._member(member, wanted))
        return "{ union { " + " ".join(parts) + " }; }"

    def _member(self, member: Member, wanted: _Wanted) -> str:
        if member.bits:
            return self._bitfield(member)
        type_id = self._btf.strip(member.type_id)
        declarator = self._declarator(type_id, wanted.inner)
        text = f"{declarator.before} {member.name}{declarator.after};"
        alignment = self._alignment(type_id, wanted.inner)
        placed = _place(member.name, member.bit_offset // 8, text, alignment)
        if self._btf.kind(type_id) is not Kind.INT:
            return placed
        # What is a bitfield on some kernels is none on others: READ_BITS takes both.
        bits = f"struct {{ {declarator.before} value; }} __bits_{member.name};"
        return f"{placed} {_place(f'bits_{member.name}', member.bit_offset // 8, bits, alignment)}"

    def _bitfield(self, member: Member) -> str:
        """The bitfield in a struct of its own, so that it has an address."""
        unit_bits = 8
        while member.bit_offset % unit_bits + member.bits > unit_bits:
            unit_bits *= 2
        unit, shift = divmod(member.bit_offset, unit_bits)
        gap = f"u{unit_bits} :{shift}; " if shift else ""
        bits = f"struct {{ {gap}u{unit_bits} value:{member.bits}; }} __bits_{member.name};"
        return _place(f"bits_{member.name}", unit * unit_bits // 8, bits, unit_bits // 8)

    def _alignment(self, type_id: int, inner: Sequence[str]) -> int:
        """What the emitted declaration needs, which is less than what the kernel's own does."""
        kind = self._btf.kind(type_id)
        if kind is Kind.ARRAY:
            return self._alignment(self._btf.strip(self._btf.element(type_id)[0]), inner)
        if kind in COMPOSITE:
            paths = inner or self._structs.get(self._btf.name(type_id), ())
            members = ((self._btf.member(type_id, name), wanted) for name, wanted in _group(paths).items())
            return max(
                (
                    self._alignment(self._btf.strip(member.type_id), wanted.inner)
                    for member, wanted in members
                    if member is not None and not member.bits
                ),
                default=1,
            )
        size = self._btf.size(type_id)
        return size if size <= 8 else 1

    def _declarator(self, type_id: int, inner: Sequence[str]) -> _Declarator:
        match self._btf.kind(type_id):
            case Kind.INT:
                size = self._btf.size(type_id)
                integer = _INTEGERS.get((size, int(self._btf.is_signed(type_id))))
                return _Declarator(integer) if integer else _opaque(size)
            case Kind.ENUM | Kind.ENUM64:
                return _Declarator(_INTEGERS[self._btf.size(type_id), 0])
            case Kind.PTR:
                return self._pointer(type_id, inner)
            case Kind.ARRAY:
                element, count = self._btf.element(type_id)
                part = self._declarator(self._btf.strip(element), inner)
                return _Declarator(part.before, f"[{count}]{part.after}")
            case Kind.STRUCT | Kind.UNION:
                return self._composite(type_id, inner)
        return _opaque(self._btf.size(type_id))

    def _composite(self, type_id: int, inner: Sequence[str]) -> _Declarator:
        name = self._btf.name(type_id)
        if inner:
            return _Declarator(f"struct {self._body(type_id, inner)}")
        if name in self._structs:
            self._emit(name)
            return _Declarator(f"{self._keyword(type_id)} {name}")
        return _opaque(self._btf.size(type_id))

    def _pointer(self, type_id: int, inner: Sequence[str]) -> _Declarator:
        target = self._btf.strip(self._btf.target(type_id))
        kind = self._btf.kind(target)
        if inner:
            return _Declarator(f"struct {self._body(target, inner)} *")
        if kind in (*COMPOSITE, Kind.FWD) and (name := self._btf.name(target)):
            tag = f"{self._keyword(target)} {name}"
            self._forward[f"{tag};"] = None
            return _Declarator(f"{tag} *")
        if kind is Kind.INT:
            return _Declarator(f"{self._declarator(target, ()).before} *")
        return _Declarator("void *")

    def _keyword(self, type_id: int) -> str:
        return "union" if self._btf.is_union(type_id) else "struct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a path ends."""

    type_id: int
    bit_offset: int
    """From the start of the outermost struct, or of what the last '->' leads to."""
    bits: int
    plain: bool
    """No '->' and no array on the way, so that offsetof takes the path as it is."""


def resolve(btf: Btf, type_id: int, path: str) -> Place | None:
    """None: this kernel has no such member. In arrays of structs, the first element's."""
    offset, bits, plain = 0, 0, True
    while path:
        type_id = btf.strip(type_id)
        if btf.kind(type_id) is Kind.ARRAY:
            type_id, plain = btf.strip(btf.element(type_id)[0]), False
        name, arrow, path = _step(path)
        member = btf.member(type_id, name)
        if member is None:
            return None
        type_id, bits = member.type_id, member.bits
        offset += member.bit_offset
        if arrow == "->":
            type_id, offset, plain = btf.target(btf.strip(type_id)), 0, False
    return Place(type_id=type_id, bit_offset=offset, bits=bits, plain=plain)


def _place(name: str, offset: int, declaration: str, alignment: int) -> str:
    """A declaration at an offset from the start of the union that it is a part of."""
    if offset == 0:
        return declaration
    packed = " __attribute__((packed))" if offset % alignment else ""
    return f"struct {{ u8 __pad_{name}[{offset}]; {declaration} }}{packed};"


def _group(paths: Sequence[str]) -> dict[str, _Wanted]:
    groups: dict[str, _Wanted] = {}
    for path in paths:
        optional = path.startswith("?")
        name, _, rest = _step(path.lstrip("?"))
        wanted = groups.setdefault(name, _Wanted())
        wanted.optional &= optional
        if rest:
            wanted.inner.append(f"{'?' if optional else ''}{rest}")
    return groups


def _step(path: str) -> tuple[str, str, str]:
    match = _STEP.fullmatch(path)
    if match is None or (match[2] and not match[3]) or (match[3] and not match[2]):
        raise LayoutError(f"cannot parse member path '{path}'")
    return match[1], match[2] or "", match[3]


def _opaque(size: int) -> _Declarator:
    return _Declarator(f"struct {{ u8 __bytes[{size}]; }}")
