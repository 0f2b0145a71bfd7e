# SPDX-License-Identifier: GPL-2.0-or-later
"""What a compiled unit depends on, as checksums: kernel, compiler, our own generator, the source.

The kernel's build id (in /sys/kernel/notes) stands for its BTF, which is thousands of times longer.
Nothing here imports BCC: finding its files is enough. CRCs tell one state of a machine from the
next, and only root could make two of them agree on purpose; hashlib would load OpenSSL, 2 MB.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from bpftune.bpf.unit import Unit

NOTES = Path("/sys/kernel/notes")
SYSTEM_PYTHON = "/usr/bin/python3"
_BPF = Path(__file__).parent
_GENERATOR = ("btf.py", "layout.py", "compiler.py", "unit.py")
"""Modules whose code shapes what the child makes of a unit; the rest shapes the unit itself."""
_LIBBCC = ("usr/lib/*/libbcc.so.0", "usr/lib64/libbcc.so.0", "usr/lib/libbcc.so.0")
_DISTRIBUTION_PACKAGES = ("usr/lib/python3/dist-packages", "usr/lib/python3*/site-packages")


def environment_checksum(*, notes: Path = NOTES, root: Path = Path("/")) -> int:
    """Everything but the unit."""
    return zlib.crc32(b"\0".join(_environment(notes, root)))


def unit_key(environment: int, unit: Unit) -> str:
    """`environment` is an `environment_checksum`."""
    text = json.dumps(unit.as_json(), sort_keys=True)
    return f"{environment:08x}{zlib.crc32(text.encode()):08x}"


def compiler_python() -> str:
    """An interpreter that can import BCC: this one, else the distribution's, which it is built for."""
    return sys.executable if importlib.util.find_spec("bcc") else SYSTEM_PYTHON


def _environment(notes: Path, root: Path) -> Iterator[bytes]:
    system = os.uname()
    yield from (text.encode() for text in (system.release, system.version, system.machine))
    yield notes.read_bytes()
    for path in (*(_BPF / name for name in _GENERATOR), *_shim_files()):
        yield str(path.relative_to(_BPF)).encode()
        yield path.read_bytes()
    for path in _bcc_files(root):
        status = path.stat()
        yield f"{path} {status.st_mtime_ns} {status.st_size}".encode()


def _shim_files() -> list[Path]:
    return sorted((_BPF / "shim").rglob("*.h"))


def _bcc_files(root: Path) -> Iterator[Path]:
    """BCC's Python, whose version.py moves with every release, and its library."""
    for packages in _DISTRIBUTION_PACKAGES:
        yield from sorted(root.glob(f"{packages}/bcc/version.py"))
        yield from sorted(root.glob(f"{packages}/bcc/__init__.py"))
    for pattern in _LIBBCC:
        for library in sorted(root.glob(pattern)):
            yield library.resolve()
