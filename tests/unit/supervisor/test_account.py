# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from bpftune.ipc.errors import NotSupported
from bpftune.supervisor.account import find_account


def test_the_first_user_there_is() -> None:
    assert find_account(["no-such-user", "nobody", "daemon"]).name == "nobody"


def test_root_is_never_taken() -> None:
    with pytest.raises(NotSupported, match="unprivileged"):
        find_account(["root"])
