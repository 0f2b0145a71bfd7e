# SPDX-License-Identifier: GPL-2.0-or-later
"""PROBE bodies and the entry functions that call them, one per rung.

Entries are written out instead of being macros of bpftune.h: BCC marks a program by inserting text
where its definition starts, which works for one function per macro use only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bpftune.bpf.rungs import BTF_PREFIX, CONTEXT_KINDS, RESULT_KINDS, TYPEDEF_KINDS
from bpftune.bpf.unit import Signature
from bpftune.ipc.declaration import Hook

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_BODY = re.compile(r"^(PROBE|PROBE_CTX)\(\s*(\w+)\s*,([^()]*)\)", re.MULTILINE)
_STRUCT_POINTER = re.compile(r"(?:const )?struct (\w+) ?\*\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One PROBE or PROBE_CTX: its arguments as the author wrote them."""

    name: str
    arguments: tuple[str, ...]
    takes_context: bool

    def misfit(self, hook: Hook) -> str | None:
        """Why the body cannot serve `hook`; None: it can."""
        if (hook.kind in CONTEXT_KINDS) != self.takes_context:
            wanted = "PROBE_CTX" if hook.kind in CONTEXT_KINDS else "PROBE"
            return f"it must be written as {wanted}"
        if self.takes_context and len(self.arguments) != 1:
            return "PROBE_CTX takes one argument"
        if hook.arguments is not None and len(hook.arguments) != len(self.arguments):
            return f"{len(hook.arguments)} arguments are mapped, the body has {len(self.arguments)}"
        return None

    def indexes(self, hook: Hook) -> tuple[int, ...]:
        """Which of the hook's arguments becomes which of the body's."""
        return hook.arguments or tuple(range(len(self.arguments)))


def find_bodies(text: str) -> dict[str, Body]:
    """The bodies in a probe.bpf.c, by name."""
    return {
        name: Body(
            name=name,
            arguments=tuple(" ".join(argument.split()) for argument in arguments.split(",")),
            takes_context=macro == "PROBE_CTX",
        )
        for macro, name, arguments in _BODY.findall(_COMMENT.sub(" ", text))
    }


def entry_name(probe: str, rung: int) -> str:
    return f"{probe}__{rung}"


def entry_function(name: str, body: Body, hook: Hook) -> str:
    """The program that the kernel runs for one rung."""
    if body.takes_context:
        argument = body.arguments[0]
        context = argument.rpartition("*")[2].rpartition(" ")[2]
        return f"int {name}({argument}) {{ return body_{body.name}({context}); }}\n"
    values = ", ".join(
        f"{'(void *)' if '*' in argument else ''}{_argument(hook, index)}"
        for argument, index in zip(body.arguments, body.indexes(hook), strict=True)
    )
    return f"int {name}(unsigned long long *ctx) {{ return body_{body.name}({values}); }}\n"


def signature(entry: str, hook: Hook, body: Body) -> Signature | None:
    """What the kernel's BTF must have for the hook; None where BTF says nothing about it."""
    prefix = BTF_PREFIX.get(hook.kind)
    if prefix is None:
        return None
    arguments = {}
    if not body.takes_context:
        for argument, index in zip(body.arguments, body.indexes(hook), strict=True):
            match = _STRUCT_POINTER.fullmatch(argument)
            arguments[index] = match[1] if match else ""
    return Signature(
        entry=entry,
        symbol=prefix + hook.target,
        typedef=hook.kind in TYPEDEF_KINDS,
        arguments=arguments,
        result=hook.kind in RESULT_KINDS,
    )


def _argument(hook: Hook, index: int) -> str:
    if hook.kind == "kprobe":
        return f"KPROBE_ARGUMENT_{index}(ctx)"
    if hook.kind == "kretprobe":
        return "KPROBE_RESULT(ctx)"
    return f"ctx[{index}]"
