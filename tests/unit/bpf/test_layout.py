# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/layout.py on a small kernel; tests/kernel/bpf/test_offsets.py checks it on the real one."""

from __future__ import annotations

import pytest

from bpftune.bpf.btf import Btf, Kind
from bpftune.bpf.layout import Layout, LayoutError, resolve
from tests.unit.bpf.btf_blob import BtfBlob


def small_kernel() -> Btf:
    blob = BtfBlob()
    u8 = blob.integer("unsigned char", 1)
    s32 = blob.integer("int", 4, signed=True)
    u64 = blob.integer("unsigned long", 8)
    counter = blob.struct("", 8, [("counter", u64, 0)])
    proto = blob.struct("proto", 64, [("allocated", blob.pointer(counter), 40)])
    sample = blob.struct("sample", 8, [("t", s32, 0), ("v", s32, 4)])
    ipv4 = blob.struct("netns_ipv4", 32, [("rmem", blob.array(s32, 3), 16)])
    net = blob.struct("net", 4224, [("ipv4", ipv4, 64), ("cookie", u64, 4160)])
    blob.bitfields("flags", 8, [("plain", s32, 0, 0), ("locks", u8, 36, 4)])
    blob.struct(
        "sock",
        200,
        [
            ("net", blob.pointer(net), 48),
            ("prot", blob.pointer(proto), 56),
            ("best", blob.array(sample, 3), 64),
            ("odd", s32, 101),
        ],
    )
    blob.enum("reason", {"BACKLOG": 71})
    return Btf(blob.data())


def emitted(structs: dict[str, list[str]], enums: dict[str, list[str]] | None = None) -> str:
    return Layout(small_kernel(), structs).text(enums or {})


def test_members_stand_at_their_offset_whatever_is_around_them() -> None:
    text = emitted({"net": ["cookie"]})

    assert "struct net { union { u8 __bytes[4224]; struct { u8 __pad_cookie[4160]; u64 cookie; };" in text
    assert '_Static_assert(__builtin_offsetof(struct net, cookie) == 4160, "net.cookie");' in text
    assert "#define HAVE_net__cookie 1" in text


def test_nested_paths_name_only_what_is_wanted() -> None:
    text = emitted({"net": ["ipv4.rmem"]})

    assert "s32 rmem[3];" in text
    assert "__builtin_offsetof(struct net, ipv4.rmem) == 80" in text
    assert "#define HAVE_net__ipv4_rmem 1" in text


def test_an_arrow_follows_a_pointer_to_an_unnamed_struct() -> None:
    text = emitted({"proto": ["allocated->counter"]})

    assert "struct { union { u8 __bytes[8]; u64 counter;" in text
    assert "* allocated;" in text
    assert "#define HAVE_proto__allocated_counter 1" in text


def test_pointers_to_structs_keep_their_type() -> None:
    text = emitted({"sock": ["net"]})

    assert text.startswith("struct net;\n")
    assert "struct net * net;" in text


def test_structs_held_by_value_come_first() -> None:
    text = emitted({"sock": ["best"], "sample": ["v"]})

    assert "struct sample best[3];" in text
    assert text.index("struct sample {") < text.index("struct sock {")


def test_bitfields_stand_alone_so_that_they_have_an_address() -> None:
    text = emitted({"flags": ["locks", "plain"]})

    assert "u8 __pad_bits_locks[4]; struct { u8 :4; u8 value:4; } __bits_locks;" in text
    assert "struct { s32 value; } __bits_plain;" in text, "READ_BITS must take what is no bitfield"


def test_a_misaligned_member_is_packed() -> None:
    text = emitted({"sock": ["odd"]})

    assert "struct { u8 __pad_odd[101]; s32 odd; } __attribute__((packed));" in text


def test_an_optional_member_may_be_missing() -> None:
    text = emitted({"net": ["cookie", "?future", "?ipv4.future"], "future": ["?member"]})

    assert "future" not in text


@pytest.mark.parametrize(
    ("structs", "message"),
    [
        ({"net": ["future"]}, "struct net has no member future"),
        ({"net": ["ipv4.future"]}, "struct netns_ipv4 has no member future"),
        ({"future": ["member"]}, "no struct future"),
        ({"net": ["cookie."]}, "cannot parse member path"),
    ],
)
def test_what_the_kernel_lacks_is_named(structs: dict[str, list[str]], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        emitted(structs)


def test_constants_become_macros_and_missing_ones_are_named() -> None:
    assert "#define BACKLOG 71\n" in emitted({}, {"reason": ["BACKLOG", "?FUTURE"]})
    with pytest.raises(LayoutError, match="enum reason has no FUTURE"):
        emitted({}, {"reason": ["FUTURE"]})


def test_resolve_counts_from_behind_the_last_arrow() -> None:
    btf = small_kernel()

    found = resolve(btf, btf.find("proto", Kind.STRUCT), "allocated->counter")

    assert found is not None
    assert (found.bit_offset, found.plain) == (0, False)
