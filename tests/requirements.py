# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test needs from the machine: absent, it is a skip with its reason, or a failure in CI.

BPFTUNE_TESTS_STRICT=1, which .ci/run sets, is the switch: there a skip would hide a missing
privilege or hook for ever. BPFTUNE_TESTS_EVERY_RUNG=1, which `make test-vm` sets, goes for kernels
that are known to accept every type of program.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

STRICT = os.environ.get("BPFTUNE_TESTS_STRICT") == "1"
EVERY_RUNG = os.environ.get("BPFTUNE_TESTS_EVERY_RUNG") == "1"


def require(met: object, reason: str) -> None:
    """Go on when `met` is true; else skip with `reason`, or fail with it under the switch."""
    if met:
        return
    if STRICT:
        pytest.fail(f"required here (BPFTUNE_TESTS_STRICT=1): {reason}", pytrace=False)
    pytest.skip(reason)


def require_since(version: tuple[int, int], met: object, reason: str) -> None:
    """As `require`, but for what no kernel before `version` has: there it is a skip in CI as well."""
    release = os.uname().release
    if not met and kernel_version(release) < version:
        pytest.skip(f"{reason}: in Linux {version[0]}.{version[1]} and later, this is {release}")
    require(met, reason)


def has_late_callbacks() -> bool:
    """Whether BPF may ask for a connection's sockops callbacks at any time, not only where one is called."""
    return b"TCP_BPF_SOCK_OPS_CB_FLAGS" in Path("/sys/kernel/btf/vmlinux").read_bytes()


def require_late_callbacks() -> None:
    require_since((6, 12), has_late_callbacks(), "needs callbacks of connections that are there already")


def require_rung(met: object, reason: str) -> None:
    """Skip with the kernel's own reason for refusing a hook, unless it is known to accept all."""
    if met:
        return
    if EVERY_RUNG:
        pytest.fail(f"required here (BPFTUNE_TESTS_EVERY_RUNG=1): {reason}", pytrace=False)
    pytest.skip(reason)


def is_locked_down() -> bool:
    """For confidentiality: then no program may read the kernel's memory through a helper."""
    try:
        return "[confidentiality]" in Path("/sys/kernel/security/lockdown").read_text()
    except OSError:
        return False


def refused_by_lockdown() -> set[tuple[str, str]]:
    """Tuners and their probes that have no other way than to read memory through a helper."""
    return {("tcp_conn", "gateway")} if is_locked_down() else set()


def require_kernel_memory() -> None:
    require_rung(not is_locked_down(), "lockdown=confidentiality refuses programs that may read all memory")


def kernel_version(release: str) -> tuple[int, int]:
    """Of `uname -r`. For tests: the code itself never compares versions."""
    major, minor = release.split(".")[:2]
    return int(major), int(minor.partition("-")[0])


def require_root() -> None:
    require(os.geteuid() == 0, "needs root")


def require_command(name: str) -> str:
    """The path of a command that Debian may lack."""
    path = shutil.which(name)
    require(path, f"needs the command {name}")
    return str(path)
