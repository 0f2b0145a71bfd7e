# SPDX-License-Identifier: GPL-2.0-or-later
"""Saves the initial namespace's sysctls that any tuner declares, and puts them back.

The copy is a file in /run, which a crash of the test run survives and a reboot (after which the
kernel has its own values) does not. A run that finds the file restores from it first. A lock keeps
two runs on one machine from restoring over each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.kernel.namespaces import sysctl_path

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = Path("/run/bpftune-tests")


@contextlib.contextmanager
def guarded(keys: Iterable[str], directory: Path = DIRECTORY) -> Iterator[dict[str, str]]:
    """Inside the block tests may write `keys`; their values before it hold again after it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    saved = directory / "sysctls.json"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if saved.exists():
            restore(json.loads(saved.read_text()))
        before = read(keys)
        saved.write_text(encode(before))
        try:
            yield before
        finally:
            restore(before)
            saved.unlink()


def read(keys: Iterable[str]) -> dict[str, str]:
    """The raw text of each sysctl that this kernel has."""
    paths = {key: sysctl_path(key) for key in keys}
    return {key: path.read_text() for key, path in paths.items() if path.exists()}


def restore(values: dict[str, str]) -> list[str]:
    """Write back what differs; the keys that did."""
    changed = [key for key, text in read(values).items() if text != values[key]]
    for key in changed:
        sysctl_path(key).write_text(values[key])
    return changed


def encode(values: dict[str, str]) -> str:
    """The text of the saved copy."""
    return json.dumps(values)


def declared_sysctls(roots: Iterable[Path] = (ROOT / "tuners", ROOT / "docs")) -> list[str]:
    """Every sysctl named as a tunable in a tuner.toml below `roots`."""
    names: set[str] = set()
    for root in roots:
        for path in root.rglob("tuner.toml"):
            tunables = tomllib.loads(path.read_text()).get("tunables", [])
            names.update(tunable["name"] for tunable in tunables if tunable.get("writer") != "socket")
    return sorted(names)
