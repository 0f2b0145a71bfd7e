# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/hooks.py: the words for a refusal, and what is known without asking the kernel."""

from __future__ import annotations

import errno

import pytest

from bpftune.bpf.hooks import describe, last_log_line, unavailable
from bpftune.bpf.libbpf import VerifierError
from bpftune.bpf.rungs import flavour_of, program_type
from bpftune.bpf.unit import Flavour
from bpftune.ipc.declaration import parse_hook

LOG = """\
0: R1=ctx() R10=fp0
; body
3: (79) r1 = *(u64 *)(r6 +9999)
access beyond struct sock at off 9999 size 8
verification time 120 usec
stack depth 0
processed 4 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_verifiers_verdict_is_its_last_line_before_the_statistics() -> None:
    assert last_log_line(LOG) == "access beyond struct sock at off 9999 size 8"
    assert last_log_line("\n") == ""


def test_a_refusal_with_a_log_quotes_it() -> None:
    assert (
        describe(VerifierError(errno.EACCES, LOG)) == "verifier: access beyond struct sock at off 9999 size 8"
    )


def test_a_refusal_without_a_log_names_the_errno() -> None:
    assert describe(VerifierError(errno.EPERM, "")) == "refused by the kernel: EPERM (lockdown?)"
    assert describe(OSError(errno.EINVAL, "")) == "refused by the kernel: EINVAL"


def test_an_unknown_cgroup_hook_is_not_tried() -> None:
    assert unavailable(parse_hook("cgroup:nonsense")) == "no cgroup hook 'nonsense' is known"
    assert unavailable(parse_hook("cgroup:sysctl")) is None


@pytest.mark.parametrize(
    ("hook", "flavour"),
    [
        ("tp_btf:a", Flavour.TYPED),
        ("fexit:a", Flavour.TYPED),
        ("sockops", Flavour.TYPED),
        ("cgroup:sysctl", Flavour.TYPED),
        ("tracepoint:a/b", Flavour.TYPED),
        ("iter:tcp", Flavour.TYPED),
        ("kprobe:a", Flavour.PROBED),
        ("kretprobe:a", Flavour.PROBED),
        ("raw_tp:a", Flavour.PROBED),
        ("poll:a", None),
    ],
)
def test_every_kind_reads_in_one_flavour_and_has_a_program_type(hook: str, flavour: Flavour | None) -> None:
    parsed = parse_hook(hook)

    assert flavour_of(parsed) is flavour
    assert flavour is None or program_type(parsed) is not None
