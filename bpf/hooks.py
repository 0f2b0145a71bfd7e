# SPDX-License-Identifier: GPL-2.0-or-later
"""Attaches a loaded program to one hook, always by a bpf_link: it goes when its descriptor does,
however the process ends.

The ladder calls this. Raises HookRefused with a reason that fits into one cell of a table.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import platform
import struct
from pathlib import Path

from bpftune.bpf import kernelfs, libbpf
from bpftune.bpf.rungs import program_type
from bpftune.ipc.declaration import Hook
from bpftune.ipc.errors import HookRefused

_BPF_PERF_EVENT = 41
_PERF_TYPE_TRACEPOINT = 2
_PERF_ATTR_BYTES = 128
_PERF_FLAG_FD_CLOEXEC = 8
# perf_event_open is older than the numbers common to all architectures.
_SYS_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
_TRACING = frozenset({"tp_btf", "fentry", "fexit"})


def attach(hook: Hook, program_fd: int, *, cgroup: Path | None) -> int:
    """The link's descriptor. `cgroup` None: the root of the cgroup2 hierarchy."""
    try:
        if hook.kind in _TRACING:
            return libbpf.open_raw_tracepoint(program_fd, None)
        if hook.kind == "raw_tp":
            return libbpf.open_raw_tracepoint(program_fd, hook.target)
        if hook.kind == "iter":
            return _link(hook, program_fd, 0)
        if hook.kind == "tracepoint":
            return _attach_tracepoint(hook, program_fd)
        if hook.kind in ("kprobe", "kretprobe"):
            return _attach_kprobe(hook, program_fd)
        return _attach_cgroup(hook, program_fd, cgroup)
    except OSError as error:
        raise HookRefused(str(hook), _reason(hook, error), errno=error.errno or 0) from error


def unavailable(hook: Hook) -> str | None:
    """Why this kernel cannot have the hook at all, as far as it can be told without a program."""
    if hook.kind == "cgroup" and program_type(hook) is None:
        return f"no cgroup hook '{hook.target}' is known"
    if hook.kind in ("kprobe", "kretprobe") and kernelfs.read_pmu_type("kprobe") is None:
        return "no kprobes in this kernel"
    return None


def describe(error: OSError) -> str:
    """Why the kernel refused a program or a link, short."""
    if isinstance(error, libbpf.VerifierError) and (line := last_log_line(error.log)):
        return f"verifier: {line}"
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    hint = " (lockdown?)" if name == "EPERM" else ""
    return f"refused by the kernel: {name}{hint}"


def last_log_line(log: str) -> str:
    """The verifier's verdict: its last line before the statistics."""
    lines = [line.strip() for line in log.splitlines()]
    verdict = [
        line
        for line in lines
        if line and not line.startswith(("processed ", "verification time", "stack depth"))
    ]
    return verdict[-1] if verdict else ""


def _reason(hook: Hook, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        if hook.kind in ("tracepoint", "raw_tp"):
            return f"no tracepoint {hook.target} in this kernel"
        if hook.kind in ("kprobe", "kretprobe"):
            return f"no function {hook.target} that can be probed"
    return describe(error)


def _link(hook: Hook, program_fd: int, target_fd: int) -> int:
    kind = program_type(hook)
    assert kind is not None
    return libbpf.create_link(program_fd, target_fd, kind.attach_type)


def _attach_cgroup(hook: Hook, program_fd: int, cgroup: Path | None) -> int:
    path = cgroup or kernelfs.find_cgroup_root()
    if path is None:
        raise HookRefused(str(hook), "cgroup2 is not mounted")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _link(hook, program_fd, descriptor)
    finally:
        os.close(descriptor)


def _attach_tracepoint(hook: Hook, program_fd: int) -> int:
    event = kernelfs.read_tracepoint_id(hook.target)
    return _attach_perf_event(program_fd, _perf_attr(_PERF_TYPE_TRACEPOINT, event))


def _attach_kprobe(hook: Hook, program_fd: int) -> int:
    pmu = kernelfs.read_pmu_type("kprobe")
    if pmu is None:
        raise HookRefused(str(hook), "no kprobes in this kernel")
    config = 1 << kernelfs.read_retprobe_bit() if hook.kind == "kretprobe" else 0
    name = ct.create_string_buffer(hook.target.encode())
    return _attach_perf_event(program_fd, _perf_attr(pmu, config, config1=ct.addressof(name)))


def _perf_attr(type_number: int, config: int, *, config1: int = 0) -> bytearray:
    """struct perf_event_attr: type, size, config at 0, 4 and 8; config1 (for kprobes the
    function's name, with the offset 0 in config2 behind it) at 56."""
    attr = bytearray(_PERF_ATTR_BYTES)
    struct.pack_into("=IIQ", attr, 0, type_number, len(attr), config)
    struct.pack_into("=QQ", attr, 56, config1, 0)
    return attr


def _attach_perf_event(program_fd: int, attr: bytearray) -> int:
    event = _perf_event_open(attr)
    try:
        return libbpf.create_link(program_fd, event, _BPF_PERF_EVENT)
    finally:
        # The link keeps the event.
        os.close(event)


def _perf_event_open(attr: bytearray) -> int:
    libc = ct.CDLL(None, use_errno=True)
    buffer = (ct.c_char * len(attr)).from_buffer(attr)
    number = _SYS_PERF_EVENT_OPEN[platform.machine()]
    every_process, first_cpu, no_group = -1, 0, -1
    result: int = libc.syscall(
        ct.c_long(number), buffer, every_process, first_cpu, no_group, ct.c_ulong(_PERF_FLAG_FD_CLOEXEC)
    )
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result
