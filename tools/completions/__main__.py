# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell completions of both commands: `python -m tools.completions SHAREDIR PREFIX`, called by tools/install.

SHAREDIR is where they are written now, PREFIX where bpftune's own files will be when they are used.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.completions import bash, fish, zsh
from tools.completions.model import read_commands


def main(share: Path, prefix: str) -> None:
    for command in read_commands():
        files = {
            Path("bash-completion/completions") / command.name: bash.script(command, prefix),
            Path("zsh/site-functions") / f"_{command.name}": zsh.script(command, prefix),
            Path("fish/vendor_completions.d") / f"{command.name}.fish": fish.script(command, prefix),
        }
        for path, text in files.items():
            target = share / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
