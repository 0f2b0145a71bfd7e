# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test needs from the machine: absent, it is a skip with its reason, or a failure in CI.

BPFTUNE_TESTS_STRICT=1, which .ci/run sets, is the switch: there a skip would hide a missing
privilege or hook for ever.
"""

from __future__ import annotations

import os
import shutil

import pytest

STRICT = os.environ.get("BPFTUNE_TESTS_STRICT") == "1"


def require(met: object, reason: str) -> None:
    """Go on when `met` is true; else skip with `reason`, or fail with it under the switch."""
    if met:
        return
    if STRICT:
        pytest.fail(f"required here (BPFTUNE_TESTS_STRICT=1): {reason}", pytrace=False)
    pytest.skip(reason)


def require_root() -> None:
    require(os.geteuid() == 0, "needs root")


def require_command(name: str) -> str:
    """The path of a command that Debian may lack."""
    path = shutil.which(name)
    require(path, f"needs the command {name}")
    return str(path)
