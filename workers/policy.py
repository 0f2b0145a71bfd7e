# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads a policy: read while we may, executed when we may nothing.

`read_source` runs with the fork server's rights, since a folder need not be readable for the
worker's user; it executes nothing, nor does `compile_policy`. `load_policy` runs the tuner's code
and is called unprivileged.
"""

from __future__ import annotations

import linecache
import marshal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import msgspec

from bpftune.ipc.declaration import POLICY_FILE
from bpftune.ipc.errors import DeclarationError
from bpftune.tuners.base import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    folder: str
    text: bytes

    @property
    def path(self) -> str:
        return f"{self.folder}/{POLICY_FILE}"

    def refused(self, cause: str) -> DeclarationError:
        return DeclarationError(Path(self.folder), cause)


def read_source(folder: str) -> PolicySource:
    """Raises DeclarationError."""
    try:
        with open(f"{folder}/{POLICY_FILE}", "rb") as file:
            text = file.read()
    except OSError as error:
        raise DeclarationError(Path(folder), f"{POLICY_FILE}: {error.strerror}") from error
    return PolicySource(folder=folder, text=text)


def compile_policy(source: PolicySource) -> CodeType:
    """Raises SyntaxError, or ValueError for text that is not even that."""
    code: CodeType = compile(source.text, source.path, "exec", dont_inherit=True)
    return code


def load_policy(source: PolicySource, marshalled: bytes = b"") -> Policy[Any]:
    """Execute policy.py and make its one Policy. Raises DeclarationError, whatever is wrong with it.

    `marshalled` is what `compile_policy` made of it, when somebody has called that already.
    """
    try:
        module = _execute(source, marshal.loads(marshalled) if marshalled else compile_policy(source))
        policy = _find(source, module)
        return policy()
    except DeclarationError:
        raise
    except (Exception, SystemExit) as error:
        text = error.msg if isinstance(error, SyntaxError) else error
        cause = f"{POLICY_FILE}, line {_line(source, error)}: {type(error).__name__}: {text}"
        raise source.refused(cause) from error


def _find(source: PolicySource, module: ModuleType) -> type[Policy[Any]]:
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Policy) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise source.refused(f"{POLICY_FILE} defines {len(classes)} subclasses of Policy, not one")
    _check_state(source, classes[0])
    return classes[0]


def _execute(source: PolicySource, code: CodeType) -> ModuleType:
    # Tracebacks quote the source, which the worker itself may be unable to read.
    lines = source.text.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[source.path] = (len(source.text), None, lines, source.path)
    module = ModuleType("policy")
    module.__file__ = source.path
    # msgspec resolves a record's annotations through sys.modules.
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    return module


def _line(source: PolicySource, error: BaseException) -> int:
    """Where in policy.py it happened, or what called that."""
    if isinstance(error, SyntaxError) and error.filename == source.path:
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == source.path), 0)


def _check_state(source: PolicySource, policy: type[Policy[Any]]) -> None:
    state = getattr(policy, "State", None)
    if not (isinstance(state, type) and issubclass(state, msgspec.Struct)):
        raise source.refused(f"{policy.__name__}.State is not a msgspec.Struct")
    try:
        state()
    except TypeError as error:
        raise source.refused(f"{policy.__name__}.State needs defaults: {error}") from error
