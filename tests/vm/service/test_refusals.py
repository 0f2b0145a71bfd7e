# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that cannot be tuned: one line that says why, and the exit code of it."""

from __future__ import annotations

import subprocess

import pytest

from tests.vm.service import unit

NOT_SUPPORTED = 69
NOT_PERMITTED = 4


def in_namespaces(*arguments: str, prepare: str, command: str) -> subprocess.CompletedProcess[str]:
    return unit.run("unshare", *arguments, "sh", "-c", f"{prepare}; exec {command}")


@pytest.mark.parametrize("arguments", ["-s", "-S"])
def test_a_kernel_without_btf(installed: None, arguments: str) -> None:
    done = in_namespaces(
        "--mount",
        prepare="mount -t tmpfs none /sys/kernel/btf",
        command=f"{unit.BPFTUNE} {arguments}",
    )

    assert done.returncode == NOT_SUPPORTED
    assert done.stderr == (
        "bpftune: this kernel has no BTF: /sys/kernel/btf/vmlinux is missing (CONFIG_DEBUG_INFO_BTF)\n"
    )


@pytest.mark.parametrize("arguments", ["-s", "-S"])
def test_an_unprivileged_container(installed: None, arguments: str) -> None:
    """Root there is nobody outside: it may neither load programs nor write sysctls."""
    done = in_namespaces(
        *("--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--cgroup"),
        prepare="mount -t tmpfs none /run; mount -t tmpfs none /var/lib",
        command=f"{unit.BPFTUNE} {arguments}",
    )

    assert done.returncode in (NOT_PERMITTED, NOT_SUPPORTED), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("bpftune: ")
