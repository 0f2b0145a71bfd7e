# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make install` and the packages put into a system: complete, runnable, free of this checkout."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

from bpftune import __version__
from tests.packages.conftest import PREFIX, ROOT, run

CODE = Path("usr/lib/bpftune/python/bpftune")
SOURCES = (".py", ".toml", ".c", ".h")


def test_every_source_is_installed(staged: Path) -> None:
    package = ROOT / "src/bpftune"
    sources = {
        Path(folder, name).relative_to(package)
        for folder, _, names in os.walk(package, followlinks=True)
        for name in names
        if name.endswith(SOURCES)
    }
    installed = {
        path.relative_to(staged / CODE) for path in (staged / CODE).rglob("*") if path.suffix in SOURCES
    }

    assert installed == sources
    assert Path("tuners/tcp_buffer/tuner.toml") in installed


def test_both_commands_run_from_there(staged: Path) -> None:
    assert run(f"{staged}/usr/sbin/bpftune", "-V") == f"bpftune {__version__}\n"
    assert run(f"{staged}/usr/bin/bpftune-ctl", "-V") == f"bpftune-ctl {__version__}\n"


def test_the_commands_use_what_is_installed(staged: Path) -> None:
    imported = run(
        f"{staged}/usr/lib/bpftune/bin/python3",
        "-c",
        "import msgspec; print(msgspec.__file__)",
        PYTHONPATH="",
    ).strip()

    assert not imported.startswith(str(ROOT))


def test_no_file_knows_where_it_was_made(staged: Path) -> None:
    places = (str(ROOT).encode(), str(staged).encode())
    telling = [
        path
        for path in staged.rglob("*")
        if path.is_file() and any(place in path.read_bytes() for place in places)
    ]

    assert not telling


def test_only_root_may_write(staged: Path) -> None:
    writable = [
        path
        for path in staged.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ]

    assert not writable


def test_the_unit_starts_the_installed_command(staged: Path) -> None:
    unit = (staged / "usr/lib/systemd/system/bpftune.service").read_text()
    start = re.findall(r"^ExecStart=(\S+)", unit, flags=re.MULTILINE)

    assert start == [f"{PREFIX}/sbin/bpftune"]
    assert os.access(f"{staged}{start[0]}", os.X_OK)


def test_every_man_page_that_the_unit_names_is_installed(staged: Path) -> None:
    unit = (staged / "usr/lib/systemd/system/bpftune.service").read_text()
    pages = re.findall(r"man:([\w-]+)\((\d)\)", unit)

    assert pages
    for name, section in pages:
        assert (staged / f"usr/share/man/man{section}/{name}.{section}").exists()


def test_uninstall_removes_all_of_it(staged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(staged, copy, symlinks=True)

    run("tools/uninstall", str(copy), PREFIX)

    assert list(copy.rglob("*")) == []
