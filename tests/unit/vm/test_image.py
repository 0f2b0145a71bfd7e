# SPDX-License-Identifier: GPL-2.0-or-later
"""Building the machine: where it is kept, what it needs from pip, how its kernel is unpacked."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from tests.vm.guest_requirements import guest_requirements
from tests.vm.image import cache_root
from tests.vm.unpack_kernel import unpack

PYPROJECT = """
[build-system]
requires = ["setuptools>=66"]
[project]
dependencies = ["msgspec>=0.18", "pyzmq>=24"]
[project.optional-dependencies]
dev = ["mypy>=1.11", "pytest>=8"]
"""


def test_the_cache_is_where_the_user_keeps_caches() -> None:
    assert cache_root({"XDG_CACHE_HOME": "/c"}) == Path("/c/bpftune-vm")
    assert cache_root({"XDG_CACHE_HOME": ""}) == Path.home() / ".cache/bpftune-vm"
    assert cache_root({"XDG_CACHE_HOME": "/c", "BPFTUNE_VM_CACHE": "/elsewhere"}) == Path("/elsewhere")


def test_what_debian_has_and_linters_are_not_downloaded() -> None:
    assert guest_requirements(PYPROJECT) == ["setuptools>=66", "wheel", "msgspec>=0.18", "pytest>=8"]


def test_the_kernel_is_found_behind_its_boot_code() -> None:
    elf = b"\x7fELF" + bytes(100)

    assert unpack(b"boot code" + lzma.compress(elf) + b"what follows") == elf
    with pytest.raises(ValueError, match="no compressed ELF file"):
        unpack(b"boot code" + lzma.compress(b"something else"))
