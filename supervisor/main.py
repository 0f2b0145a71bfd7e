# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the `bpftune` command begins: what must come before anything is imported or opened."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    _fill_standard_descriptors()
    # Until the daemon takes signals, Ctrl-C just ends us; Python would show where it was importing.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bpftune.supervisor.command import run  # noqa: PLC0415 - takes a tenth of a second

    sys.exit(run(sys.argv[1:]))


def _fill_standard_descriptors() -> None:
    """A closed 0, 1 or 2 would be given to the next file opened, and a log line written into it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
