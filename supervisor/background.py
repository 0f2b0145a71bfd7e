# SPDX-License-Identifier: GPL-2.0-or-later
"""-D/--daemon: go to the background, and tell the one who waits whether the start succeeded."""

from __future__ import annotations

import os
import sys

FAILED = 1


class Background:
    """Made before anything is opened. The calling process stays until `ready`, or ends with what the
    daemon ended with before that; only the daemon returns from here."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        child = os.fork()
        if child != 0:
            os.close(self._writing)
            started = os.read(reading, 1) == b"1"
            sys.exit(0 if started else _exit_code(child))
        os.close(reading)
        os.setsid()
        os.chdir("/")

    def ready(self) -> None:
        """The terminal is let go of only now, so that it shows what goes wrong before."""
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        os.write(self._writing, b"1")
        os.close(self._writing)


def _exit_code(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return max(FAILED, os.waitstatus_to_exitcode(status))
