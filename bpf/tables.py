# SPDX-License-Identifier: GPL-2.0-or-later
"""The maps that a tuner declares under [[tables]], as rows of bytes.

The runtime reads them for the summary and drops what belongs to a namespace that is gone. What the
bytes mean is the business of the tuner's policy.
"""

from __future__ import annotations

import struct

from bpftune.bpf import libbpf
from bpftune.bpf.maps import Maps
from bpftune.ipc.declaration import MapTable
from bpftune.ipc.errors import BpfError
from bpftune.ipc.record import payload_struct

_HASHES = (1, 9)
"""BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_LRU_HASH: one value per key, and keys that can be deleted."""


class TableMap:
    def __init__(self, table: MapTable, maps: Maps) -> None:
        """Raises BpfError when the probes' map is not what tuner.toml says."""
        key_bytes, value_bytes = (
            payload_struct(table.key_fields).size,
            payload_struct(table.value_fields).size,
        )
        if table.map not in maps:
            raise BpfError(f"cannot show BPF map {table.map}: the probes have none of that name")
        spec = maps.spec(table.map)
        if spec.type not in _HASHES or (spec.key_size, spec.value_size) != (key_bytes, value_bytes):
            raise BpfError(
                f"cannot show BPF map {table.map}: not a hash of struct {table.map}_key and {table.map}_value"
            )
        self._per_netns = table.per_netns
        self._descriptor = maps[table.map]
        self._spec = spec

    def rows(self) -> dict[bytes, bytes]:
        found = {key: libbpf.lookup(self._descriptor, key, self._spec.value_size) for key in self._keys()}
        return {key: value for key, value in found.items() if value is not None}

    def forget(self, netns_cookie: int) -> None:
        """Delete the rows of a namespace."""
        if not self._per_netns:
            return
        gone = struct.pack("=Q", netns_cookie)
        for key in self._keys():
            if key.startswith(gone):
                libbpf.delete(self._descriptor, key)

    def _keys(self) -> list[bytes]:
        return libbpf.keys(self._descriptor, self._spec.key_size, most=self._spec.max_entries)
