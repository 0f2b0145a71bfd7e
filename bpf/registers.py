# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a kprobe finds a function's arguments: the registers of each calling convention.

Only the names are here; the offsets in struct pt_regs come from BTF like every other layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from bpftune.ipc.errors import CompileError


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """Members of struct pt_regs: the first arguments in order, and the return value."""

    arguments: tuple[str, ...]
    result: str

    @property
    def members(self) -> list[str]:
        """The members without array indexes, each once."""
        named = (member.partition("[")[0] for member in (*self.arguments, self.result))
        return list(dict.fromkeys(named))


# System V AMD64 ABI 3.2.3; Procedure Call Standard for the Arm 64-bit Architecture 6.4;
# 64-bit ELF V2 ABI for Power 2.2.3; RISC-V calling convention, integer registers.
CONVENTIONS = {
    "x86_64": Convention(arguments=("di", "si", "dx", "cx", "r8", "r9"), result="ax"),
    "aarch64": Convention(arguments=tuple(f"regs[{i}]" for i in range(8)), result="regs[0]"),
    "ppc64le": Convention(arguments=tuple(f"gpr[{i}]" for i in range(3, 11)), result="gpr[3]"),
    "riscv64": Convention(arguments=tuple(f"a{i}" for i in range(8)), result="a0"),
}


def register_structs(machine: str) -> dict[str, list[str]]:
    """What [structs] would say for struct pt_regs."""
    return {"pt_regs": _convention(machine).members}


def register_macros(machine: str) -> str:
    """KPROBE_ARGUMENT_<i>(ctx) and KPROBE_RESULT(ctx)."""
    convention = _convention(machine)
    arguments = "".join(
        f"#define KPROBE_ARGUMENT_{i}(ctx) (((struct pt_regs *)(ctx))->{member})\n"
        for i, member in enumerate(convention.arguments)
    )
    return f"{arguments}#define KPROBE_RESULT(ctx) (((struct pt_regs *)(ctx))->{convention.result})\n"


def _convention(machine: str) -> Convention:
    convention = CONVENTIONS.get(machine)
    if convention is None:
        raise CompileError(f"cannot compile kprobes: the registers of {machine} are not known")
    return convention
