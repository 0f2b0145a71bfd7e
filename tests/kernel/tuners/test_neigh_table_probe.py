# SPDX-License-Identifier: GPL-2.0-or-later
"""The probes of neigh_table without a daemon: what they tell of a table that empties and fills again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.messages import GLOBAL
from bpftune.ipc.record import Event, RecordDecoder
from tests.kernel import neighbours
from tests.kernel.bpf.rig import ROOT, Rig, opened, read_source
from tests.kernel.namespaces import Namespace
from tests.kernel.neighbours import ARP, ND, Family

TUNER = "neigh_table"
ENTRIES = 230
"""Less than the quarter of the limit that counts as mostly empty."""
PACE_US = 2000
"""So slow that nothing looks as if the table were full soon."""
SCENARIO = {ARP: "arp_table", ND: "nd_table"}

FAMILIES = pytest.mark.parametrize("family", [ARP, ND], ids=["ipv4", "ipv6"])


@pytest.fixture
def crowd() -> Iterator[Namespace]:
    with neighbours.crowd(ARP.interface, ND.interface) as made:
        yield made


@pytest.fixture
def rig(crowd: Namespace, initial_restored: None, tmp_path: Path) -> Iterator[Rig]:
    """Loaded, as if the limits had been raised."""
    source = read_source(ROOT / "tuners" / TUNER)
    with opened(tmp_path / "cache") as rig:
        assert rig.bpf.load([source]) == {}
        rig.decoders[source.declaration.id] = RecordDecoder(source.declaration)
        rig.bpf.set_changed(GLOBAL, TUNER, changed=True)
        yield rig


def fill_and_empty(crowd: Namespace, family: Family) -> None:
    neighbours.add(crowd, family, ENTRIES, pace_us=PACE_US)
    neighbours.flush(crowd, family)


def seen(rig: Rig, scenario: str) -> list[Event]:
    return [event for event in rig.events() if event.scenario == scenario]


@FAMILIES
def test_a_table_that_fills_again_is_told_of_once(crowd: Namespace, rig: Rig, family: Family) -> None:
    rig.bpf.attach(TUNER)
    fill_and_empty(crowd, family)
    assert seen(rig, f"{SCENARIO[family]}_emptied")

    neighbours.add(crowd, family, ENTRIES, pace_us=PACE_US)

    (event,) = seen(rig, f"{SCENARIO[family]}_filling")
    assert 2 * neighbours.FEW > event["entries"] > ENTRIES // 2


@FAMILIES
def test_where_creations_are_not_seen_nothing_is_mostly_empty(
    crowd: Namespace, rig: Rig, family: Family
) -> None:
    rig.bpf.attach(TUNER, {"release"})

    fill_and_empty(crowd, family)

    assert seen(rig, f"{SCENARIO[family]}_emptied") == []
