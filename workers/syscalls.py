# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls that give up rights and that Python 3.11 does not wrap.

Called by the fork server and, in the child, by confinement.py. Every call applies to the calling
thread only, so they must come before ZeroMQ starts its threads.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Callable
from typing import Any

_CLONE_NEWNET = 0x40000000  # linux/sched.h

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_LINUX_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_NO_CAPABILITIES = bytes(2 * struct.calcsize("=III"))

_libc = ctypes.CDLL(None, use_errno=True)


def name_process(name: str) -> None:
    """What ps(1) and our own names of namespaces show; cut off after 15 bytes (prctl(2))."""
    _call("name the process", _libc.prctl, _PR_SET_NAME, name.encode(), *[ctypes.c_ulong(0)] * 3)


def unshare_network() -> None:
    """Move the process into a new network namespace that has nothing but a loopback that is down."""
    _call("unshare the network namespace", _libc.unshare, _CLONE_NEWNET)


def die_with_parent(parent_pid: int) -> None:
    """SIGKILL us when `parent_pid` ends; exit at once if it already has.

    A change of credentials clears this (prctl(2), PR_SET_PDEATHSIG), so it is repeated after one.
    """
    _prctl("set the parent death signal", _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def forbid_new_privileges() -> None:
    """No execve can give rights back."""
    _prctl("set no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def forbid_tracing() -> None:
    """Workers share one uid; none may ptrace another or read its memory."""
    _prctl("clear the dumpable flag", _PR_SET_DUMPABLE, 0)


def drop_bounding_set() -> None:
    """Take every capability out of the bounding set, as far as we may (it needs CAP_SETPCAP)."""
    for capability in range(64):
        try:
            _prctl("drop a capability", _PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            return  # past the kernel's last capability, or not allowed; no_new_privs remains


def clear_capabilities() -> None:
    """Empty the ambient, inheritable, permitted and effective sets."""
    _prctl("clear the ambient set", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    _call("clear the capability sets", _libc.capset, header, _NO_CAPABILITIES)


def _prctl(what: str, option: int, argument: int) -> None:
    # The kernel refuses garbage in the unused arguments of some options: pass all five, as longs.
    rest = (ctypes.c_ulong(0),) * 3
    _call(what, _libc.prctl, option, ctypes.c_ulong(argument), *rest)


def _call(what: str, function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}")
