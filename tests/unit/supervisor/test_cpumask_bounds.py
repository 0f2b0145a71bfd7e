# SPDX-License-Identifier: GPL-2.0-or-later
"""For masks, floor and cap are sets of CPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftune.ipc.declaration import Format, Scope, Tunable
from bpftune.supervisor.proposal_check import value_refusal
from bpftune.supervisor.quantities import Bounds, read_cpus

MASK = Tunable(name="net.core.flow_limit_cpu_bitmap", scope=Scope.GLOBAL, format=Format.CPUMASK)
masks = st.integers(0, 2**300)


@given(current=masks, new=masks, floor=masks, cap=masks)
def test_bits_of_the_floor_stay_and_others_than_the_cap_s_do_not_come(
    current: int, new: int, floor: int, cap: int
) -> None:
    refusal = value_refusal(MASK, current=(current,), new=(new,), bounds=Bounds(floor=(floor,), cap=(cap,)))
    dropped, taken = current & ~new, new & ~current
    assert (refusal is None) == (not dropped & floor and not taken & ~cap and new != current)


def test_a_larger_number_may_lack_a_bit() -> None:
    bounds = Bounds(floor=(0b0001,), cap=(0b1111,))
    assert value_refusal(MASK, current=(0b0001,), new=(0b1000,), bounds=bounds) is not None
    assert value_refusal(MASK, current=(0b0001,), new=(0b1001,), bounds=bounds) is None


@pytest.mark.parametrize(
    ("text", "mask"),
    [("0\n", 1), ("0-1\n", 3), ("0-3,8\n", 0b1_0000_1111), ("0-127\n", 2**128 - 1)],
)
def test_cpu_list(tmp_path: Path, text: str, mask: int) -> None:
    path = tmp_path / "possible"
    path.write_text(text)
    assert read_cpus(path) == mask


def test_without_the_list_no_cpu_is_known(tmp_path: Path) -> None:
    assert read_cpus(tmp_path / "possible") == 0
