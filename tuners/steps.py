# SPDX-License-Identifier: GPL-2.0-or-later
"""The arithmetic of one step. `shift` is 6 - learning rate: at the default, 2, a limit counts as
nearly reached within 25 % and moves by 25 %."""

from __future__ import annotations


def grow(value: int, shift: int) -> int:
    """`value` one step up, at least by 1."""
    return value + max(1, value >> shift)


def shrink(value: int, shift: int) -> int:
    """`value` one step down, at least by 1: a small one must not stay where it is for ever."""
    return max(0, value - max(1, value >> shift))


def nearly_full(value: int, limit: int, shift: int) -> bool:
    """Whether `value` is within one step of `limit`."""
    return value + (limit >> shift) >= limit
