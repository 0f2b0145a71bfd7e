# SPDX-License-Identifier: GPL-2.0-or-later
"""The one ring buffer, read through libbpf."""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Callable

from bpftune.bpf import libbpf
from bpftune.ipc.errors import BpfError


class Ring:
    """Owns libbpf's reader of one ring buffer map; the map's descriptor stays the caller's."""

    def __init__(self, map_fd: int) -> None:
        self._records: list[bytes] = []
        # ctypes keeps no reference: without this one the callback is freed under libbpf.
        self._callback = libbpf.SampleCallback(self._collect)
        self._handle = libbpf.library().ring_buffer__new(map_fd, self._callback, None, None)
        if not self._handle:
            code = ct.get_errno()
            raise BpfError(f"cannot read the ring buffer: {os.strerror(code)}", errno=code)

    def fileno(self) -> int:
        """Readable while there are records."""
        descriptor: int = libbpf.library().ring_buffer__epoll_fd(self._handle)
        return descriptor

    def consume(self, handle: Callable[[bytes], None]) -> int:
        """Pass every waiting record to `handle`; how many there were.

        A record whose handler raises does not cost the others theirs: the first error is raised
        when all are handled.
        """
        result = libbpf.library().ring_buffer__consume(self._handle)
        if result < 0:
            raise BpfError(f"cannot read the ring buffer: {os.strerror(-result)}", errno=-result)
        records, self._records = self._records, []
        failure: Exception | None = None
        for record in records:
            try:
                handle(record)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return len(records)

    def close(self) -> None:
        if self._handle:
            libbpf.library().ring_buffer__free(self._handle)
            self._handle = None

    def _collect(self, _context: int | None, data: int, size: int) -> int:
        """An exception cannot pass through C: only copy here."""
        self._records.append(ct.string_at(data, size))
        return 0
