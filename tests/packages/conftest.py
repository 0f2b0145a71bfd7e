# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make install` would put into a system, staged once for all tests of this folder.

Tests marked `packages` build packages and install them, which takes minutes: `make test-packages` runs
them, `make test` does not.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.requirements import require, require_command

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/usr"


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DESTDIR of an installation below /usr."""
    require_command("go-md2man")
    require((ROOT / ".venv").exists(), "needs .venv in the checkout: tools/setup test")
    destdir = tmp_path_factory.mktemp("staged")
    run("tools/install", str(destdir), PREFIX)
    return destdir


def run(*argv: str, **environment: str) -> str:
    """In the checkout; what went wrong is the failure's message."""
    done = subprocess.run(
        ["env", *(f"{name}={value}" for name, value in environment.items()), *argv],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout}", pytrace=False)
    return done.stdout
