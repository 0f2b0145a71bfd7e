# SPDX-License-Identifier: GPL-2.0-or-later
"""The counts that a tuner's scenarios name, read in a namespace when an event is handed over.

Called for every delivered event, so a scenario that names none costs a look-up, and a file that
serves several counters is read once. It knows nothing about what a count means.
"""

from __future__ import annotations

import re
from pathlib import Path

from bpftune.ipc.declaration import Counter, Declaration
from bpftune.ipc.errors import BpftuneError
from bpftune.supervisor.netns import NetnsRegistry


class Counters:
    def __init__(self, *, registry: NetnsRegistry, root: Path = Path("/")) -> None:
        self._registry = registry
        self._root = root

    def read(self, declaration: Declaration, scenario_id: str, cookie: int) -> dict[str, int]:
        """The scenario's counters by name; empty when the namespace is gone."""
        named = declaration.scenarios_by_id[scenario_id].counters
        if not named:
            return {}
        try:
            with self._registry.enter(cookie):
                return read_counters([declaration.counters_by_name[name] for name in named], self._root)
        except BpftuneError:
            return {}


def read_counters(counters: list[Counter], root: Path = Path("/")) -> dict[str, int]:
    """In the calling thread's namespace; absent is what that has no file or no number for."""
    texts = {file: _read(root / file.lstrip("/")) for file in {counter.file for counter in counters}}
    found = {counter.name: _find(counter, texts[counter.file]) for counter in counters}
    return {name: sum(map(int, numbers)) for name, numbers in found.items() if numbers}


def _find(counter: Counter, text: str) -> list[str]:
    if counter.match:
        return re.findall(counter.match, text, re.MULTILINE)
    table, column = counter.column.split()
    rows = [line.split() for line in text.splitlines() if line.startswith(f"{table}: ")]
    if len(rows) != 2 or column not in rows[0]:
        return []
    return rows[1][rows[0].index(column) :][:1]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
