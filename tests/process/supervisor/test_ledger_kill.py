# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL at any moment: the next start knows the original and whether the last write was made."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bpftune.supervisor.known_values import KnownValues
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.netns import NetnsRegistry
from bpftune.supervisor.rollback import Rollback

VICTIM = Path(__file__).with_name("ledger_victim.py")
ORIGINAL = "4096\t131072\t1000\n"
ROUNDS = 25


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in (("net/ipv4/tcp_mem", ORIGINAL), ("kernel/random/boot_id", "boot\n")):
        path = tmp_path / "proc/sys" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path


def kill_at_work(root: Path, after_s: float) -> None:
    with subprocess.Popen([sys.executable, VICTIM, root], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        # Not a wait for anything: the point in the loop at which it dies is what is tried.
        time.sleep(after_s)
        victim.kill()


def test_killed_at_many_points(root: Path) -> None:
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    file = root / "proc/sys/net/ipv4/tcp_mem"
    for _ in range(ROUNDS):
        kill_at_work(root, moments.uniform(0, 0.02))
        assert_settled(root, file, seed)
    roll_back_everything(root, file)


def assert_settled(root: Path, file: Path, seed: int) -> None:
    ledger = Ledger(root / "state", proc_root=root / "proc")
    try:
        assert ledger.set_aside is None, f"seed {seed}"
        current = tuple(map(int, file.read_text().split()))
        settled = ledger.recover(lambda cell: current)
        assert len(settled) <= 1, f"seed {seed}"
        assert all(change.outcome in ("applied", "undone") for change in settled), f"seed {seed}"
        for cell in ledger.cells():
            assert cell.last == current, f"seed {seed}"
            assert cell.text == ORIGINAL.rstrip("\n"), f"seed {seed}"
    finally:
        ledger.close()


def roll_back_everything(root: Path, file: Path) -> None:
    registry = NetnsRegistry(proc_root=root / "proc", run_netns=root)
    ledger = Ledger(root / "state", proc_root=root / "proc")
    rollback = Rollback(ledger=ledger, registry=registry, known=KnownValues(), proc_root=root / "proc")
    (restored,) = rollback.run("all", list, dry_run=False)
    ledger.close()
    registry.close()
    assert restored.outcome == "restored"
    assert file.read_text() == ORIGINAL.rstrip("\n")
