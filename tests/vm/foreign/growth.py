# SPDX-License-Identifier: GPL-2.0-or-later
"""The quickest proof that tuning works: a limit that is too small for a path is raised."""

from __future__ import annotations

from tests.kernel import traffic
from tests.kernel.namespaces import Namespace, Pair
from tests.waiting import wait_for

RMEM, WMEM = "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"
SMALL_RMEM, SMALL_WMEM = "4096 65536 131072", "4096 16384 65536"


def grow_rmem(pair: Pair) -> None:
    """Traffic from a to b until b's limit was raised."""
    _send_until_changed(pair, pair.b, RMEM, SMALL_RMEM)


def grow_wmem(pair: Pair) -> None:
    _send_until_changed(pair, pair.a, WMEM, SMALL_WMEM)


def _send_until_changed(pair: Pair, where: Namespace, key: str, small: str) -> None:
    with traffic.receiver(pair.b, pair.b_ipv4) as to, traffic.sending(pair.a, to, seconds=60):
        wait_for(lambda: where.read_sysctl(key) != small, 10, f"a larger {key}", interval_s=0.2)
