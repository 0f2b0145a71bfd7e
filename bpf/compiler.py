# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiler child: `python -m bpftune.bpf.compiler`. BCC and LLVM live and die in it.

Standard input is one JSON object {"btf": path, "units": [...]}; standard output one JSON line per
unit, in order: {"object": ...} or {"error": text}. A line leaves as soon as its unit is done, so
that a unit that takes LLVM down does not take the finished ones along.

Nothing but BCC and the standard library is imported, so any interpreter that has BCC will do. It
never loads a program into the kernel; BCC creates the maps that it compiles against, and they go
with the process.
"""

from __future__ import annotations

import ctypes as ct
import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from bpftune.bpf.btf import Btf, Kind, read_vmlinux
from bpftune.bpf.layout import Layout, LayoutError
from bpftune.bpf.unit import MapSpec, Object, Signature, Unit

SHIM = Path(__file__).parent / "shim"
_FLAGS = [
    "-Wno-everything",
    "-D__always_inline=inline __attribute__((always_inline))",
]
_LD_IMM64 = 0x18
_PSEUDO_MAP = (1, 2)
"""BPF_PSEUDO_MAP_FD and BPF_PSEUDO_MAP_VALUE."""
_STDERR = 2


class _Refused(Exception):
    """The unit cannot be compiled; the text is for its author."""


class Compiler:
    """Compiles units with BCC against one kernel's BTF."""

    def __init__(self, btf: Btf) -> None:
        os.environ["BCC_KERNEL_SOURCE"] = str(SHIM)
        try:
            import bcc  # noqa: PLC0415 - the dear part, and only this process has it
        except ImportError as error:
            raise _Refused(f"cannot import BCC (Debian package python3-bpfcc): {error}") from error
        self._bcc = bcc
        self._tables = _table_functions(bcc.lib)
        self._btf = btf

    def compile(self, unit: Unit) -> Object:
        """Raises _Refused with clang's messages, or what the kernel's BTF lacks."""
        try:
            layout = Layout(self._btf, unit.structs).text(unit.enums)
        except LayoutError as error:
            raise _Refused(str(error)) from error
        module = self._build(unit.head + layout + unit.body)
        try:
            maps, index_of_fd = self._maps(module)
            programs = {
                name: _relocatable(module.dump_func(name.encode()), index_of_fd) for name in unit.functions
            }
        finally:
            module.cleanup()
        ids = {wanted.entry: _attach_id(self._btf, wanted) for wanted in unit.signatures}
        return Object(maps=maps, programs=programs, btf_ids=ids, refusals=find_refusals(self._btf, unit))

    def _build(self, text: str) -> Any:
        with tempfile.TemporaryFile() as messages:
            try:
                with _stderr_to(messages.fileno()):
                    return self._bcc.BPF(text=text, cflags=_FLAGS)
            except Exception as error:
                messages.seek(0)
                said = messages.read().decode(errors="replace").strip()
                raise _Refused(said or str(error)) from error

    def _maps(self, module: Any) -> tuple[list[MapSpec], dict[int, int]]:
        handle = module.module
        maps = []
        index_of_fd = {}
        for index in range(self._tables.bpf_num_tables(handle)):
            index_of_fd[self._tables.bpf_table_fd_id(handle, index)] = index
            maps.append(
                MapSpec(
                    name=self._tables.bpf_table_name(handle, index).decode(),
                    type=self._tables.bpf_table_type_id(handle, index),
                    key_size=self._tables.bpf_table_key_size_id(handle, index),
                    value_size=self._tables.bpf_table_leaf_size_id(handle, index),
                    max_entries=self._tables.bpf_table_max_entries_id(handle, index),
                    flags=self._tables.bpf_table_flags_id(handle, index),
                )
            )
        return maps, index_of_fd


def _table_functions(library: ct.CDLL) -> ct.CDLL:
    """BCC's Python does not declare these; they are in its libbcc.h."""
    library.bpf_num_tables.restype = ct.c_ulonglong
    library.bpf_num_tables.argtypes = [ct.c_void_p]
    library.bpf_table_name.restype = ct.c_char_p
    library.bpf_table_name.argtypes = [ct.c_void_p, ct.c_ulonglong]
    for field in ("fd", "type", "max_entries", "flags"):
        getattr(library, f"bpf_table_{field}_id").argtypes = [ct.c_void_p, ct.c_ulonglong]
    for field in ("key_size", "leaf_size"):
        function = getattr(library, f"bpf_table_{field}_id")
        function.argtypes = [ct.c_void_p, ct.c_ulonglong]
        function.restype = ct.c_size_t
    return library


def _relocatable(code: bytes, index_of_fd: dict[int, int]) -> bytes:
    """The instructions with this process's map descriptors replaced by map indexes."""
    instructions = bytearray(code)
    for offset in range(0, len(instructions), 8):
        if instructions[offset] == _LD_IMM64 and instructions[offset + 1] >> 4 in _PSEUDO_MAP:
            (descriptor,) = struct.unpack_from("=i", instructions, offset + 4)
            struct.pack_into("=i", instructions, offset + 4, index_of_fd[descriptor])
    return bytes(instructions)


def _attach_id(btf: Btf, wanted: Signature) -> int:
    return btf.find(wanted.symbol, Kind.TYPEDEF if wanted.typedef else Kind.FUNC)


def find_refusals(btf: Btf, unit: Unit) -> dict[str, str]:
    """entry -> why its rung is of no use on this kernel."""
    found = {wanted.entry: _misfit(btf, wanted) for wanted in unit.signatures}
    constants = {name for enum in unit.enums for name in btf.constants(enum)}
    for entry, names in unit.needs.items():
        missing = [name for name in names if name not in constants]
        if missing:
            found[entry] = f"this kernel has no {missing[0]}"
    return {entry: reason for entry, reason in found.items() if reason is not None}


def _misfit(btf: Btf, wanted: Signature) -> str | None:
    """Why the hook cannot serve the body on this kernel: tracepoints change their arguments, and
    the verifier accepts a wrong struct wherever the offsets happen to hold something readable."""
    type_id = _attach_id(btf, wanted)
    if not type_id:
        kind = "tracepoint" if wanted.typedef else "function"
        return f"this kernel's BTF has no {kind} {wanted.symbol.removeprefix('btf_trace_')}"
    arguments, result = _prototype(btf, type_id, typedef=wanted.typedef)
    types = [*arguments, result] if wanted.result else arguments
    for index, name in wanted.arguments.items():
        if index >= len(types):
            return f"it has {len(arguments)} arguments, the probe wants argument {index}"
        target = _pointed_struct(btf, types[index])
        if name and target and target != name:
            return f"its argument {index} is a struct {target}, the probe wants a struct {name}"
    return None


def _prototype(btf: Btf, type_id: int, *, typedef: bool) -> tuple[list[int], int]:
    """The types of the arguments as the program sees them, and of the return value."""
    if typedef:
        prototype = btf.target(btf.strip(type_id))
        # The first parameter is the tracepoint's private data, which programs do not get.
        return btf.parameters(prototype)[1:], btf.target(prototype)
    prototype = btf.target(type_id)
    return btf.parameters(prototype), btf.target(prototype)


def _pointed_struct(btf: Btf, type_id: int) -> str:
    type_id = btf.strip(type_id)
    if btf.kind(type_id) is not Kind.PTR:
        return ""
    target = btf.strip(btf.target(type_id))
    return btf.name(target) if btf.kind(target) is Kind.STRUCT else ""


@contextmanager
def _stderr_to(descriptor: int) -> Iterator[None]:
    """clang writes its messages to descriptor 2, past sys.stderr."""
    saved = os.dup(_STDERR)
    os.dup2(descriptor, _STDERR)
    try:
        yield
    finally:
        os.dup2(saved, _STDERR)
        os.close(saved)


def serve(request: TextIO, reply: TextIO) -> None:
    """Answer one request."""
    asked = json.load(request)
    units = [Unit.from_json(unit) for unit in asked["units"]]
    try:
        compiler = Compiler(read_vmlinux(Path(asked["btf"])))
    except (_Refused, OSError) as error:
        _answer(reply, [{"error": str(error)}] * len(units))
        return
    for unit in units:
        try:
            _answer(reply, [{"object": compiler.compile(unit).as_json()}])
        except _Refused as error:
            _answer(reply, [{"error": str(error)}])


def _answer(reply: TextIO, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        reply.write(json.dumps(line) + "\n")
    reply.flush()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
