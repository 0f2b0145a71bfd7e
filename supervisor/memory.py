# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory the bounds of tunables are measured against.

Called by quantities.py and for the views of workers. /proc/zoneinfo has a block per CPU and zone,
so it is read at most once in MAX_AGE_S: watermarks move when an administrator or memory hotplug
moves them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

MAX_AGE_S = 10
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# The zone that network buffers come from. Machines with little memory, or arm64 with a large DMA
# zone, have nothing in the first ones.
_ZONES = ("Normal", "DMA32", "DMA")


class Memory:
    def __init__(
        self, *, proc_root: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = proc_root / "zoneinfo"
        self._clock = clock
        self._pages = 0
        self._read_at: float | None = None

    @property
    def pages(self) -> int:
        """Managed pages above the high watermark; 0 when /proc/zoneinfo cannot be read."""
        now = self._clock()
        if self._read_at is None or now - self._read_at > MAX_AGE_S:
            self._pages = read_memory_pages(self._path)
            self._read_at = now
        return self._pages

    @property
    def bytes(self) -> int:
        return self.pages * PAGE_BYTES


def read_memory_pages(path: Path) -> int:
    try:
        return parse_zoneinfo(path.read_text())
    except OSError:
        # Bounds made of 0 pages refuse growth, which is the safe side.
        return 0


def parse_zoneinfo(text: str) -> int:
    """Pages (managed - high watermark) of zone Normal over all nodes, else of DMA32, else of DMA."""
    pages = dict.fromkeys(_ZONES, 0)
    zone, high = "", 0
    for line in text.splitlines():
        match line.split():
            case ["Node", _, "zone", name]:
                zone, high = name, 0
            case ["high", number]:
                high = int(number)
            case ["managed", number] if zone in pages:
                pages[zone] += max(0, int(number) - high)
    return next((pages[zone] for zone in _ZONES if pages[zone]), 0)
