# SPDX-License-Identifier: GPL-2.0-or-later
"""pytest plugin: two machines share the modules of one run, each takes the next that nobody has.

Loaded with `-p tests.vm.claims` in the guest. A machine whose VM_ORDER is `reversed` starts from the
other end, so that the two meet somewhere in the middle and end at about the same time.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARE = Path(os.environ["VM_SHARE"])
RESULTS = Path(os.environ["VM_RESULTS"])
_ours: dict[Path, bool] = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules in order; within one the tests stay as they are. Writes down how many are to be run."""
    (RESULTS / "collected").write_text(str(len(items)))
    items.sort(key=lambda item: item.path, reverse=os.environ.get("VM_ORDER") == "reversed")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """True: done with this test, without a word, since the other machine runs it."""
    return None if _is_ours(item.path) else True


def _is_ours(module: Path) -> bool:
    if module not in _ours:
        claims = SHARE / "claims"
        claims.mkdir(exist_ok=True)
        try:
            (claims / module.relative_to(Path.cwd()).as_posix().replace("/", "-")).mkdir()
            _ours[module] = True
        except FileExistsError:
            _ours[module] = False
    return _ours[module]
