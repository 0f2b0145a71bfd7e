# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads a policy: read while we may, executed when we may nothing.

`read_source` runs with the fork server's rights, since a folder need not be readable for the
worker's user; it executes nothing. `load_policy` runs the tuner's code and is called unprivileged.
"""

from __future__ import annotations

import linecache
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from bpftune.ipc.declaration import POLICY_FILE
from bpftune.ipc.errors import DeclarationError
from bpftune.tuners.base import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    folder: Path
    text: str


def read_source(folder: Path) -> PolicySource:
    """Raises DeclarationError."""
    try:
        text = (folder / POLICY_FILE).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(folder, f"{POLICY_FILE}: {error}") from error
    return PolicySource(folder=folder, text=text)


def load_policy(source: PolicySource) -> Policy[Any]:
    """Execute policy.py and make its one Policy. Raises DeclarationError, or whatever policy.py raises."""
    module = _execute(source)
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Policy) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise DeclarationError(
            source.folder, f"{POLICY_FILE} defines {len(classes)} subclasses of Policy, not one"
        )
    _check_state(source, classes[0])
    return classes[0]()


def _execute(source: PolicySource) -> ModuleType:
    path = str(source.folder / POLICY_FILE)
    # Tracebacks quote the source, which the worker itself may be unable to read.
    linecache.cache[path] = (len(source.text), None, source.text.splitlines(keepends=True), path)
    module = ModuleType("policy")
    module.__file__ = path
    # msgspec resolves a record's annotations through sys.modules.
    sys.modules[module.__name__] = module
    exec(compile(source.text, path, "exec", dont_inherit=True), module.__dict__)
    return module


def _check_state(source: PolicySource, policy: type[Policy[Any]]) -> None:
    state = getattr(policy, "State", None)
    if not (isinstance(state, type) and issubclass(state, msgspec.Struct)):
        raise DeclarationError(source.folder, f"{policy.__name__}.State is not a msgspec.Struct")
    try:
        state()
    except TypeError as error:
        raise DeclarationError(source.folder, f"{policy.__name__}.State needs defaults: {error}") from error
