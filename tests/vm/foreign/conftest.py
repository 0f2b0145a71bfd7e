# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixtures of the kernel tests, on machines that are set up in unusual ways."""

from __future__ import annotations

from tests.kernel.conftest import compiled, daemon_directory, distant, machine_restored, start_daemon

__all__ = ["compiled", "daemon_directory", "distant", "machine_restored", "start_daemon"]
