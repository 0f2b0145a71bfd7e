# SPDX-License-Identifier: GPL-2.0-or-later
"""Throwaway tuner folders, and a Bpf that decodes what it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bpftune.bpf.builder import Built, compile_in_child
from bpftune.bpf.runtime import Bpf, ProbeSource
from bpftune.bpf.unit import Object, Unit
from bpftune.ipc.declaration_file import load_declaration
from bpftune.ipc.record import Event, RecordDecoder, unpack_header

ROOT = Path(__file__).resolve().parents[3]
WATCH_SYSCTL = ROOT / "supervisor" / "watch_sysctl"
WATCH_NETNS = ROOT / "supervisor" / "watch_netns"
WATCH_NETNS_CALLS = ROOT / "supervisor" / "watch_netns_calls"
_compiled: dict[str, Object] = {}
EMPTY_PROBE = "// SPDX-License-Identifier: GPL-2.0-or-later\n"


@dataclass(kw_only=True)
class Rig:
    """One Bpf and everything it said."""

    bpf: Bpf
    lines: list[str]
    decoders: dict[int, RecordDecoder] = field(default_factory=dict)

    def load(self, *folders: Path) -> None:
        """Load and attach; any failure fails the test."""
        sources = [read_source(folder) for folder in folders]
        assert self.bpf.load(sources) == {}
        for source in sources:
            declaration = source.declaration
            self.decoders[declaration.id] = RecordDecoder(declaration)
            self.bpf.attach(declaration.name)

    def events(self) -> list[Event]:
        """Everything that waits in the ring buffer."""
        found: list[Event] = []
        self.bpf.consume(lambda record: found.append(self._decode(record)))
        return found

    def _decode(self, record: bytes) -> Event:
        return self.decoders[unpack_header(record).tuner_id].decode(record)


@contextmanager
def opened(cache: Path, *, legacy: bool = False, shift: int = 2, dry_run: bool = False) -> Iterator[Rig]:
    lines: list[str] = []
    bpf = Bpf(
        cache_dir=cache,
        shift=shift,
        log=lines.append,
        legacy=legacy,
        dry_run=dry_run,
        compile_units=compile_once,
    )
    try:
        yield Rig(bpf=bpf, lines=lines)
    finally:
        bpf.close()


def compile_once(units: Sequence[Unit]) -> list[Built]:
    """What this run of the tests has compiled already is not compiled again: it takes six seconds under
    QEMU."""
    keys = [json.dumps(unit.as_json()) for unit in units]
    missing = [unit for unit, key in zip(units, keys, strict=True) if key not in _compiled]
    fresh = iter(compile_in_child(missing) if missing else [])
    built = [_compiled.get(key) or next(fresh) for key in keys]
    _compiled.update((key, one) for key, one in zip(keys, built, strict=True) if isinstance(one, Object))
    return built


def read_source(folder: Path) -> ProbeSource:
    return ProbeSource(declaration=load_declaration(folder), folder=folder)


def make_tuner(
    parent: Path,
    name: str,
    *,
    hooks: Mapping[str, Sequence[str]],
    source: str,
    fields: Sequence[str] = ("u64 value",),
    structs: str = "",
) -> Path:
    """A folder with one scenario, "seen", that every probe sends."""
    folder = parent / name
    folder.mkdir()
    probes = "".join(
        f'[[probes]]\nname = "{probe}"\nscenarios = ["seen"]\nhooks = {list(ladder)}\n'
        for probe, ladder in hooks.items()
    )
    (folder / "tuner.toml").write_text(
        f'name = "{name}"\ndescription = "for a test"\ntunables = []\n'
        '[[scenarios]]\nid = "seen"\nname = "seen"\nwhy = "why"\nreason = "reason"\n'
        f"event = {list(fields)}\n{probes}[structs]\n{structs}\n"
    )
    (folder / "probe.bpf.c").write_text(f'{EMPTY_PROBE}#include "bpftune.h"\n{source}')
    return folder
