# SPDX-License-Identifier: GPL-2.0-or-later
"""Real ladders on this kernel: what is refused keeps its reason, the next rung is tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bpftune.bpf.kernelfs import read_pmu_type
from bpftune.ipc.control import HookStatus
from tests.kernel.bpf.rig import make_tuner, opened, read_source
from tests.requirements import is_locked_down, require_kernel_memory, require_rung

SOCK = 'sock = ["__sk_common.skc_net.net", "sk_rcvbuf"]'
RECEIVE = """
PROBE(receive, struct sock *sk)
{
	struct event_seen e = { .value = READ(sk, sk_rcvbuf) };

	SEND(seen, READ(sk, __sk_common.skc_net.net), &e);
	return 0;
}
"""
Climb = Callable[..., HookStatus]


@pytest.fixture
def climb(tmp_path: Path) -> Climb:
    def climbed(*hooks: str, source: str = RECEIVE, structs: str = SOCK, legacy: bool = False) -> HookStatus:
        folder = make_tuner(tmp_path, "ladder", hooks={"receive": hooks}, source=source, structs=structs)
        with opened(tmp_path / "cache", legacy=legacy) as rig:
            assert rig.bpf.load([read_source(folder)]) == {}
            (status,) = rig.bpf.attach("ladder")
            assert rig.bpf.attach("ladder") == [status], "attaching twice changes nothing"
            return status

    return climbed


def test_the_best_rung_is_taken(climb: Climb) -> None:
    status = climb("tp_btf:tcp_rcv_space_adjust", "fentry:tcp_rcv_space_adjust")

    assert (status.hook, status.refused) == ("tp_btf:tcp_rcv_space_adjust", {})


def test_a_missing_symbol_is_named(climb: Climb) -> None:
    status = climb("tp_btf:no_such_event", "fentry:no_such_function", "tp_btf:tcp_rcv_space_adjust")

    assert status.hook == "tp_btf:tcp_rcv_space_adjust"
    assert status.refused == {
        "tp_btf:no_such_event": "this kernel's BTF has no tracepoint no_such_event",
        "fentry:no_such_function": "this kernel's BTF has no function no_such_function",
    }


def test_fentry_works_or_says_why(climb: Climb) -> None:
    status = climb("fentry:tcp_rcv_space_adjust", "tp_btf:tcp_rcv_space_adjust")

    if status.hook == "tp_btf:tcp_rcv_space_adjust":
        reason = status.refused["fentry:tcp_rcv_space_adjust"]
        assert reason.startswith("refused by the kernel: E")
        require_rung(False, reason)


def test_kprobes_work_or_say_why(climb: Climb) -> None:
    require_kernel_memory()
    status = climb(
        "kprobe:tcp_rcv_space_adjust", "kretprobe:tcp_rcv_space_adjust", "tp_btf:tcp_rcv_space_adjust"
    )

    if read_pmu_type("kprobe") is not None:
        assert status.hook == "kprobe:tcp_rcv_space_adjust"
    else:
        assert set(status.refused.values()) == {"no kprobes in this kernel"}
        assert status.hook == "tp_btf:tcp_rcv_space_adjust"
        require_rung(False, "no kprobes in this kernel")


def test_the_verifiers_verdict_is_the_reason(climb: Climb) -> None:
    source = RECEIVE.replace("READ(sk, sk_rcvbuf)", "READ((struct net *)sk, net_cookie)")
    status = climb("tp_btf:tcp_rcv_space_adjust", source=source)

    assert status.hook is None
    reason = status.refused["tp_btf:tcp_rcv_space_adjust"]
    assert reason.startswith("verifier: ")
    assert "sock" in reason


def test_a_tracepoint_with_other_arguments_is_refused(climb: Climb) -> None:
    status = climb("tp_btf:neigh_create", "tp_btf:tcp_retransmit_skb(7)", "tp_btf:tcp_rcv_space_adjust")

    assert status.hook == "tp_btf:tcp_rcv_space_adjust"
    assert status.refused["tp_btf:neigh_create"] == (
        "its argument 0 is a struct neigh_table, the probe wants a struct sock"
    )
    assert "the probe wants argument 7" in status.refused["tp_btf:tcp_retransmit_skb"]


def test_the_same_hook_can_be_tried_with_its_arguments_in_another_order(climb: Climb) -> None:
    source = RECEIVE.replace("struct sock *sk", "struct sock *sk, struct sk_buff *skb")
    status = climb("tp_btf:tcp_retransmit_skb(1,0)", "tp_btf:tcp_retransmit_skb(0,1)", source=source)

    assert status.hook == "tp_btf:tcp_retransmit_skb"
    assert "struct sk_buff" in status.refused["tp_btf:tcp_retransmit_skb"]


def test_a_constant_that_this_kernel_lacks_refuses_all_rungs_that_need_it(tmp_path: Path) -> None:
    folder = make_tuner(
        tmp_path,
        "needy",
        hooks={"receive": ("tp_btf:tcp_rcv_space_adjust", "raw_tp:tcp_rcv_space_adjust")},
        source=RECEIVE,
        structs=f'{SOCK}\n[enums]\nskb_drop_reason = ["?SKB_DROP_REASON_OF_TOMORROW"]\n',
    )
    declared = folder / "tuner.toml"
    needs = 'needs = ["SKB_DROP_REASON_OF_TOMORROW"]\n[structs]'
    declared.write_text(declared.read_text().replace("[structs]", needs))

    with opened(tmp_path / "cache") as rig:
        assert rig.bpf.load([read_source(folder)]) == {}
        (status,) = rig.bpf.attach("needy")

    assert status.hook is None
    assert status.refused == dict.fromkeys(
        ("tp_btf:tcp_rcv_space_adjust", "raw_tp:tcp_rcv_space_adjust"),
        "this kernel has no SKB_DROP_REASON_OF_TOMORROW",
    )


def test_a_raw_tracepoint_reads_through_the_helper(climb: Climb) -> None:
    require_kernel_memory()
    status = climb("raw_tp:no_such_event", "raw_tp:tcp_rcv_space_adjust")

    assert status.hook == "raw_tp:tcp_rcv_space_adjust"
    assert status.refused == {"raw_tp:no_such_event": "no tracepoint no_such_event in this kernel"}


def test_legacy_mode_passes_modern_rungs_over(climb: Climb) -> None:
    require_kernel_memory()
    status = climb("tp_btf:tcp_rcv_space_adjust", "raw_tp:tcp_rcv_space_adjust", legacy=True)

    assert status.hook == "raw_tp:tcp_rcv_space_adjust"
    assert status.refused == {"tp_btf:tcp_rcv_space_adjust": "legacy mode"}


def test_an_unknown_tracepoint_and_cgroup_hook_are_named(climb: Climb) -> None:
    source = "PROBE_CTX(receive, struct syscall_enter *ctx)\n{\n\treturn 0;\n}\n"
    status = climb("tracepoint:syscalls/sys_enter_nothing", "cgroup:nothing", source=source, structs="")

    assert status.hook is None
    assert status.refused == {
        "tracepoint:syscalls/sys_enter_nothing": "refused by the kernel: EPERM (lockdown?)"
        if is_locked_down()
        else "no tracepoint syscalls/sys_enter_nothing in this kernel",
        "cgroup:nothing": "no cgroup hook 'nothing' is known",
    }
