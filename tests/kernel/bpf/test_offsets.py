# SPDX-License-Identifier: GPL-2.0-or-later
"""Every member that a tuner.toml in the tree names: the offset in the emitted instruction is BTF's.

The compiler parses with one data layout and generates code with another, so neither sizeof nor
offsetof proves anything; only the instructions do.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bpftune.bpf.btf import COMPOSITE, Btf, Kind, read_vmlinux
from bpftune.bpf.builder import compile_in_child
from bpftune.bpf.unit import Flavour, Object, Unit
from bpftune.ipc.declaration_file import load_declaration
from tests.kernel.bpf.rig import ROOT

FOLDERS = sorted(
    path.parent
    for pattern in ("tuners/*/tuner.toml", "supervisor/watch_*/tuner.toml", "docs/*/*/tuner.toml")
    for path in ROOT.glob(pattern)
)
HARD = {
    "sock": ["sk_userlocks", "sk_no_check_tx", "__sk_common.skc_net.net", "sk_backlog.rmem_alloc.counter"],
    "sk_buff": ["pkt_type", "ip_summed", "ooo_okay", "truesize", "dev", "_skb_refdst"],
    "tcp_sock": ["?rate_app_limited", "?nonagle", "rtt_min.s.v", "rcvq_space.space", "srtt_us"],
    "net": ["net_cookie", "ns.inum", "?ipv6.ip6_dst_ops.pcpuc_entries.count", "ipv4.sysctl_tcp_rmem", "ipv4"],
    "proto": ["memory_allocated->counter"],
    "net_device": ["nd_net.net", "ifindex", "name"],
    "task_struct": ["tgid", "nsproxy", "comm", "in_iowait"],
    "inet_connection_sock": ["icsk_accept_queue.qlen.counter", "icsk_ca_state"],
    "fqdir": ["mem.counter", "high_thresh"],
}
"""Deep paths, bitfields, arrays, members of unnamed unions, far offsets."""
LOADS = {0x71: 1, 0x69: 2, 0x61: 4, 0x79: 8}
"""Opcodes of BPF_LDX | BPF_MEM and the bytes they load."""
ADD_IMMEDIATE = 0x07
READ_BITS_MARK = ("__bits_", ".value")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One load, or for a struct the address of one."""

    offset: int
    size: int
    bits: int = 0
    bit_offset: int = 0
    address_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Access:
    """A C expression and the loads it must become, the probe's own pointer in front of them."""

    expression: str
    steps: tuple[Step, ...]


@pytest.fixture(scope="module")
def btf() -> Iterator[Btf]:
    opened = read_vmlinux()
    yield opened
    opened.close()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_members_that_tuners_name(folder: Path, btf: Btf) -> None:
    check(folder.name, load_declaration(folder).structs, btf)


def test_members_that_are_hard_to_place(btf: Btf) -> None:
    check("hard", HARD, btf)


def check(tuner: str, structs: dict[str, list[str]], btf: Btf) -> None:
    accesses = {
        f"{name}.{path}": access
        for name, paths in structs.items()
        for path in paths
        for access in accesses_of(btf, name, path.lstrip("?"))
    }

    code = compile_accesses(tuner, structs, accesses)

    wrong = {name: code[name] for name, access in accesses.items() if not matches(code[name], access)}
    assert not wrong
    assert accesses or not structs


def accesses_of(btf: Btf, name: str, path: str) -> list[Access]:
    """None for a member that this kernel lacks."""
    type_id = btf.find(name, *COMPOSITE)
    if not type_id:
        return []
    expression, steps, offset = f"((struct {name} *)ctx[0])", [], 0
    arrow = "->"
    for member_name, connector in re.findall(r"(\w+)(\.|->)?", path):
        member = btf.member(type_id, member_name)
        if member is None:
            return []
        offset += member.bit_offset
        last = (member.type_id, offset, member.bits)
        text = member_name if not member.bits else member_name.join(READ_BITS_MARK)
        expression += f"{arrow}{text}"
        type_id, arrow = btf.strip(member.type_id), connector
        if btf.kind(type_id) is Kind.ARRAY:
            element, count = btf.element(type_id)
            type_id = btf.strip(element)
            expression += f"[{count - 1}]"
            offset += (count - 1) * btf.size(type_id) * 8
            last = (type_id, offset, 0)
        if connector == "->":
            steps.append(Step(offset=offset // 8, size=8))
            type_id, offset = btf.strip(btf.target(type_id)), 0
    steps.append(last_step(btf, *last))
    if steps[-1].address_only:
        expression = f"&{expression}"
    return [Access(expression=expression, steps=tuple(steps))]


def last_step(btf: Btf, type_id: int, bit_offset: int, bits: int) -> Step:
    type_id = btf.strip(type_id)
    return Step(
        offset=bit_offset // 8,
        size=btf.size(type_id),
        bits=bits,
        bit_offset=bit_offset,
        address_only=btf.kind(type_id) in COMPOSITE,
    )


def compile_accesses(
    name: str, structs: dict[str, list[str]], accesses: dict[str, Access]
) -> dict[str, list[tuple[int, int, int]]]:
    """Per access its instructions as (opcode, offset, immediate)."""
    functions = {f"load_{index}": access for index, access in enumerate(accesses)}
    unit = Unit(
        tuner=name,
        flavour=Flavour.TYPED,
        head="",
        body="".join(
            f"long {function}(unsigned long long *ctx) {{ return (long)({accesses[access].expression}); }}\n"
            for function, access in functions.items()
        ),
        structs=structs,
        enums={},
        functions=list(functions),
        signatures=[],
        needs={},
    )
    (built,) = compile_in_child([unit])
    assert isinstance(built, Object), built
    return {access: decode(built.programs[function]) for function, access in functions.items()}


def decode(code: bytes) -> list[tuple[int, int, int]]:
    return [(opcode, offset, immediate) for opcode, _, offset, immediate in struct.iter_unpack("=BBhi", code)]


def matches(code: list[tuple[int, int, int]], access: Access) -> bool:
    loads = [(opcode, offset) for opcode, offset, _ in code if opcode in LOADS]
    added = sum(immediate for opcode, _, immediate in code if opcode == ADD_IMMEDIATE)
    steps = access.steps
    if steps[-1].address_only:
        return added == steps[-1].offset and all(map(is_step, loads[1:], steps[:-1]))
    return len(loads) == len(steps) + 1 and all(map(is_step, loads[1:], steps))


def is_step(load: tuple[int, int], step: Step) -> bool:
    opcode, offset = load
    if step.bits:
        first, last = offset * 8, (offset + LOADS[opcode]) * 8
        return first <= step.bit_offset and step.bit_offset + step.bits <= last
    return (offset, LOADS[opcode]) == (step.offset, step.size)
