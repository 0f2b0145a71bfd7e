# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests in here change the machine that they run on: they are collected in a throwaway one only.

`make test-vm` boots it; guest/bpftune-vm sets VM_SHARE there.
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if "VM_SHARE" in os.environ else ["service/*", "package/*", "foreign/*", "boot/*"]
