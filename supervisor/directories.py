# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's own directories: state and run. Made where they are missing, never emptied."""

from __future__ import annotations

from pathlib import Path

from bpftune.ipc.errors import BpftuneError


def make_directory(path: Path, *, mode: int) -> None:
    """`mode` counts where it is made. Raises BpftuneError when there cannot be such a directory."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise BpftuneError(f"cannot make directory {path}: {error.strerror}") from error
