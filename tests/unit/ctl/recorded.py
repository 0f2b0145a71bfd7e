# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies as a busy daemon gives them, with the long names that narrow screens suffer from."""

from __future__ import annotations

from bpftune.ipc.control import (
    Change,
    DoneReply,
    ExplainReply,
    ExportReply,
    HistoryReply,
    HookStatus,
    NetnsChanges,
    Override,
    RestoredTunable,
    RollbackReply,
    ScenarioCounters,
    StatusReply,
    StrategyStatus,
    SummaryReply,
    SupportReply,
    TunablesReply,
    TunableStatus,
    TunerState,
    TunerStatus,
    VerifyReply,
)
from bpftune.ipc.declaration import Format
from bpftune.ipc.messages import Netns, Table

NOW_S = 1_700_000_000.0

INITIAL = Netns(cookie=1, inum=4026531840, name="global", initial=True)
BLUE = Netns(cookie=77, inum=4026532000, name="a-container-with-a-rather-long-name-0123456789")

TCP_BUFFER = TunerStatus(
    name="tcp_buffer",
    description="TCP buffer sizes follow what connections can use.",
    state=TunerState.ACTIVE,
    why="",
    folder="/usr/lib/bpftune/tuners/tcp_buffer",
    pid=830,
    uptime_s=11520,
    restarts=1,
    events_in=1234567,
    events_merged=12,
    events_dropped=0,
    changes=9,
    last_change=(
        "Due to full receive buffers change net.ipv4.tcp_rmem(min default max)"
        " from (4096 131072 6291456) -> (4096 131072 7864320)"
    ),
    last_change_s=NOW_S - 240,
    hooks=[
        HookStatus(
            probe="rcv_space",
            scenarios=["rcvbuf_full"],
            hook="tp_btf:tcp_rcv_space_adjust",
            refused={},
        ),
        HookStatus(
            probe="snd_full",
            scenarios=["sndbuf_full"],
            hook=None,
            refused={"fentry:tcp_sndbuf_expand": "Operation not permitted (EPERM), lockdown"},
        ),
        HookStatus(
            probe="rcv_sampled",
            scenarios=["rcvbuf_full"],
            hook="raw_tp:tcp_rcv_space_adjust",
            refused={},
            resting=True,
        ),
    ],
    counters=[ScenarioCounters(scenario="rcvbuf_full", sent=1234567, suppressed=99, dropped=1)],
    overrides=[
        Override(
            netns=BLUE,
            by="pid 12, cmd 'sysctl', user 'root'",
            tunable="net.ipv4.tcp_rmem",
            old="4096 131072 6291456",
            new="4096 131072 1310720",
            since_s=NOW_S - 3600,
        )
    ],
    strategies=[
        StrategyStatus(name="sampled", description="Looks at some.", timeout_s=10, active=False, value=None),
        StrategyStatus(name="every", description="Looks at all.", timeout_s=60, active=True, value=2.5),
    ],
    write_latency_us=[410, 380, 2900, 450],
    left_alone=["net.ipv4.tcp_no_ssthresh_metrics_save"],
    pss_bytes=4_823_449,
    cpu_s=0.12,
)

NEIGH_TABLE = TunerStatus(
    name="neigh_table",
    description="Neighbour tables grow before they are full.",
    state=TunerState.FAILED,
    why="6 crashes in 60 s, the last: ZeroDivisionError in policy.py line 12; bpftune-ctl restart clears it",
    folder="/usr/lib/bpftune/tuners/neigh_table",
    pid=None,
    uptime_s=0,
    restarts=5,
    events_in=6,
    events_merged=0,
    events_dropped=3,
    changes=0,
    last_change=None,
    last_change_s=None,
    hooks=[],
    counters=[],
    overrides=[],
    write_latency_us=[],
    left_alone=[],
    pss_bytes=None,
    cpu_s=None,
)

STATUS = StatusReply(
    version="0.1.0",
    pid=812,
    uptime_s=11530,
    mode="auto",
    learning_rate=4,
    kernel="6.1.0-28-amd64",
    support="bpftune works fully",
    pss_bytes=40_000_000,
    cpu_s=1.4,
    ring_dropped=3,
    tuners=[TCP_BUFFER, NEIGH_TABLE],
    namespaces=[INITIAL, BLUE],
    refused_folders=[
        "cannot accept tuner folder /usr/local/lib/bpftune/tuners/mine: it is writable by group or others"
    ],
    changed_in=[NetnsChanges(netns_cookie=BLUE.cookie, tunables=["net.ipv4.tcp_rmem"])],
    rivals=["TuneD is running as pid 7: a tuner turns itself off where TuneD writes its sysctls"],
)

TUNABLES = TunablesReply(
    tunables=[
        TunableStatus(
            tunable="net.ipv4.tcp_rmem",
            tuner="tcp_buffer",
            netns=INITIAL,
            original=(4096, 131072, 6291456),
            current=(4096, 131072, 7864320),
            floor=(4096, 131072, 6291456),
            cap=(4096, 131072, 2147483647),
            state="changed",
        ),
        TunableStatus(
            tunable="net.ipv4.tcp_no_ssthresh_metrics_save",
            tuner="tcp_buffer",
            netns=BLUE,
            original=(0,),
            current=(0,),
            floor=(0,),
            cap=(1,),
            state="left alone",
        ),
        TunableStatus(
            tunable="net.core.flow_limit_cpu_bitmap",
            tuner="net_buffer",
            netns=INITIAL,
            original=(0,),
            current=(1 << 35,),
            floor=(0,),
            cap=((1 << 64) - 1,),
            state="changed",
            format=Format.CPUMASK,
        ),
    ]
)

CHANGE = Change(
    id=1042,
    time_s=NOW_S - 240,
    tuner="tcp_buffer",
    tunable="net.ipv4.tcp_rmem",
    netns=INITIAL,
    old=(4096, 131072, 6291456),
    new=(4096, 131072, 7864320),
    scenario="rcvbuf_full",
    reason="need to increase max buffer size to maximize throughput",
    evidence={"rcvbuf_bytes": 6291456, "rtt_us": 50120, "goodput_per_rtt_bytes": 5242880, "segments": 12000},
    outcome="applied",
)

LATER = Change(
    id=1043,
    time_s=NOW_S - 200,
    tuner="tcp_buffer",
    tunable="net.ipv4.tcp_rmem",
    netns=BLUE,
    old=(4096, 131072, 7864320),
    new=(4096, 131072, 9830400),
    scenario="rcvbuf_full",
    reason="need to increase max buffer size to maximize throughput",
    evidence={},
    outcome="rolled back",
)

HISTORY = HistoryReply(changes=[LATER, CHANGE])

EXPLAIN = ExplainReply(
    change=CHANGE,
    why="Receivers cannot take more than their buffer holds in one round trip, so throughput is lost.",
    text=[
        "The limit moved by a quarter, the step of learning rate 4; twice the measured need would be 9 MiB."
    ],
    followed_by=[LATER],
)

SUMMARY = SummaryReply(
    lines=[
        "Summary: scenario 'need to increase TCP buffer size(s)' occurred 9 times for tunable"
        " 'net.ipv4.tcp_rmem' in global ns. Receivers wait for room.",
        "sysctl 'net.ipv4.tcp_rmem' changed from (4096 131072 6291456) -> (4096 131072 7864320)",
    ],
    tables=[
        Table(
            title="Gateways",
            columns=["gateway", "algorithm", "cost", "count", "share greedy", "min RTT", "max delivery rate"],
            rows=[
                [
                    "2001:db8:1234:5678:9abc:def0:1234:5678",
                    "cubic",
                    0.1234567,
                    120,
                    0.95,
                    "1.2 ms",
                    "94 Mbit/s",
                ],
                ["192.0.2.1", "bbr", 12.5, 3, 0.5, "120 ms", "9 Mbit/s"],
            ],
        ),
        Table(title="Empty", columns=["a"], rows=[]),
    ],
)

ROLLBACK = RollbackReply(
    restored=[
        RestoredTunable(
            tunable="net.ipv4.tcp_rmem",
            netns=BLUE,
            current=(4096, 131072, 7864320),
            original=(4096, 131072, 6291456),
            outcome="left: pid 12 wrote (4096 131072 1310720) since",
        )
    ],
    unknown="the ledger that was set aside as /var/lib/bpftune/ledger.db.broken may know of further changes",
)

VERIFY = VerifyReply(
    checked=12,
    differences=[
        "net.ipv4.tcp_rmem in netns 'blue' is (4096 131072 1310720), the ledger says (4096 131072 7864320)"
    ],
)

EXPORT = ExportReply(settings={"net.ipv4.tcp_rmem": "4096 131072 7864320", "net.core.rmem_max": "425984"})

SUPPORT = SupportReply(
    supported=True,
    lines=[
        "bpftune works fully",
        "bpftune supports per-netns policy (via netns cookie)",
        "tuner       scenario     hook in use",
        "tcp_buffer  rcvbuf_full  tp_btf:tcp_rcv_space_adjust",
        "    not fentry:tcp_rcv_space_adjust: Operation not permitted: lockdown, dmesg has the whole reason",
    ],
    hooks={"tcp_buffer": TCP_BUFFER.hooks},
)

DONE = DoneReply(lines=["tuner 'tcp_buffer' is on again in netns 'blue'"])
