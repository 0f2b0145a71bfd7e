# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bpftune.supervisor.memory import MAX_AGE_S, PAGE_BYTES, Memory, parse_zoneinfo


def zone(node: int, name: str, *, high: int, managed: int) -> str:
    return f"""Node {node}, zone {name:>8}
  per-node stats
      nr_inactive_anon 100
  pages free     117672
        boost    0
        min      3851
        low      4813
        high     {high}
        spanned  5505024
        present  5505024
        managed  {managed}
        protection: (0, 0, 0, 0, 0)
  pagesets
    cpu: 0
              count:    303
              high:     378
              batch:    63
"""


def test_normal_zones_of_all_nodes() -> None:
    text = (
        zone(0, "DMA32", high=10, managed=1000)
        + zone(0, "Normal", high=100, managed=5000)
        + zone(1, "Normal", high=200, managed=7000)
        + zone(1, "Movable", high=0, managed=0)
    )
    assert parse_zoneinfo(text) == 4900 + 6800


def test_dma32_without_a_normal_zone() -> None:
    text = zone(0, "DMA", high=1, managed=3) + zone(0, "DMA32", high=10, managed=1000)
    assert parse_zoneinfo(text) == 990


def test_an_empty_normal_zone_counts_as_none() -> None:
    text = zone(0, "DMA32", high=10, managed=1000) + zone(0, "Normal", high=0, managed=0)
    assert parse_zoneinfo(text) == 990


def test_one_large_dma_zone_as_on_arm64() -> None:
    text = zone(0, "DMA", high=10, managed=500) + zone(0, "Normal", high=0, managed=0)
    assert parse_zoneinfo(text) == 490


@given(st.text(alphabet="Node zonehigmaged, 0123456789\n", max_size=200))
def test_garbage_never_raises_and_never_goes_below_zero(text: str) -> None:
    assert parse_zoneinfo(text) >= 0


def test_it_is_read_again_only_after_a_while(tmp_path: Path) -> None:
    file = tmp_path / "zoneinfo"
    file.write_text(zone(0, "Normal", high=1, managed=11))
    now = 0.0
    memory = Memory(proc_root=tmp_path, clock=lambda: now)
    assert (memory.pages, memory.bytes) == (10, 10 * PAGE_BYTES)
    file.write_text(zone(0, "Normal", high=1, managed=21))
    assert memory.pages == 10
    now = MAX_AGE_S + 1
    assert memory.pages == 20


def test_an_unreadable_file_is_no_memory(tmp_path: Path) -> None:
    assert Memory(proc_root=tmp_path).pages == 0
