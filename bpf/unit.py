# SPDX-License-Identifier: GPL-2.0-or-later
"""What the compiler child is asked for and what it answers, as plain data.

Both sides import this, and the child may run on an interpreter that has nothing but BCC: standard
library only.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Flavour(StrEnum):
    """How the bodies of a probe.bpf.c read kernel memory."""

    TYPED = "typed"
    """Plain loads: the verifier knows what the arguments point to."""
    PROBED = "probed"
    """bpf_probe_read_kernel: arguments are bare numbers (kprobe, kretprobe, raw_tp)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A BTF symbol that a hook attaches to, and what its arguments must be."""

    entry: str
    """The function that serves the rung."""
    symbol: str
    typedef: bool
    """The symbol is the typedef of a tracepoint, not a function."""
    arguments: dict[int, str]
    """Those that the body gets, by index: the struct that each must point to, empty for anything else."""
    result: bool
    """The return value counts as one more argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One tuner in one flavour. The child puts the layout of this kernel between head and body."""

    tuner: str
    flavour: Flavour
    head: str
    body: str
    structs: dict[str, list[str]]
    enums: dict[str, list[str]]
    functions: list[str]
    signatures: list[Signature]
    needs: dict[str, list[str]]
    """entry -> constants without which the rung is of no use."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Unit:
        signatures = [
            Signature(**{**given, "arguments": {int(i): name for i, name in given["arguments"].items()}})
            for given in data["signatures"]
        ]
        return cls(**{**data, "flavour": Flavour(data["flavour"]), "signatures": signatures})


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """A compiled unit: what the cache keeps. Map references in the instructions are indexes of `maps`."""

    maps: list[MapSpec]
    programs: dict[str, bytes]
    btf_ids: dict[str, int]
    """entry -> BTF id of what it attaches to."""
    refusals: dict[str, str]
    """entry -> why this kernel's BTF rules the rung out."""

    def as_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["programs"] = {name: base64.b64encode(code).decode() for name, code in self.programs.items()}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Object:
        """Raises KeyError, TypeError or ValueError for anything that as_json did not write."""
        return cls(
            maps=[MapSpec(**spec) for spec in data["maps"]],
            programs={name: base64.b64decode(code, validate=True) for name, code in data["programs"].items()},
            btf_ids=dict(data["btf_ids"]),
            refusals=dict(data["refusals"]),
        )
