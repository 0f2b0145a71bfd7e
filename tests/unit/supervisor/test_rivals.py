# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

from bpftune.supervisor.rivals import find_rivals


def process(proc_root: Path, pid: int, comm: str, exe: str | None) -> None:
    folder = proc_root / str(pid)
    folder.mkdir()
    (folder / "comm").write_text(f"{comm}\n")
    if exe is not None:
        (folder / "exe").symlink_to(exe)


def test_tuned_and_the_other_bpftune_are_noticed(tmp_path: Path) -> None:
    process(tmp_path, 7, "tuned", "/usr/bin/python3.11")
    process(tmp_path, 30, "bpftune", "/usr/sbin/bpftune")
    process(tmp_path, 200, "sshd", "/usr/sbin/sshd")
    tuned, bpftune = find_rivals(tmp_path)
    assert tuned.startswith("TuneD is running as pid 7")
    assert bpftune.startswith("another bpftune is running as pid 30")


def test_we_are_not_our_own_rival(tmp_path: Path) -> None:
    process(tmp_path, 5, "bpftune", "/usr/bin/python3.11")
    (tmp_path / "self").mkdir()
    assert not find_rivals(tmp_path)


def test_a_process_that_just_ended_is_no_rival(tmp_path: Path) -> None:
    (tmp_path / "9").mkdir()
    process(tmp_path, 10, "bpftune", None)
    assert not find_rivals(tmp_path)
