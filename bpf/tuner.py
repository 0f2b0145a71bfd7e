# SPDX-License-Identifier: GPL-2.0-or-later
"""One tuner's BPF objects: its maps, its loaded programs, its links.

The runtime owns one per tuner. Programs are loaded on the rung that needs them, and the flavour
for kprobes is compiled only when a ladder gets that far.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from bpftune.bpf import hooks, libbpf
from bpftune.bpf.entries import entry_name
from bpftune.bpf.ladder import Footing, climb, survey
from bpftune.bpf.maps import Maps
from bpftune.bpf.rungs import flavour_of, program_type
from bpftune.bpf.tables import TableMap
from bpftune.bpf.unit import Flavour, Object
from bpftune.ipc.control import HookStatus
from bpftune.ipc.declaration import Declaration, Hook, Poll, Probe
from bpftune.ipc.errors import BpfError, HookRefused
from bpftune.ipc.messages import Value

_LD_IMM64 = 0x18
_PSEUDO_MAP = (1, 2)
_READ_BYTES = 1 << 16
_MIRROR_FIELDS = 8
"""struct tunable in bpftune.h."""


class TunerBpf:
    def __init__(
        self,
        declaration: Declaration,
        compiled: Object,
        *,
        shared: Maps,
        compile_probed: Callable[[], Object],
        cgroup: Path | None,
        legacy: bool,
    ) -> None:
        """Creates the maps. Raises BpfError. `compile_probed` raises CompileError."""
        self.declaration = declaration
        self._objects = {Flavour.TYPED: compiled}
        self._compile_probed = compile_probed
        self._cgroup = cgroup
        self._legacy = legacy
        self._maps = Maps(shared)
        self._map_fds = {Flavour.TYPED: self._maps.open(compiled.maps)}
        self._tables = self._open_tables()
        self._programs: dict[str, int] = {}
        self._footings: dict[str, Footing] = {}
        self._refused: dict[str, BpfError] = {}
        self._attached: frozenset[str] = frozenset()

    @property
    def hooks(self) -> list[HookStatus]:
        """As of the last attach; before the first one, no rung is in use."""
        return [
            replace(
                self._footings.get(probe.name, Footing(probe=probe, hook=None, refused={})),
                resting=probe.name not in self._attached,
            ).status
            for probe in self.declaration.probes
        ]

    @property
    def polls(self) -> list[Poll]:
        """What has to be polled for the probes that are attached."""
        standing = [footing for name, footing in self._footings.items() if name in self._attached]
        return [footing.poll for footing in standing if footing.poll is not None]

    def rows(self, map_name: str) -> dict[bytes, bytes]:
        """What a map declared under [[tables]] holds now."""
        return self._tables[map_name].rows()

    def forget(self, netns_cookie: int) -> None:
        """Delete the rows of a namespace that is gone."""
        for table in self._tables.values():
            table.forget(netns_cookie)

    def attach_only(self, wanted: Collection[str]) -> None:
        """Have these probes attached and no others.

        New links come before old ones go, and one that stays is not touched. The first time every ladder
        is climbed, so that a probe that is not wanted yet has shown where it would stand. Iterators are
        last: they finish what the other probes begin.
        """
        fresh = [
            probe
            for probe in sorted(self.declaration.probes, key=attrgetter("iterates"))
            if probe.name not in self._attached and (probe.name in wanted or probe.name not in self._footings)
        ]
        for probe in fresh:
            self._footings[probe.name] = climb(probe, self, legacy=self._legacy)
        self._attached = frozenset(wanted)
        self.run_iterators([probe.name for probe in fresh])
        self._close_resting()

    def write_mirror(self, tunable: str, value: Value) -> None:
        """What TUNABLE() reads from now on."""
        index = [mirrored.name for mirrored in self.declaration.mirrored].index(tunable)
        fields = struct.pack(f"={_MIRROR_FIELDS}q", *value, *[0] * (_MIRROR_FIELDS - len(value)))
        libbpf.update(self._maps["mirror"], struct.pack("=I", index), fields)

    def survey(self) -> list[HookStatus]:
        """The hooks with what became of every rung, those below the one in use included."""
        return [survey(footing, self).status for footing in self._footings.values()]

    def run_iterators(self, names: Collection[str]) -> None:
        """Run these probes' iter programs once over what the current network namespace holds; one that
        does not run loses its rung."""
        for name, footing in self._footings.items():
            if footing.link_fd is None or footing.hook is None or footing.hook.kind != "iter":
                continue
            if name not in names or name not in self._attached:
                continue
            try:
                _exhaust(libbpf.create_iterator(footing.link_fd))
            except OSError as error:
                os.close(footing.link_fd)
                refused = footing.refused | {str(footing.hook): hooks.describe(error)}
                self._footings[name] = Footing(probe=footing.probe, hook=None, refused=refused)

    def detach(self) -> None:
        """Close the links; the last ladders stay for display."""
        self._attached = frozenset()
        self._close_resting()

    def close(self) -> None:
        self.detach()
        while self._programs:
            os.close(self._programs.popitem()[1])
        self._maps.close()

    def attach(self, probe: Probe, rung: int, hook: Hook) -> int:
        """One rung, for the ladder. Raises BpfError."""
        entry = entry_name(probe.name, rung)
        return hooks.attach(hook, self._program(entry, probe, hook), cgroup=self._cgroup)

    def _program(self, entry: str, probe: Probe, hook: Hook) -> int:
        """Loaded once. A refusal stands as well: to ask again at every switch of strategies would hold
        up the events of all tuners for as long as the compiler or the verifier takes."""
        if entry in self._refused:
            raise self._refused[entry].with_traceback(None)
        if entry not in self._programs:
            try:
                self._programs[entry] = self._load(entry, probe, hook)
            except BpfError as error:
                self._refused[entry] = error
                raise
        return self._programs[entry]

    def _close_resting(self) -> None:
        for name, footing in self._footings.items():
            if name not in self._attached and footing.link_fd is not None:
                os.close(footing.link_fd)
                self._footings[name] = Footing(
                    probe=footing.probe, hook=footing.hook, refused=footing.refused
                )

    def _open_tables(self) -> dict[str, TableMap]:
        try:
            return {table.map: TableMap(table, self._maps) for table in self.declaration.tables}
        except BpfError:
            self._maps.close()
            raise

    def _load(self, entry: str, probe: Probe, hook: Hook) -> int:
        flavour = flavour_of(hook)
        kind = program_type(hook)
        assert flavour is not None
        assert kind is not None
        compiled = self._object(flavour)
        if (refusal := compiled.refusals.get(entry)) is not None:
            raise HookRefused(str(hook), refusal)
        try:
            return libbpf.load_program(
                name=probe.name,
                program_type=kind.program_type,
                attach_type=kind.attach_type,
                code=_with_maps(compiled.programs[entry], self._map_fds[flavour]),
                attach_btf_id=compiled.btf_ids.get(entry, 0),
            )
        except libbpf.VerifierError as error:
            raise HookRefused(
                str(hook), hooks.describe(error), errno=error.errno or 0, log=error.log
            ) from error

    def _object(self, flavour: Flavour) -> Object:
        if flavour not in self._objects:
            compiled = self._compile_probed()
            self._map_fds[flavour] = self._maps.open(compiled.maps)
            self._objects[flavour] = compiled
        return self._objects[flavour]


def _with_maps(code: bytes, descriptors: list[int]) -> bytes:
    """The instructions with map indexes replaced by this process's descriptors."""
    instructions = bytearray(code)
    for offset in range(0, len(instructions), 8):
        if instructions[offset] == _LD_IMM64 and instructions[offset + 1] >> 4 in _PSEUDO_MAP:
            (index,) = struct.unpack_from("=i", instructions, offset + 4)
            struct.pack_into("=i", instructions, offset + 4, descriptors[index])
    return bytes(instructions)


def _exhaust(descriptor: int) -> None:
    try:
        while os.read(descriptor, _READ_BYTES):
            pass
    finally:
        os.close(descriptor)
