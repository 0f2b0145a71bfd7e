# SPDX-License-Identifier: GPL-2.0-or-later
"""bpftune as on a kernel without tracing programs: what is left are cgroup programs, sockops and /proc.

no_tracing.py BPFTUNE [ARGUMENTS]
"""

from __future__ import annotations

import runpy
import sys

from bpftune.bpf import ladder
from bpftune.bpf.hooks import unavailable
from bpftune.ipc.declaration import Hook

LEFT = ("cgroup", "sockops", "iter", "poll")
REASON = "no tracing programs in this kernel"


def refuse_tracing(hook: Hook) -> str | None:
    return unavailable(hook) if hook.kind in LEFT else REASON


if __name__ == "__main__":
    ladder.unavailable = refuse_tracing  # type: ignore[attr-defined]
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
