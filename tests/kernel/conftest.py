# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the kernel tests, and the guard that leaves the machine as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from bpftune.supervisor.supervisor import CACHE_DIR
from tests import leftovers
from tests.kernel import namespaces, sysctl_guard
from tests.kernel.daemon import Daemon, running
from tests.kernel.namespaces import Namespace, Pair
from tests.requirements import require_root

COMPILED_BY_OTHERS = Path(place) if (place := os.environ.get("BPFTUNE_TESTS_PROGRAMS")) else None
"""Where test runs on the same kernel leave compiled programs for each other"""


class StartDaemon(Protocol):
    def __call__(self, *arguments: str) -> Daemon: ...


@pytest.fixture(scope="session", autouse=True)
def machine_restored() -> Iterator[None]:
    """Root only; the sysctls of the initial namespace that tuners may move are put back."""
    require_root()
    with sysctl_guard.guarded(sysctl_guard.declared_sysctls()):
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_left(machine_restored: None) -> Iterator[None]:
    """Fails the module that leaves a namespace, a mount or a BPF program behind."""
    namespaces_before, mounts_before = leftovers.namespaces(), leftovers.mounts()
    programs_before = leftovers.programs()
    yield
    assert not leftovers.settle(lambda: leftovers.namespaces() - namespaces_before), "namespaces left behind"
    assert not leftovers.settle(lambda: leftovers.mounts() - mounts_before), "mounts left behind"
    assert not leftovers.settle(lambda: leftovers.programs() - programs_before), "BPF programs left behind"


@pytest.fixture
def netns() -> Iterator[Namespace]:
    with namespaces.namespace() as created:
        yield created


@pytest.fixture
def veth() -> Iterator[Pair]:
    """Two namespaces joined by a veth."""
    with namespaces.pair() as made:
        yield made


@pytest.fixture
def distant() -> Iterator[Pair]:
    """Two namespaces 40 ms and 100 Mbit/s apart: here buffers set the pace."""
    with namespaces.distant_pair() as made:
        yield made


@pytest.fixture
def initial_restored() -> Iterator[None]:
    """For tests that write tunables of the initial namespace; to be requested before `start_daemon`."""
    before = sysctl_guard.read(sysctl_guard.declared_sysctls())
    yield
    sysctl_guard.restore(before)


@pytest.fixture(scope="session")
def compiled(machine_restored: None) -> Iterator[Path]:
    """What a first daemon compiled of the shipped tuners; each takes half a second, or six under QEMU."""
    if COMPILED_BY_OTHERS and COMPILED_BY_OTHERS.exists():
        yield COMPILED_BY_OTHERS
        return
    with _passable_directory() as directory:
        with running(directory=directory) as daemon:
            pass
        programs = daemon.state_dir / CACHE_DIR
        if COMPILED_BY_OTHERS:
            _publish(programs, COMPILED_BY_OTHERS)
        yield programs


@pytest.fixture
def daemon_directory(compiled: Path) -> Iterator[Path]:
    """State and run directory of the daemons under test, which find their programs compiled."""
    with _passable_directory() as directory:
        (directory / "state").mkdir(mode=0o700)
        shutil.copytree(compiled, directory / "state" / CACHE_DIR)
        yield directory


def _publish(programs: Path, place: Path) -> None:
    """All at once: another machine finds everything there or nothing."""
    aside = Path(tempfile.mkdtemp(dir=place.parent))
    shutil.copytree(programs, aside / place.name)
    with contextlib.suppress(OSError):
        (aside / place.name).rename(place)
    shutil.rmtree(aside)
    assert place.is_dir(), "neither we nor somebody quicker could put compiled programs there"


@contextlib.contextmanager
def _passable_directory() -> Iterator[Path]:
    """Not tmp_path: workers, which are not root, must pass through it to their sockets, and a socket's
    path holds 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="bpftune-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def start_daemon(daemon_directory: Path) -> Iterator[StartDaemon]:
    """Call it to start a ready daemon; all daemons of a test share state and run directory."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Daemon:
            return stack.enter_context(running(*arguments, directory=daemon_directory))

        yield start
