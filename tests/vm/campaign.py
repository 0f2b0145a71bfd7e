# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs jobs in machines, a few at a time, and passes on what they print as they print it.

__main__.py calls it. It must leave no machine running, however it ends.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.vm.image import Image
from tests.vm.machine import Ended, Job, Machine

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 2
POLL_S = 0.2
NOT_COPIED = (".git", ".venv", "build", "dist", "*_cache", ".hypothesis", "__pycache__", "*.egg-info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A job, how its machine ended, and the folder that it left its results in."""

    job: Job
    ended: Ended
    folder: Path


def pack_project(share: Path) -> None:
    """The working tree as it is, for the machines to unpack."""
    excludes = [f"--exclude={pattern}" for pattern in NOT_COPIED]
    subprocess.run(["tar", "-C", ROOT, *excludes, "-cf", share / "project.tar", "."], check=True)


def build_packages(share: Path) -> None:
    """One to install and one to upgrade to."""
    for revision in ("1", "2"):
        environment = {**os.environ, "REVISION": revision}
        subprocess.run([ROOT / "tools/package", "deb", share], cwd=ROOT, env=environment, check=True)


def run_jobs(image: Image, jobs: Iterable[Job], share: Path, say: Callable[[str], None]) -> list[Done]:
    """Every job in a machine of its own, in that order, AT_ONCE at a time."""
    waiting, running, done = list(jobs), list[Machine](), list[Done]()
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                running.append(Machine(image, waiting.pop(0), share))
                say(f"{running[-1].job.name}: booting")
            for machine in list(running):
                ended = machine.poll()
                for line in machine.read_lines():
                    say(f"{machine.job.name}: {line}")
                if ended is not None:
                    running.remove(machine)
                    done.append(Done(job=machine.job, ended=ended, folder=machine.folder))
                    say(f"{machine.job.name}: {_outcome(ended)}")
            time.sleep(POLL_S)
    finally:
        for machine in running:
            machine.stop()
    return done


def _outcome(ended: Ended) -> str:
    how = ended.why if ended.exit_code is None else f"exit code {ended.exit_code}"
    return f"ended after {ended.seconds:.0f} s, {how}"
