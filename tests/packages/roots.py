# SPDX-License-Identifier: GPL-2.0-or-later
"""A fresh minimal Debian to install packages into. Made once per suite and kept in build/roots/."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.packages.conftest import ROOT, run
from tests.requirements import require_command, require_root

CACHE = ROOT / "build/roots"


def unpack_root(suite: str, where: Path) -> Path:
    """Needs root, for what the chroot is made of and for entering it."""
    require_root()
    require_command("mmdebstrap")
    tar = CACHE / f"{suite}.tar"
    if not tar.exists():
        run("tests/packages/debian_root", suite, str(tar))
    root = where / suite
    root.mkdir()
    run("tar", "--extract", "--numeric-owner", f"--file={tar}", f"--directory={root}")
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    return root


def run_in(root: Path, *argv: str) -> str:
    """In namespaces of its own: what it mounts and starts ends with it."""
    return run("unshare", "--mount", "--pid", "--fork", f"--root={root}", "--mount-proc", *argv)


def succeeds_in(root: Path, *argv: str) -> bool:
    return subprocess.run(["chroot", str(root), *argv], capture_output=True, check=False).returncode == 0
