# SPDX-License-Identifier: GPL-2.0-or-later
"""What of root's power is missing, by the words of /proc/self."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bpftune.ipc.errors import NotPermitted
from bpftune.supervisor.privileges import check_privileges

INITIAL = "         0          0 4294967295\n"
ALL, DOCKER_DEFAULT = "000001ffffffffff", "00000000a80425fb"


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def proc_self(
    folder: Path, *, uid_map: str = INITIAL, effective: str = ALL, pid_namespace: int = 4026531836
) -> Path:
    (folder / "ns").mkdir()
    (folder / "ns/pid").symlink_to(f"pid:[{pid_namespace}]")
    (folder / "uid_map").write_text(uid_map)
    (folder / "status").write_text(f"Name:\tbpftune\nCapPrm:\t{ALL}\nCapEff:\t{effective}\n")
    return folder


def test_root_of_the_host(tmp_path: Path) -> None:
    check_privileges(proc_self(tmp_path))


def test_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(NotPermitted, match="bpftune needs root: "):
        check_privileges(proc_self(tmp_path))


def test_root_of_a_user_namespace(tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match="root of the host"):
        check_privileges(proc_self(tmp_path, uid_map="0 100000 65536\n"))


def test_root_without_capabilities(tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match="needs CAP_NET_ADMIN, CAP_SYS_ADMIN, which this process"):
        check_privileges(proc_self(tmp_path, effective=DOCKER_DEFAULT))


def test_root_among_other_pids(tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match="needs the host's pid namespace"):
        check_privileges(proc_self(tmp_path, pid_namespace=4026532221))
