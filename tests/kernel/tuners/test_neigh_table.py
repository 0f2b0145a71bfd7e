# SPDX-License-Identifier: GPL-2.0-or-later
"""neigh_table while neighbours come by the thousand: none is refused, and room is given back after.

The tables and their limits are global; conftest.py puts the limits back.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.kernel import neighbours, traffic
from tests.kernel.conftest import StartDaemon
from tests.kernel.daemon import Daemon
from tests.kernel.namespaces import Namespace
from tests.kernel.neighbours import ARP, ND, Family
from tests.waiting import SCALE, wait_for

TUNER = "neigh_table"
PACE_US = round(20 if SCALE == 1 else 100 * SCALE)
"""Four times what one process adds at most, for machines that do other things as well. Emulated processors
take turns: who adds entries must leave the other one time to decide."""
ENTRIES = 2500

FAMILIES = pytest.mark.parametrize("family", [ARP, ND], ids=["ipv4", "ipv6"])


@pytest.fixture
def crowd() -> Iterator[Namespace]:
    with neighbours.crowd(ARP.interface, ND.interface) as made:
        yield made


@pytest.fixture
def daemon(initial_restored: None, start_daemon: StartDaemon) -> Daemon:
    started = start_daemon("--allow", TUNER)
    wait_for(lambda: started.tuner(TUNER)["state"] == "active", 5, "the worker")
    return started


@FAMILIES
def test_the_table_grows_before_anything_is_refused(crowd: Namespace, daemon: Daemon, family: Family) -> None:
    originals, other = family.thresholds(), (ND if family is ARP else ARP)
    other_originals = other.thresholds()
    _, refused_before = family.counts()

    refused = neighbours.add(crowd, family, ENTRIES, pace_us=PACE_US)

    entries, refused_after = family.counts()
    latencies = daemon.tuner(TUNER)["write_latency_us"]
    print(f"{refused} refused, gc_thresh {family.thresholds()}, event to write in us: {latencies}")
    assert refused == refused_after - refused_before == 0
    assert entries >= ENTRIES
    thresholds = family.thresholds()
    assert thresholds == sorted(thresholds)
    assert all(new > old for old, new in zip(originals, thresholds, strict=True))
    assert other.thresholds() == other_originals
    daemon.wait_line(rf"Scenario '.+' occurred for tunable '{family.sysctls}3' in global ns\. \S")
    daemon.wait_line(rf"Due to .+ change {family.sysctls}3 from \({originals[2]}\) -> \(\d+\)$")
    assert latencies
    assert latencies[0] < 1_000_000 * SCALE


@FAMILIES
def test_an_emptied_table_shrinks_to_the_original_and_no_further(
    crowd: Namespace, daemon: Daemon, family: Family
) -> None:
    originals = family.thresholds()
    neighbours.add(crowd, family, 1200, pace_us=5 * PACE_US)
    grown = wait_for(lambda: [new for new in [family.thresholds()] if new[2] > originals[2]], 2, "growth")[0]

    neighbours.flush(crowd, family)
    seen = [grown]

    def at_originals() -> bool:
        now = family.thresholds()
        if now != seen[-1]:
            seen.append(now)
        return now == originals

    wait_for(at_originals, 30, "the thresholds at their originals")
    # The last growth may come after the flush.
    falling = seen[seen.index(max(seen, key=lambda thresholds: thresholds[2])) :]
    assert all(later[2] <= earlier[2] for earlier, later in pairwise(falling))
    assert all(value >= original for row in seen for value, original in zip(row, originals, strict=True))


SEND_TO_MANY = """
import ipaddress, socket, sys, time
first, count, pace_us = ipaddress.ip_address(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if first.version == 6 else socket.AF_INET
start_ns = time.perf_counter_ns()
for number in range(count):
    while (left_us := (start_ns - time.perf_counter_ns()) / 1000 + number * pace_us) > 0:
        if left_us > 100:
            time.sleep(left_us / 1e6)
    # A socket of its own each: what waits for an unknown neighbour fills the send buffer.
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (str(first + number), 9))
"""


@FAMILIES
def test_traffic_to_many_addresses_finds_room(crowd: Namespace, daemon: Daemon, family: Family) -> None:
    """Entries without an answer: the kernel could collect these, others of the table it could not."""
    original = family.thresholds()[2]
    _, refused_before = family.counts()

    crowd.run(traffic.PYTHON, "-c", SEND_TO_MANY, family.address(5000), "1500", str(PACE_US))

    assert family.counts()[1] == refused_before
    assert family.thresholds()[2] > original


def test_a_small_prefix_gets_no_large_table(daemon: Daemon) -> None:
    """A /29 has 8 hosts, so 256 is its cap and the default of 1024 stays; a crowd there is refused."""
    originals = ARP.thresholds()
    with neighbours.crowd("10.77.0.1/29") as small:
        refused = neighbours.add(small, ARP, originals[2] + 200)

        assert ARP.thresholds() == originals
        assert refused > 0
        wait_for(lambda: daemon.tuner(TUNER)["events_in"] > 0, 2, "an event")
        assert daemon.tuner(TUNER)["changes"] == 0
