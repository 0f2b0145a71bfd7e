# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package's life on a running system: tests/packages/deb_lifecycle does the checking."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_it_is_installed_upgraded_removed_and_purged(tmp_path: Path) -> None:
    # On a disk of its own: the shared folder has no owners that apt would accept.
    first, second = (
        shutil.copy(package, tmp_path) for package in sorted(Path(os.environ["VM_SHARE"]).glob("*.deb"))
    )

    done = subprocess.run(
        ["sh", ROOT / "tests/packages/deb_lifecycle", first, second],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("deb_lifecycle: all checks passed\n")
