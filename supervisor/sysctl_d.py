# SPDX-License-Identifier: GPL-2.0-or-later
"""Which sysctls the administrator sets in files, read the way sysctl.d(5) says.

What `read_sysctl_d` finds at start decision.py leaves alone, in every namespace, because a new
namespace starts out with the values of the initial one. /etc/sysctl.d, /run/sysctl.d and
/etc/sysctl.conf count. /usr/lib/sysctl.d does not: it holds the distribution's guesses, which are
exactly what is there to be tuned. Nothing here reads or writes /proc/sys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

_FOLDERS = ("etc/sysctl.d", "run/sysctl.d")  # the first one masks files of the same name in the second
_VENDOR_FOLDERS = ("usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
_SYSCTL_CONF = "etc/sysctl.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    value: str
    file: str
    """Where it stands, as an absolute path below the root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    key: str
    """With slashes between its parts, as below /proc/sys."""
    value: str | None
    """None: `-key` alone, which keeps globs from setting the key."""


class AdministratorSettings:
    """The settings that files make."""

    def __init__(self, lines: Mapping[str, list[Line]]) -> None:
        """`lines` by file, in the order in which the files apply."""
        self._exact: dict[str, Setting | None] = {}
        self._globs: list[tuple[str, Setting]] = []
        for file, found in lines.items():
            for line in found:
                self._add(line, file)

    def find(self, name: str) -> Setting | None:
        """The setting of a sysctl by its dotted kernel name; explicit ones win over globs."""
        path = name.replace(".", "/")
        if path in self._exact:
            return self._exact[path]
        matching = [setting for pattern, setting in self._globs if _matches(path, pattern)]
        return matching[-1] if matching else None

    def _add(self, line: Line, file: str) -> None:
        if line.value is None:
            self._exact.setdefault(line.key, None)
        elif _is_glob(line.key):
            self._globs.append((line.key, Setting(value=line.value, file=file)))
        else:
            self._exact[line.key] = Setting(value=line.value, file=file)


def read_sysctl_d(root: Path = Path("/")) -> AdministratorSettings:
    """Files that cannot be read are as good as absent: systemd-sysctl cannot apply them either."""
    return _read_folders(root, _FOLDERS)


def read_all_sysctl_d(root: Path = Path("/")) -> AdministratorSettings:
    """The distribution's as well: all that `sysctl --system` applies."""
    return _read_folders(root, (*_FOLDERS, *_VENDOR_FOLDERS))


def _read_folders(root: Path, folders: Sequence[str]) -> AdministratorSettings:
    files: dict[str, Path] = {}
    for folder in folders:
        for path in _conf_files(root / folder):
            files.setdefault(path.name, path)
    # procps applies sysctl.conf last; systemd-sysctl only where a link in sysctl.d leads to it.
    ordered = [files[name] for name in sorted(files)] + [root / _SYSCTL_CONF]
    return AdministratorSettings({f"/{path.relative_to(root)}": _read(path) for path in ordered})


def parse_sysctl_conf(text: str) -> list[Line]:
    """The settings in one file, in order; comments and lines without a meaning are left out."""
    lines = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        key, equals, value = line.partition("=")
        ignore_errors = key.startswith("-")
        key = normalize_key(key.removeprefix("-").strip())
        if key and (equals or ignore_errors):
            lines.append(Line(key=key, value=value.strip() if equals else None))
    return lines


def normalize_key(key: str) -> str:
    """`net.ipv4.conf.eth0/1.forwarding` or `net/ipv4/conf/eth0.1/forwarding` -> the latter.

    When the first separator is a dot, dots and slashes are exchanged.
    """
    first = re.search(r"[./]", key)
    if first is not None and first.group() == ".":
        key = key.translate(str.maketrans("./", "/."))
    return key.strip("/")


def _conf_files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.conf"))
    except OSError:
        return []


def _read(path: Path) -> list[Line]:
    try:
        return parse_sysctl_conf(path.read_text(errors="replace"))
    except OSError:
        return []


def _is_glob(key: str) -> bool:
    return any(character in key for character in "*?[")


def _matches(path: str, pattern: str) -> bool:
    """glob(7) over /proc/sys: a wildcard does not reach across a slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
