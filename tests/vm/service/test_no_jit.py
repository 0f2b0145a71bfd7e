# SPDX-License-Identifier: GPL-2.0-or-later
"""net.core.bpf_jit_enable=0, where the kernel has an interpreter: slower, and otherwise the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.namespaces import Pair, read_sysctl
from tests.vm.foreign.growth import RMEM, SMALL_RMEM, grow_rmem
from tests.vm.service import unit

JIT = "net.core.bpf_jit_enable"


@pytest.fixture
def no_jit(stopped: None) -> Iterator[None]:
    before = read_sysctl(JIT)
    done = unit.run("sysctl", "-q", "-w", f"{JIT}=0")
    if done.returncode != 0:
        # Debian's own kernels have no interpreter (CONFIG_BPF_JIT_ALWAYS_ON).
        pytest.skip(f"this kernel refuses {JIT}=0: {done.stderr.strip()}")
    yield
    unit.checked("sysctl", "-q", "-w", f"{JIT}={before}")


def test_it_tunes(no_jit: None, distant: Pair) -> None:
    distant.b.write_sysctl(RMEM, SMALL_RMEM)
    unit.systemctl("start")
    unit.wait_active_tuners()

    grow_rmem(distant)
