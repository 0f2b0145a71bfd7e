# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles a policy in a child, which takes the compiler's memory with it.

Called by host.py, unprivileged and before ZeroMQ has threads. Compiling writes to more than a
megabyte of pages that a worker otherwise shares with the fork server for all its life.
"""

from __future__ import annotations

import marshal
import os
from typing import NoReturn

from bpftune.workers import syscalls
from bpftune.workers.policy import PolicySource, compile_policy


def compile_apart(source: PolicySource) -> bytes:
    """The marshalled code, for `load_policy`; empty when there is none, which compiling again explains."""
    reading, writing = os.pipe()
    worker_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _compile_and_exit(source, writing, worker_pid)
    os.close(writing)
    with open(reading, "rb") as pipe:
        marshalled = pipe.read()
    _pid, status = os.waitpid(pid, 0)
    return b"" if status else marshalled


def _compile_and_exit(source: PolicySource, writing: int, worker_pid: int) -> NoReturn:
    exit_code = 1
    try:
        syscalls.die_with_parent(worker_pid)
        with open(writing, "wb") as pipe:
            marshal.dump(compile_policy(source), pipe)
        exit_code = 0
    finally:
        os._exit(exit_code)
