# SPDX-License-Identifier: GPL-2.0-or-later
"""Text that others chose (command names, namespace names, messages of workers), made safe to show.

The logger passes every line through here so that nobody forges a second line, and bpftune-ctl so that
nobody sends escape sequences to an administrator's terminal.
"""

from __future__ import annotations

import os
import re

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 controls, line and paragraph separators, bidirectional overrides, lone surrogates."""


def printable(text: str) -> str:
    """`text` on one line: every control character becomes a visible \\x or \\u escape."""
    return _CONTROLS.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def show_path(path: str | os.PathLike[str]) -> str:
    """A path, or text with one in it: bytes that are no UTF-8, which no message can carry, become escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")
