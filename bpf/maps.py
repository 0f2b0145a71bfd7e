# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF maps by name: a tuner's own, and behind them the ones that all tuners share.

A map exists as long as its descriptor is open here or a loaded program refers to it. Nothing is
pinned: when the process is gone, so are they.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from bpftune.bpf import libbpf
from bpftune.bpf.unit import MapSpec
from bpftune.ipc.errors import BpfError

SHARED_PREFIX = "shared_"
_SK_STORAGE = 24
"""BPF_MAP_TYPE_SK_STORAGE: the kernel wants its value described by BTF."""


class Maps:
    def __init__(self, shared: Maps | None = None) -> None:
        self._shared = shared
        self._descriptors: dict[str, int] = {}
        self._specs: dict[str, MapSpec] = {}

    def open(self, specs: Iterable[MapSpec]) -> list[int]:
        """A descriptor per spec; a map that exists is used again. Raises BpfError."""
        return [self._open(spec) for spec in specs]

    def __getitem__(self, name: str) -> int:
        return self._descriptors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._descriptors

    def spec(self, name: str) -> MapSpec:
        return self._specs[name]

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _open(self, spec: MapSpec) -> int:
        if self._shared is not None and spec.name.startswith(SHARED_PREFIX):
            return self._shared._open(spec)
        if spec.name not in self._descriptors:
            self._descriptors[spec.name] = _create(spec)
            self._specs[spec.name] = spec
        return self._descriptors[spec.name]


def _create(spec: MapSpec) -> int:
    try:
        if spec.type == _SK_STORAGE:
            return _create_socket_storage(spec)
        return libbpf.create_map(
            name=spec.name,
            type_number=spec.type,
            key_size=spec.key_size,
            value_size=spec.value_size,
            max_entries=spec.max_entries,
            flags=spec.flags,
        )
    except OSError as error:
        raise BpfError(
            f"cannot create BPF map {spec.name}: {error.strerror}", errno=error.errno or 0
        ) from error


def _create_socket_storage(spec: MapSpec) -> int:
    btf_fd, key_type_id, value_type_id = libbpf.load_value_btf(spec.value_size)
    try:
        return libbpf.create_map(
            name=spec.name,
            type_number=spec.type,
            key_size=spec.key_size,
            value_size=spec.value_size,
            max_entries=spec.max_entries,
            flags=spec.flags,
            btf_fd=btf_fd,
            key_type_id=key_type_id,
            value_type_id=value_type_id,
        )
    finally:
        os.close(btf_fd)
