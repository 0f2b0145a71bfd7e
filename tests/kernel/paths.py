# SPDX-License-Identifier: GPL-2.0-or-later
"""A long path between two namespaces: by netem where the kernel has it, else by long_path.py.

namespaces.py calls it. netem carries in the kernel, which matters where a processor is emulated.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator

from tests.kernel import long_path as in_user_space
from tests.kernel.long_path import DEVICE, QUEUED_PACKETS

PACKET_BYTES = 1500


@contextlib.contextmanager
def long_path(a: str, b: str, *, rtt_ms: float, mbit_per_s: float, loss: float = 0) -> Iterator[None]:
    """path0 exists in the namespaces `a`, a name, and `b`, a name or a path, inside the block."""
    carry = _netem_path if has_netem() else in_user_space.long_path
    with carry(a, b, rtt_ms=rtt_ms, mbit_per_s=mbit_per_s, loss=loss):
        yield


@functools.cache
def has_netem() -> bool:
    """Tried, in a namespace that goes with the command: the module is loaded by that."""
    argv = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _netem_path(a: str, b: str, *, rtt_ms: float, mbit_per_s: float, loss: float) -> Iterator[None]:
    delay_ms = rtt_ms / 2
    queue = QUEUED_PACKETS + delay_ms * mbit_per_s * 125 / PACKET_BYTES
    netem = ["delay", f"{delay_ms}ms", "rate", f"{mbit_per_s}mbit", "limit", f"{queue:.0f}"]
    if loss:
        netem += ["loss", f"{100 * loss}%"]
    _in(a, "ip", "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", b)
    try:
        for end in (a, b):
            # One packet at a time: what TCP hands over in one piece would be delayed and lost in one piece.
            _in(end, "ip", "link", "set", DEVICE, "gso_max_segs", "1")
            _in(end, "tc", "qdisc", "add", "dev", DEVICE, "root", "netem", *netem)
        yield
    finally:
        _in(a, "ip", "link", "delete", DEVICE)


def _in(netns: str, *argv: str) -> None:
    where = netns if netns.startswith("/") else f"/run/netns/{netns}"
    done = subprocess.run(["nsenter", f"--net={where}", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)} in {netns}: {done.stderr.strip()}"
