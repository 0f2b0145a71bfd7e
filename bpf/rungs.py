# SPDX-License-Identifier: GPL-2.0-or-later
"""What each kind of hook is to the kernel: program type, attach type, and how its body reads.

Numbers are those of enum bpf_prog_type and enum bpf_attach_type in include/uapi/linux/bpf.h.
"""

from __future__ import annotations

from dataclasses import dataclass

from bpftune.bpf.unit import Flavour
from bpftune.ipc.declaration import Hook

BTF_PREFIX = {"tp_btf": "btf_trace_", "fentry": "", "fexit": "", "iter": "bpf_iter_"}
"""kinds that attach to a BTF id, and what the symbol's name starts with."""
TYPEDEF_KINDS = frozenset({"tp_btf"})
RESULT_KINDS = frozenset({"fexit"})
"""kinds whose programs get the return value, behind the arguments."""
CONTEXT_KINDS = frozenset({"sockops", "cgroup", "tracepoint", "iter"})
UNTYPED_KINDS = frozenset({"kprobe", "kretprobe", "raw_tp"})
MODERN_KINDS = frozenset({"tp_btf", "fentry", "fexit"})
"""What -L/--legacy passes over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramType:
    program_type: int
    attach_type: int = 0


TYPES = {
    "tp_btf": ProgramType(program_type=26, attach_type=23),
    "fentry": ProgramType(program_type=26, attach_type=24),
    "fexit": ProgramType(program_type=26, attach_type=25),
    "iter": ProgramType(program_type=26, attach_type=28),
    "raw_tp": ProgramType(program_type=17),
    "tracepoint": ProgramType(program_type=5),
    "kprobe": ProgramType(program_type=2),
    "kretprobe": ProgramType(program_type=2),
    "sockops": ProgramType(program_type=13, attach_type=3),
}

CGROUP_TYPES = {
    "sysctl": ProgramType(program_type=23, attach_type=18),
    "sock_create": ProgramType(program_type=9, attach_type=2),
    "sock_release": ProgramType(program_type=9, attach_type=34),
    "connect4": ProgramType(program_type=18, attach_type=10),
    "connect6": ProgramType(program_type=18, attach_type=11),
    "setsockopt": ProgramType(program_type=25, attach_type=22),
    "getsockopt": ProgramType(program_type=25, attach_type=21),
}


def program_type(hook: Hook) -> ProgramType | None:
    """None: no such cgroup hook."""
    return CGROUP_TYPES.get(hook.target) if hook.kind == "cgroup" else TYPES[hook.kind]


def flavour_of(hook: Hook) -> Flavour | None:
    """None: a poll rung, which has no program."""
    if hook.kind == "poll":
        return None
    return Flavour.PROBED if hook.kind in UNTYPED_KINDS else Flavour.TYPED
