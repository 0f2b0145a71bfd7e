# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell commands that list what can be offered for a value, at the moment of asking.

Tuners are read from their folders: that needs no daemon, no permission and no time. Commands are for sh
and print one word a line.
"""

from __future__ import annotations

from bpftune.supervisor.folders import LOCAL_DIR
from tools.completions.model import RATES, Value

CHANGES_OFFERED = 20


def listing(value: Value, prefix: str) -> str | None:
    """None where the shell lists directories itself, or where nothing can be offered."""
    match value:
        case Value.TUNER:
            return _tuners(prefix)
        case Value.CHANGE:
            return _changes()
        case Value.TARGET:
            return f"echo all; {_tuners(prefix)}; {_changes()}"
        case Value.NETNS:
            return "ls /run/netns 2>/dev/null"
        case Value.RATE:
            return f"printf '%s\\n' {' '.join(RATES)}"
        case Value.DIRECTORY | Value.NUMBER:
            return None


def _tuners(prefix: str) -> str:
    folders = (f"{prefix}/lib/bpftune/python/bpftune/tuners", str(LOCAL_DIR))
    return f"find {' '.join(folders)} -mindepth 2 -maxdepth 2 -name tuner.toml 2>/dev/null | {_FOLDER_NAME}"


def _changes() -> str:
    return f"bpftune-ctl --timeout 1 history -n {CHANGES_OFFERED} 2>/dev/null | {_FIRST_NUMBER}"


_FOLDER_NAME = "sed 's|/tuner.toml$||; s|.*/||' | sort -u"
_FIRST_NUMBER = "sed -n 's/^ *\\([0-9]\\{1,\\}\\) .*/\\1/p'"
