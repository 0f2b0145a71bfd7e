# SPDX-License-Identifier: GPL-2.0-or-later
"""The cached machines of `make test-vm`: where they are, and that they are up to date.

One folder per Debian release below BPFTUNE_VM_CACHE (default: bpftune-vm in the user's cache folder).
`build-image` fills it and decides whether it must be built anew.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BUILD = Path(__file__).with_name("build-image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A machine that can be booted; nothing ever writes to it."""

    suite: str
    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "root.ext4"

    @property
    def vmlinux(self) -> Path:
        return self.directory / "vmlinux"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def kernel(self) -> str:
        return (self.directory / "kernel").read_text().strip()


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    if chosen := environ.get("BPFTUNE_VM_CACHE"):
        return Path(chosen)
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpftune-vm"


def ready_image(suite: str) -> Image:
    """Build what is missing; CalledProcessError when that failed, after build-image said why."""
    directory = cache_root() / suite
    subprocess.run([BUILD, suite, directory], check=True, stdin=subprocess.DEVNULL)
    return Image(suite=suite, directory=directory)
