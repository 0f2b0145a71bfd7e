# SPDX-License-Identifier: GPL-2.0-or-later
"""The BPF layer: layouts from BTF, compiling, cached programs, hooks, the ring buffer.

runtime.py is the door for the supervisor; unit.py, btf.py, layout.py and compiler.py are what the
compiler child runs. Nothing is imported here, so that the child stays with the standard library.
"""
