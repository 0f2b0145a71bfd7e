# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from bpftune.supervisor.sysctl_writer import describe_writer


def described(root: Path, *, uid: int = 0) -> str:
    return str(
        describe_writer(pid=12, uid=uid, comm="sysctl", proc_root=root / "proc", passwd=root / "passwd")
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/12").mkdir(parents=True)
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/:/bin/sh\n")
    return tmp_path


def test_the_first_argument(root: Path) -> None:
    (root / "proc/12/cmdline").write_bytes(b"/usr/sbin/sysctl\0-w\0a=b\0")
    assert described(root) == "pid 12, cmd '/usr/sbin/sysctl', user 'root'"


def test_a_process_that_is_gone_has_its_comm(root: Path) -> None:
    assert described(root, uid=1000) == "pid 12, cmd 'sysctl', user 'alice'"


def test_a_user_without_a_name(root: Path) -> None:
    assert described(root, uid=4711).endswith("user '4711'")
    (root / "passwd").unlink()
    assert described(root).endswith("user '0'")


def test_a_process_cannot_forge_the_log(root: Path) -> None:
    (root / "proc/12/cmdline").write_bytes(b"x'\n\x1b[31m disabling \xff" + b"y" * 200 + b"\0")
    line = described(root)
    assert line.count("'") == 4
    assert line.isprintable()
    assert len(line) < 120
