# SPDX-License-Identifier: GPL-2.0-or-later
"""stdout and stderr of bpftune-ctl. A reader that went away (`| head`) is no error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from bpftune.ipc.errors import BpftuneError
from bpftune.ipc.printable import printable


class ReaderGone(Exception):
    """Nobody reads stdout any more."""


def write_lines(lines: Iterable[str]) -> None:
    """All lines at once. Raises ReaderGone, or BpftuneError when stdout takes no more (a full disk)."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except BrokenPipeError as error:
        _discard_stdout()
        raise ReaderGone from error
    except OSError as error:
        _discard_stdout()
        raise BpftuneError(f"cannot write to stdout: {error.strerror}") from error


def write_error(message: str) -> None:
    if sys.stderr is None:
        return
    try:
        print(f"bpftune-ctl: {printable(message)}", file=sys.stderr, flush=True)
    except OSError:
        return  # nowhere left to complain to


def make_encodable() -> None:
    """What the locale cannot encode is shown as an escape instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # always a text file


def stdout_fd() -> int | None:
    return None if sys.stdout is None else sys.stdout.fileno()


def _discard_stdout() -> None:
    """Keep the interpreter from flushing into the broken stdout again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
