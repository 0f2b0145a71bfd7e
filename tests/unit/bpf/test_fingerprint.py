# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/fingerprint.py: what makes a cached program stale."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bpftune.bpf.fingerprint import environment_checksum, unit_key
from tests.unit.bpf.made import unit

VERSION = "usr/lib/python3/dist-packages/bcc/version.py"
LIBRARY = "usr/lib/x86_64-linux-gnu/libbcc.so.0"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root with a kernel's notes and a BCC."""
    for name in (VERSION, LIBRARY, "notes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def checksum(machine: Path) -> int:
    return environment_checksum(notes=machine / "notes", root=machine)


def test_the_same_machine_has_the_same_checksum(machine: Path) -> None:
    assert checksum(machine) == checksum(machine)


def test_another_kernel_build_changes_it(machine: Path) -> None:
    before = checksum(machine)
    (machine / "notes").write_text("another build id")

    assert checksum(machine) != before


@pytest.mark.parametrize("name", [VERSION, LIBRARY])
def test_another_bcc_changes_it(machine: Path, name: str) -> None:
    before = checksum(machine)
    os.utime(machine / name, ns=(1, 1))

    assert checksum(machine) != before


def test_a_machine_without_bcc_still_has_one(machine: Path) -> None:
    """Cached programs load where the compiler was removed."""
    (machine / VERSION).unlink()
    (machine / LIBRARY).unlink()

    assert checksum(machine)


def test_the_source_is_part_of_the_key(machine: Path) -> None:
    environment = checksum(machine)

    assert unit_key(environment, unit()) == unit_key(environment, unit())
    assert unit_key(environment, unit()) != unit_key(environment, unit(body="int b;"))
    assert unit_key(environment, unit()) != unit_key(environment + 1, unit())
