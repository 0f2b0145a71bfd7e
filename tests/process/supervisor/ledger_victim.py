# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes a fake sysctl as fast as it can until it is killed. test_ledger_kill.py runs it.

Prints a line when it is about to make its first change.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bpftune.ipc.declaration import Scope, Tunable
from bpftune.ipc.messages import GLOBAL, Netns, Proposal
from bpftune.supervisor.ledger import Ledger
from bpftune.supervisor.ledger_rows import Intent
from bpftune.supervisor.tunables import read_tunable

TUNABLE = Tunable(name="net.ipv4.tcp_mem", scope=Scope.GLOBAL, width=3)
NETNS = Netns(cookie=GLOBAL, name="global", initial=True)


def main() -> None:
    root = Path(sys.argv[1])
    proc = root / "proc"
    file = proc / "sys/net/ipv4/tcp_mem"
    ledger = Ledger(root / "state", proc_root=proc)
    print("ready", flush=True)
    while True:
        before = read_tunable(TUNABLE, proc_root=proc)
        new = (*before.value[:2], before.value[2] + 1)
        proposal = Proposal(
            tunable=TUNABLE.name,
            netns_cookie=GLOBAL,
            expected=before.value,
            new=new,
            scenario="s",
            reason="r",
        )
        change = ledger.begin(
            Intent(tuner="t", tunable=TUNABLE, netns=NETNS, proposal=proposal, before=before)
        )
        # A sysctl changes at once; so does a file that is renamed over.
        aside = file.with_suffix(".new")
        aside.write_text("\t".join(map(str, new)) + "\n")
        aside.rename(file)
        ledger.finish(change, "applied", seen=read_tunable(TUNABLE, proc_root=proc).value)


if __name__ == "__main__":
    main()
