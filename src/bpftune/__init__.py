# SPDX-License-Identifier: GPL-2.0-or-later
"""bpftune tunes the kernel's network settings by itself; see ARCHITECTURE.md."""

__version__ = "0.1.0"
