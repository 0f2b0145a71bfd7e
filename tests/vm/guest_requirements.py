# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints what pip must download for the guest: what pyproject.toml asks for, less what the guest has
from Debian and less the linters. build-image calls it with the host's Python."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
FROM_DEBIAN = {"psutil", "pyzmq", "systemd-python"}
LINTERS = {"mypy", "ruff", "types-psutil"}


def guest_requirements(pyproject: str) -> list[str]:
    """Requirements as pip takes them, build tools included: the guest installs the project itself."""
    data = tomllib.loads(pyproject)
    project = data["project"]
    wanted = [*data["build-system"]["requires"], "wheel", *project["dependencies"]]
    wanted += project["optional-dependencies"]["dev"]
    return [one for one in wanted if _name(one) not in FROM_DEBIAN | LINTERS]


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None, requirement
    return found[0].lower()


if __name__ == "__main__":
    print("\n".join(guest_requirements(PYPROJECT.read_text())))
