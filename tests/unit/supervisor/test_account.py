# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import grp
import pwd

import pytest

from bpftune.ipc.errors import NotSupported
from bpftune.supervisor.account import find_account


def test_the_first_user_there_is() -> None:
    assert find_account(["no-such-user", "nobody", "daemon"]).name == "nobody"


def test_root_is_never_taken() -> None:
    with pytest.raises(NotSupported, match="unprivileged"):
        find_account(["root"])


def test_the_group_is_not_the_user_s_own() -> None:
    """Whoever is in group bpftune may use the control socket; workers may not."""
    own = pwd.getpwnam("daemon").pw_gid
    assert find_account(["daemon"]).gid == grp.getgrnam("nogroup").gr_gid != own


def test_a_group_without_a_name_will_do() -> None:
    assert find_account(["daemon"], groups=["no-such-group", "root"]).gid == 65534
