# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls behind netns.py: enter a network namespace, ask its cookie, open it by cookie.

Called by netns.py only. Nothing here remembers a namespace. setns(2) moves the calling thread, so
all of it belongs to the supervisor's one thread.
"""

from __future__ import annotations

import ctypes
import os
import socket

CLONE_NEWNET = 0x40000000

# include/uapi/asm-generic/socket.h, "net: retrieve netns cookie via getsocketopt" (in v5.14).
# Python's socket module does not have it.
SO_NETNS_COOKIE = 71

# include/uapi/linux/fcntl.h and exportfs.h, for file handles of namespaces (in v6.18).
FD_NSFS_ROOT = -10003
FILEID_NSFS = 0xF1

_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


class _NsfsHandle(ctypes.Structure):
    """struct file_handle with a struct nsfs_file_handle in it."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("ns_id", ctypes.c_uint64),
        ("ns_type", ctypes.c_uint32),
        ("ns_inum", ctypes.c_uint32),
    )


def open_own() -> int:
    """A descriptor of the calling thread's network namespace. OSError."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def unshare() -> None:
    """Put the calling thread into a new network namespace of its own. Raises OSError."""
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace that `fd` names. OSError."""
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise _os_error()


def read_cookie() -> int:
    """The cookie of the calling thread's network namespace. OSError (ENOPROTOOPT before v5.14)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")


def open_by_cookie(cookie: int, inum: int) -> int:
    """A descriptor of the namespace with this cookie, wherever it is mounted or used.

    OSError: ESTALE when it is gone; EBADF and others on kernels without such handles.
    """
    handle = _NsfsHandle(16, FILEID_NSFS, cookie, CLONE_NEWNET, inum)
    fd = _libc.open_by_handle_at(FD_NSFS_ROOT, ctypes.byref(handle), os.O_RDONLY | os.O_CLOEXEC)
    if fd < 0:
        raise _os_error()
    return int(fd)


def cookies_open_namespaces(cookie: int, inum: int) -> bool:
    """Whether `open_by_cookie` works here, tried on the calling thread's own namespace."""
    try:
        fd = open_by_cookie(cookie, inum)
    except (OSError, AttributeError):  # AttributeError: a C library without open_by_handle_at
        return False
    try:
        return os.fstat(fd).st_ino == inum
    finally:
        os.close(fd)


def _os_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
