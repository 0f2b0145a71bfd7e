# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/source.py and bpf/entries.py: from a declaration and a probe's text to C."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bpftune.bpf.source import make_unit
from bpftune.bpf.unit import Flavour, Signature, Unit
from bpftune.ipc.declaration import Declaration, MapTable
from bpftune.ipc.errors import CompileError
from tests.unit.bpf.made import PROBE_TEXT, declaration, folder, probe


def made(
    tmp_path: Path, given: Declaration, flavour: Flavour = Flavour.TYPED, text: str = PROBE_TEXT
) -> Unit:
    return make_unit(given, folder(tmp_path, text), flavour, machine="x86_64")


def test_numbers_of_tuner_scenarios_and_probes(tmp_path: Path) -> None:
    given = declaration(probe("create", "tp_btf:neigh_create"), probe("established", "sockops"))

    head = made(tmp_path, given).head.splitlines()

    assert f"#define TUNER_ID {given.id}" in head
    assert "#define SCENARIO_full 1" in head
    assert "#define PROBE_SLOT_established 1" in head
    assert "#define PROBED 0" in head


def test_event_structs_start_with_the_header(tmp_path: Path) -> None:
    body = made(tmp_path, declaration()).body

    assert "struct event_full { struct event_header header; u32 entries; u8 name[16]; };" in body
    assert "event_idle" not in body, "a scenario that only the policy raises has no event"


def test_clang_is_told_the_authors_lines(tmp_path: Path) -> None:
    body = made(tmp_path, declaration()).body

    author = body.split('#line 3 "small/probe.bpf.c"\n')[1]
    assert author.startswith("\nPROBE(create"), "line 3 of the file is the empty one behind the include"


def test_one_entry_per_rung_of_the_flavour(tmp_path: Path) -> None:
    given = declaration(probe("create", "tp_btf:neigh_create", "fentry:x(1,2,0)", "kprobe:x(0,1,2)"))

    typed = made(tmp_path, given)

    assert typed.functions == ["create__0", "create__1"]
    assert "int create__0(unsigned long long *ctx) { return body_create((void *)ctx[0]," in typed.body
    assert "return body_create((void *)ctx[1], (void *)ctx[2], ctx[0]); }" in typed.body
    assert "create__2" not in typed.body


def test_kprobes_read_registers_and_bring_their_layout(tmp_path: Path) -> None:
    given = declaration(probe("create", "tp_btf:neigh_create", "kprobe:x(0,1,2)"))

    probed = made(tmp_path, given, Flavour.PROBED)

    assert probed.functions == ["create__1"]
    assert "body_create((void *)KPROBE_ARGUMENT_0(ctx), (void *)KPROBE_ARGUMENT_1(ctx)" in probed.body
    assert "#define KPROBE_ARGUMENT_1(ctx) (((struct pt_regs *)(ctx))->si)" in probed.head
    assert probed.structs["pt_regs"] == ["di", "si", "dx", "cx", "r8", "r9", "ax"]


def test_a_context_is_passed_on_as_it_is(tmp_path: Path) -> None:
    body = made(tmp_path, declaration(probe("established", "sockops"))).body

    assert "int established__0(struct bpf_sock_ops *ctx) { return body_established(ctx); }" in body


def test_what_the_header_reads_is_added_to_the_structs(tmp_path: Path) -> None:
    assert made(tmp_path, declaration()).structs["net"] == [
        "ipv4.sysctl_tcp_rmem",
        "net_cookie",
        "ns.inum",
    ]


def test_signatures_say_what_arguments_must_point_to(tmp_path: Path) -> None:
    given = declaration(probe("create", "tp_btf:neigh_create(2,0,1)"), probe("established", "sockops"))

    assert made(tmp_path, given).signatures == [
        Signature(
            entry="create__0",
            symbol="btf_trace_neigh_create",
            typedef=True,
            arguments={2: "neigh_table", 0: "net_device", 1: ""},
            result=False,
        )
    ]


def test_a_function_that_returned_has_one_argument_more(tmp_path: Path) -> None:
    given = declaration(probe("create", "fexit:neigh_create", "fentry:neigh_create"))

    assert [wanted.result for wanted in made(tmp_path, given).signatures] == [True, False]


def test_what_a_probe_needs_all_its_rungs_need(tmp_path: Path) -> None:
    needy = msgspec.structs.replace(
        probe("create", "tp_btf:neigh_create", "fentry:x", "kprobe:x"), needs=["SKB_DROP_REASON_CPU_BACKLOG"]
    )
    given = declaration(needy, probe("established", "sockops"))

    needs = made(tmp_path, given).needs

    assert needs == {entry: ["SKB_DROP_REASON_CPU_BACKLOG"] for entry in ("create__0", "create__1")}


@pytest.mark.parametrize(
    ("name", "hook", "message"),
    [
        ("absent", "tp_btf:x", "no body 'absent' for probe 'absent'"),
        ("commented", "tp_btf:x", "no body 'commented' for probe 'commented'"),
        ("established", "tp_btf:x", "must be written as PROBE"),
        ("create", "sockops", "must be written as PROBE_CTX"),
        ("create", "tp_btf:x(0,1)", "2 arguments are mapped, the body has 3"),
    ],
)
def test_a_body_that_does_not_fit_its_hook(tmp_path: Path, name: str, hook: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        made(tmp_path, declaration(probe(name, hook)))


@pytest.mark.parametrize("text", ["", '#include "bpftune.h"\n#include "bpftune.h"\n'])
def test_the_header_is_included_exactly_once(tmp_path: Path, text: str) -> None:
    with pytest.raises(CompileError, match=r'one line #include "bpftune.h"'):
        made(tmp_path, declaration(), text=text)


def test_kprobes_of_an_unknown_machine_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="the registers of vax are not known"):
        make_unit(declaration(), folder(tmp_path), Flavour.PROBED, machine="vax")


def test_a_unit_survives_the_way_to_the_child(tmp_path: Path) -> None:
    unit = made(tmp_path, declaration(probe("create", "tp_btf:neigh_create")))

    assert Unit.from_json(unit.as_json()) == unit


def test_rows_of_tables_are_structs_as_python_unpacks_them(tmp_path: Path) -> None:
    table = MapTable(map="places", key=["u64 netns_cookie", "u8 address[16]"], value=["u32 seen"])
    body = made(tmp_path, msgspec.structs.replace(declaration(), tables=[table])).body

    assert "struct places_key { u64 netns_cookie; u8 address[16]; } __attribute__((aligned(8)));" in body
    assert "struct places_value { u32 seen; } __attribute__((aligned(8)));" in body


def test_a_rung_may_name_another_body(tmp_path: Path) -> None:
    given = declaration(probe("create", "tp_btf:neigh_create(0,1,2)", "tp_btf:neigh_timer(1)@tick"))
    text = PROBE_TEXT + "\nPROBE(tick, struct neighbour *n)\n{\n\treturn 0;\n}\n"

    unit = made(tmp_path, given, text=text)

    assert "int create__1(unsigned long long *ctx) { return body_tick((void *)ctx[1]); }" in unit.body
    assert unit.signatures[1].arguments == {1: "neighbour"}


def test_a_named_body_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="no body 'tick' for probe 'create'"):
        made(tmp_path, declaration(probe("create", "tp_btf:neigh_timer@tick")))
