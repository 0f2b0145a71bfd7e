# SPDX-License-Identifier: GPL-2.0-or-later
"""A path with a bandwidth and a round trip time between two namespaces, on kernels without netem.

    long_path.py NETNS NETNS RTT_MS MBIT_PER_S [LOSS]

Carries packets between a TUN device in each namespace, both named path0, holds them back for half
the round trip and lets no more through than the rate; what does not fit into the queue is dropped,
as a router does. The share LOSS (0..1) of all packets gets lost, at random, but with the same dice in
every run. Prints "ready" when both devices exist and runs until it is killed. Kernel tests start it
with `long_path()`, tools/demo as a program: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

PYTHON = "/usr/bin/python3"
DEVICE = "path0"
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PACKET_BYTES = 65536
QUEUED_PACKETS = 1000
"""per direction, as txqueuelen of a real device"""


class Direction:
    """One way along the path: read from `source`, written to `sink` when due."""

    def __init__(
        self, source: int, sink: int, *, delay_s: float, bytes_per_s: float, loss: float, seed: int
    ) -> None:
        self.source = source
        self._sink = sink
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._loss = loss
        self._random = random.Random(seed)
        self._free_at = 0.0
        self._queue: deque[tuple[float, bytes]] = deque()

    def take(self, now: float) -> None:
        packet = os.read(self.source, PACKET_BYTES)
        if self._loss and self._random.random() < self._loss:
            return
        if len(self._queue) < QUEUED_PACKETS + self._delay_s * self._bytes_per_s / 1500:
            self._free_at = max(now, self._free_at) + len(packet) / self._bytes_per_s
            self._queue.append((self._free_at + self._delay_s, packet))

    def deliver(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            # EIO while the device at the far end is still down.
            with contextlib.suppress(OSError):
                os.write(self._sink, self._queue[0][1])
            self._queue.popleft()

    @property
    def due_at(self) -> float:
        return self._queue[0][0] if self._queue else float("inf")


def carry(directions: list[Direction]) -> None:
    sources = {direction.source: direction for direction in directions}
    while True:
        wait_s = min(direction.due_at for direction in directions) - time.monotonic()
        readable, _, _ = select.select(sources, [], [], None if wait_s == float("inf") else max(0, wait_s))
        now = time.monotonic()
        for source in readable:
            sources[source].take(now)
        for direction in directions:
            direction.deliver(now)


def open_device(netns: str) -> int:
    """A TUN device in that namespace, a name or a path; it goes when the descriptor is closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", netns).open() as target:
        if libc.setns(target.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {netns}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


@contextlib.contextmanager
def long_path(a: str, b: str, *, rtt_ms: float, mbit_per_s: float, loss: float = 0) -> Iterator[None]:
    """path0 exists in the namespaces named `a` and `b` inside the block; addresses are the caller's."""
    argv = [PYTHON, __file__, a, b, str(rtt_ms), str(mbit_per_s), str(loss)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "long_path.py did not start"
            yield
        finally:
            process.kill()


def main(a: str, b: str, rtt_ms: str, mbit_per_s: str, loss: str = "0") -> None:
    ends = open_device(a), open_device(b)
    print("ready", flush=True)
    delay_s, bytes_per_s = float(rtt_ms) / 2000, float(mbit_per_s) * 125_000
    carry(
        [
            Direction(
                ends[seed],
                ends[1 - seed],
                delay_s=delay_s,
                bytes_per_s=bytes_per_s,
                loss=float(loss),
                seed=seed,
            )
            for seed in (0, 1)
        ]
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
