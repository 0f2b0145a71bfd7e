# SPDX-License-Identifier: GPL-2.0-or-later
"""From a tuner folder to the C that is compiled: everything that follows from tuner.toml.

A worked example. tuner.toml declares

    [[scenarios]]
    id = "neigh_table_full"
    event = ["u32 entries", "u32 limit", "u32 ifindex"]
    ...
    [[probes]]
    name = "neigh_create"
    scenarios = ["neigh_table_full"]
    hooks = ["tp_btf:neigh_create", "kprobe:__neigh_create(0,2)"]

    [structs]
    neigh_table = ["entries.counter", "gc_thresh3"]
    net_device = ["ifindex", "nd_net.net"]

and probe.bpf.c reads

    #include "bpftune.h"

    PROBE(neigh_create, struct neigh_table *tbl, struct net_device *dev)
    {
            struct event_neigh_table_full e = {};

            e.entries = READ(tbl, entries.counter);
            e.limit = READ(tbl, gc_thresh3);
            if (!dev || !near_full(e.entries, e.limit))
                    return 0;
            e.ifindex = READ(dev, ifindex);
            SEND(neigh_table_full, READ(dev, nd_net.net), &e);
            return 0;
    }

which becomes one translation unit per flavour: numbers of the tuner, its scenarios and probes; the
layouts that the child adds from BTF; bpftune.h, with the event structs behind it, in place of the
include; the probe's own text; one entry function per rung that calls the body.

The runtime calls this. It reads the folder, never the kernel: what depends on the kernel is the
child's part, so that a warm start needs no BTF.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from bpftune.bpf.entries import Body, entry_function, entry_name, find_bodies, signature
from bpftune.bpf.registers import register_macros, register_structs
from bpftune.bpf.rungs import flavour_of
from bpftune.bpf.unit import Flavour, Unit
from bpftune.ipc.declaration import (
    PROBE_FILE,
    Declaration,
    EventField,
    Hook,
    MapTable,
    Probe,
    Scenario,
)
from bpftune.ipc.errors import CompileError

HEADER_FILE = Path(__file__).parent / "include" / "bpftune.h"

_INCLUDE = re.compile(r'^#include "bpftune\.h"[^\S\n]*\n', re.MULTILINE)
_HEADER_STRUCTS = {"net": ["net_cookie", "ns.inum"]}
"""What bpftune.h itself reads."""


def make_unit(declaration: Declaration, folder: Path, flavour: Flavour, *, machine: str) -> Unit:
    """The unit of one tuner. Raises CompileError when folder and declaration do not fit together."""
    text = _read_probe(declaration, folder)
    bodies = find_bodies(text)
    rungs = _rungs(declaration, flavour)
    for probe, _, hook in rungs:
        _check_body(declaration, probe, hook, bodies)
    extra = register_structs(machine) if flavour is Flavour.PROBED else {}
    return Unit(
        tuner=declaration.name,
        flavour=flavour,
        head=_head(declaration, flavour) + (register_macros(machine) if extra else ""),
        body=_body(declaration, text, folder)
        + '#line 1 "entries"\n'
        + "".join(
            entry_function(entry_name(probe.name, index), bodies[probe.body_of(hook)], hook)
            for probe, index, hook in rungs
        ),
        structs=_merge(declaration.structs, _HEADER_STRUCTS, extra),
        enums=dict(declaration.enums),
        functions=[entry_name(probe.name, index) for probe, index, _ in rungs],
        signatures=[
            wanted
            for probe, index, hook in rungs
            if (wanted := signature(entry_name(probe.name, index), hook, bodies[probe.body_of(hook)]))
            is not None
        ],
        needs={entry_name(probe.name, index): probe.needs for probe, index, _ in rungs if probe.needs},
    )


def _rungs(declaration: Declaration, flavour: Flavour) -> list[tuple[Probe, int, Hook]]:
    return [
        (probe, index, hook)
        for probe in declaration.probes
        for index, hook in enumerate(probe.ladder)
        if flavour_of(hook) is flavour
    ]


def _read_probe(declaration: Declaration, folder: Path) -> str:
    path = folder / PROBE_FILE
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise CompileError(f"cannot read {path}: {error}") from error
    if len(_INCLUDE.findall(text)) != 1:
        raise CompileError(
            f"cannot compile the probes of '{declaration.name}':"
            f' {PROBE_FILE} must have one line #include "bpftune.h"'
        )
    return text


def _check_body(declaration: Declaration, probe: Probe, hook: Hook, bodies: Mapping[str, Body]) -> None:
    name = probe.body_of(hook)
    body = bodies.get(name)
    if body is None:
        cause = f"{PROBE_FILE} has no body '{name}' for probe '{probe.name}'"
    elif (fault := body.misfit(hook)) is not None:
        cause = f"probe '{probe.name}' and its hook {hook}: {fault}"
    else:
        return
    raise CompileError(f"cannot compile the probes of '{declaration.name}': {cause}")


def _head(declaration: Declaration, flavour: Flavour) -> str:
    numbers = {
        "PROBED": int(flavour is Flavour.PROBED),
        "TUNER_ID": declaration.id,
        "PROBE_COUNT": max(1, len(declaration.probes)),
        **{f"SCENARIO_{scenario.id}": i for i, scenario in enumerate(declaration.scenarios)},
        **{f"PROBE_SLOT_{probe.name}": i for i, probe in enumerate(declaration.probes)},
        "MIRROR_COUNT": len(declaration.mirrored),
        **{
            f"MIRROR_{re.sub('[.-]', '_', tunable.name)}": i for i, tunable in enumerate(declaration.mirrored)
        },
    }
    return "".join(f"#define {name} {number}\n" for name, number in numbers.items())


def _body(declaration: Declaration, text: str, folder: Path) -> str:
    """The probe's text with the header in place of the include, so that clang's messages name the
    author's file and line."""
    match = _INCLUDE.search(text)
    assert match is not None
    resume = text.count("\n", 0, match.end()) + 1
    name = f"{folder.name}/{PROBE_FILE}"
    header = HEADER_FILE.read_text()
    events = "".join(_event(scenario) for scenario in declaration.scenarios if scenario.event)
    rows = "".join(_row(table) for table in declaration.tables)
    return (
        f'#line 1 "{name}"\n{text[: match.start()]}#line 1 "{HEADER_FILE.name}"\n{header}'
        f'#line 1 "events"\n{events}#line 1 "tables"\n{rows}'
        f'#line {resume} "{name}"\n{text[match.end() :]}\n'
    )


def _event(scenario: Scenario) -> str:
    return f"struct event_{scenario.id} {{ struct event_header header;{_members(scenario.fields)} }};\n"


def _row(table: MapTable) -> str:
    return "".join(
        f"struct {table.map}_{part} {{{_members(fields)} }} __attribute__((aligned(8)));\n"
        for part, fields in (("key", table.key_fields), ("value", table.value_fields))
    )


def _members(fields: Iterable[EventField]) -> str:
    return "".join(
        f" {field.type} {field.name}{f'[{field.count}]' if field.count else ''};" for field in fields
    )


def _merge(*parts: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for part in parts:
        for struct, paths in part.items():
            known = merged.setdefault(struct, [])
            known.extend(path for path in paths if path not in known)
    return merged
