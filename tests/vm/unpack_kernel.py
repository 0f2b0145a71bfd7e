# SPDX-License-Identifier: GPL-2.0-or-later
"""unpack_kernel.py BZIMAGE VMLINUX: the ELF file inside a bzImage, which QEMU starts by PVH.

build-image calls it. The payload is found by its magic, as the kernel's scripts/extract-vmlinux does.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

XZ = b"\xfd7zXZ\x00"
ZSTD = b"\x28\xb5\x2f\xfd"
ELF = b"\x7fELF"


def unpack(image: bytes) -> bytes:
    """Of an xz payload (Debian 12) or a zstd one; ValueError when there is neither."""
    for magic, decompress in ((XZ, _unxz), (ZSTD, _unzstd)):
        start = image.find(magic)
        if start > 0 and (found := decompress(image[start:])).startswith(ELF):
            return found
    raise ValueError("no compressed ELF file in it")


def _unxz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _unzstd(data: bytes) -> bytes:
    """zstd complains about what follows the payload, after it has written all of it."""
    argv = ["zstd", "-dcq"]
    return subprocess.run(
        argv, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    ).stdout


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(unpack(Path(sys.argv[1]).read_bytes()))
