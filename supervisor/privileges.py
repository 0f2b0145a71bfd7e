# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this process is root in earnest: a container's root may lack what everything here needs.

main.py asks before anything else, so that a container gets one line and not one per thing refused.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from bpftune.ipc.errors import NotPermitted

# include/uapi/linux/capability.h. Some kernels know CAP_BPF and CAP_PERFMON, on all CAP_SYS_ADMIN will do.
NEEDED = {"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}

_INITIAL_PIDS = f"pid:[{0xEFFFFFFC}]"
"""PROC_PID_INIT_INO in include/linux/proc_ns.h"""

_ALL_USERS = ["0", "0", str(2**32 - 1)]
"""/proc/self/uid_map of the initial user namespace, user_namespaces(7)"""


def check_privileges(proc_self: Path = Path("/proc/self")) -> None:
    """Raises NotPermitted with what is missing."""
    if os.geteuid() != 0:
        raise NotPermitted("bpftune needs root: it loads BPF programs and writes sysctls")
    if (proc_self / "uid_map").read_text().split() != _ALL_USERS:
        raise NotPermitted(
            "bpftune needs root of the host: root of a user namespace (an unprivileged container)"
            " may neither load BPF programs nor write the host's sysctls"
        )
    if missing := missing_capabilities((proc_self / "status").read_text()):
        raise NotPermitted(
            f"bpftune needs {', '.join(missing)}, which this process (a container?) does not have"
        )
    if os.readlink(proc_self / "ns/pid") != _INITIAL_PIDS:
        raise NotPermitted(
            "bpftune needs the host's pid namespace (a container: --pid=host): its own writes to sysctls are"
            " told from those of others by the pid"
        )


def missing_capabilities(status: str) -> list[str]:
    """Those of NEEDED that /proc/PID/status does not show as effective."""
    found = re.search(r"^CapEff:\t([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return [name for name, bit in NEEDED.items() if not effective >> bit & 1]
