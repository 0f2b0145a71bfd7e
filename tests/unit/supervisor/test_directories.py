# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest

from bpftune.ipc.errors import BpftuneError
from bpftune.supervisor.account import Account
from bpftune.supervisor.directories import require_passage


@pytest.fixture
def below(tmp_path: Path) -> Path:
    """A directory in one whose mode the test chooses."""
    path = tmp_path / "middle" / "run"
    path.mkdir(parents=True)
    return path


def test_a_parent_that_keeps_the_workers_out_is_named(below: Path) -> None:
    below.parent.chmod(0o700)
    with pytest.raises(BpftuneError) as caught:
        require_passage(below, Account(name="nobody", uid=65534, gid=65534))
    assert str(caught.value).startswith(f"cannot use {below}: workers, user 'nobody', may not enter /")


@pytest.mark.parametrize(("mode", "uid", "gid"), [(0o700, 0, 1), (0o710, 1, 0), (0o711, 1, 1)])
def test_owner_group_and_others_have_rights_of_their_own(
    below: Path, mode: int, uid: int, gid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of one folder only: who may enter those above depends on the machine."""
    below.chmod(mode)
    owner = below.stat()
    account = Account(name="worker", uid=owner.st_uid + uid, gid=owner.st_gid + gid)
    monkeypatch.setattr(Path, "parents", property(lambda path: ()))
    require_passage(below, account)
    below.chmod(mode & ~0o111)
    with pytest.raises(BpftuneError, match="may not enter"):
        require_passage(below, account)


def test_the_usual_place_is_passable() -> None:
    require_passage(Path(os.sep), Account(name="nobody", uid=65534, gid=65534))
