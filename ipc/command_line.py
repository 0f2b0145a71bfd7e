# SPDX-License-Identifier: GPL-2.0-or-later
"""The argparse parser of both commands: wrong use is a UsageError of one line, never a usage dump.

`-h` and `-V` print and end the process with 0, as argparse does.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from bpftune.ipc.errors import UsageError
from bpftune.ipc.printable import show_path


class CommandLine(argparse.ArgumentParser):
    """No abbreviated options: what a script says today must not change its meaning tomorrow."""

    def __init__(self, **settings: object) -> None:
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)  # type: ignore[arg-type]  # argparse's own keywords

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


def utf8(text: str) -> str:
    """An argument that goes into messages, which carry UTF-8 only."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"'{show_path(text)}' is not UTF-8") from None
    return text
