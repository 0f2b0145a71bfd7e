# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/compiler.py: which rungs a kernel's BTF rules out, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bpftune.bpf.btf import Btf
from bpftune.bpf.compiler import find_refusals
from bpftune.bpf.unit import Signature, Unit
from tests.unit.bpf import made
from tests.unit.bpf.btf_blob import BtfBlob


@pytest.fixture
def btf() -> Iterator[Btf]:
    """int setup(struct net *, int), and a tracepoint with the same arguments."""
    blob = BtfBlob()
    integer = blob.integer("int", 4, signed=True)
    net = blob.pointer(blob.struct("net", 4, [("inum", integer, 0)]))
    blob.function("setup", blob.prototype(integer, [net, integer]))
    private = blob.pointer(0)
    blob.typedef("btf_trace_setup", blob.pointer(blob.prototype(0, [private, net, integer])))
    blob.enum("reason", {"BACKLOG": 71})
    opened = Btf(blob.data())
    yield opened
    opened.close()


def unit_with(*, typedef: bool = False, result: bool = False, **arguments: str) -> Unit:
    """Arguments are named after their index: a0, a1 ..."""
    wanted = Signature(
        entry="a__0",
        symbol="btf_trace_setup" if typedef else "setup",
        typedef=typedef,
        arguments={int(name[1:]): struct for name, struct in arguments.items()},
        result=result,
    )
    return replace(made.unit(), signatures=[wanted])


@pytest.mark.parametrize("typedef", [True, False], ids=["tp_btf", "fentry"])
def test_every_argument_must_be_there(btf: Btf, typedef: bool) -> None:
    assert find_refusals(btf, unit_with(typedef=typedef, a0="net", a1="")) == {}
    assert find_refusals(btf, unit_with(typedef=typedef, a0="net", a2="")) == {
        "a__0": "it has 2 arguments, the probe wants argument 2"
    }


def test_the_return_value_comes_last_where_the_hook_has_it(btf: Btf) -> None:
    assert find_refusals(btf, unit_with(result=True, a0="net", a2="")) == {}
    assert find_refusals(btf, unit_with(result=True, a3="")) == {
        "a__0": "it has 2 arguments, the probe wants argument 3"
    }


def test_a_pointer_must_point_to_the_struct(btf: Btf) -> None:
    assert find_refusals(btf, unit_with(a0="sock")) == {
        "a__0": "its argument 0 is a struct net, the probe wants a struct sock"
    }
    assert find_refusals(btf, unit_with(a0="")) == {}, "the body takes it for a number"


def test_a_constant_that_the_kernel_lacks_is_named(btf: Btf) -> None:
    needy = replace(
        made.unit(),
        enums={"reason": ["?BACKLOG", "?FUTURE"]},
        needs={"a__0": ["BACKLOG"], "b__1": ["FUTURE"]},
    )

    assert find_refusals(btf, needy) == {"b__1": "this kernel has no FUTURE"}
    needy = replace(needy, enums={"absent": ["?BACKLOG"]})
    assert find_refusals(btf, needy)["a__0"] == "this kernel has no BACKLOG"
