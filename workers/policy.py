# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads a policy: read while we may, executed when we may nothing.

`read_source` runs with the fork server's rights, since a folder need not be readable for the
worker's user; it executes nothing, nor does `compile_policy`. `load_policy` runs the tuner's code
and is called unprivileged.

policy.py may be split: it is the package `policy` then, and the folder's other Python files are its
modules (`from .memory import make_room`).
"""

from __future__ import annotations

import linecache
import marshal
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast

import msgspec

from bpftune.ipc.declaration import POLICY_FILE
from bpftune.ipc.errors import DeclarationError
from bpftune.tuners.base import Policy

_PACKAGE = "policy"
_SUFFIX = ".py"

Codes = dict[str, CodeType]
"""What a folder's files compile to, by module name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    folder: str
    text: bytes
    modules: Mapping[str, bytes] = field(default_factory=dict)
    """The folder's other Python files, by module name."""

    @property
    def texts(self) -> dict[str, bytes]:
        return {_PACKAGE: self.text, **self.modules}

    def path(self, module: str = _PACKAGE) -> str:
        return f"{self.folder}/{module}{_SUFFIX}"

    def refused(self, cause: str) -> DeclarationError:
        return DeclarationError(Path(self.folder), cause)


def read_source(folder: str) -> PolicySource:
    """Raises DeclarationError."""
    names = [POLICY_FILE]
    try:
        names += [name for name in os.listdir(folder) if _is_module(name)]
        texts = {name.removesuffix(_SUFFIX): _read(f"{folder}/{name}") for name in names}
    except OSError as error:
        file = os.path.basename(error.filename or folder)
        raise DeclarationError(Path(folder), f"{file}: {error.strerror}") from error
    return PolicySource(folder=folder, text=texts.pop(_PACKAGE), modules=texts)


def compile_policy(source: PolicySource) -> Codes:
    """Raises SyntaxError, or ValueError for text that is not even that."""
    return {
        module: compile(text, source.path(module), "exec", dont_inherit=True)
        for module, text in source.texts.items()
    }


def load_policy(source: PolicySource, marshalled: bytes = b"", *, evaluates: bool = False) -> Policy[Any]:
    """Execute policy.py and make its one Policy. Raises DeclarationError, whatever is wrong with it.

    `marshalled` is what `compile_policy` made of it, when somebody has called that already. A tuner
    with strategies needs a policy that `evaluates` them.
    """
    try:
        module = _execute(source, marshal.loads(marshalled) if marshalled else compile_policy(source))
        policy = _find(source, module)
        if evaluates and policy.evaluate is Policy.evaluate:
            raise source.refused(f"{policy.__name__} has strategies to evaluate, but no evaluate()")
        return policy()
    except DeclarationError:
        raise
    except (Exception, SystemExit) as error:
        text = error.msg if isinstance(error, SyntaxError) else error
        raise source.refused(f"{_place(source, error)}: {type(error).__name__}: {text}") from error


def _is_module(name: str) -> bool:
    return name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX).isidentifier() and name != POLICY_FILE


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


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


class _Modules:
    """Finder and loader of the folder's other files as modules of the package. The base classes for
    that would only cost their import."""

    def __init__(self, source: PolicySource, codes: Codes) -> None:
        self._source = source
        self._codes = codes

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = name.rpartition(".")
        return ModuleSpec(name, cast("Any", self)) if package == _PACKAGE and module in self._codes else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Import makes it."""

    def exec_module(self, module: ModuleType) -> None:
        self.run(module.__name__.rpartition(".")[2], module)

    def run(self, name: str, module: ModuleType) -> None:
        path, text = self._source.path(name), self._source.texts[name]
        # Tracebacks quote the source, which the worker itself may be unable to read.
        lines = text.decode(errors="replace").splitlines(keepends=True)
        linecache.cache[path] = (len(text), None, lines, path)
        module.__file__ = path
        exec(self._codes[name], module.__dict__)


def _execute(source: PolicySource, codes: Codes) -> ModuleType:
    _forget_earlier()
    modules = _Modules(source, codes)
    sys.meta_path.append(modules)
    package = ModuleType(_PACKAGE)
    package.__package__ = _PACKAGE
    package.__path__ = []
    # msgspec resolves a record's annotations through sys.modules.
    sys.modules[_PACKAGE] = package
    modules.run(_PACKAGE, package)
    return package


def _forget_earlier() -> None:
    """A process that loads several policies, as tests do, must not mix their modules."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Modules)]
    for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]:
        del sys.modules[name]


def _place(source: PolicySource, error: BaseException) -> str:
    """Where in the folder's files it happened, or what called that."""
    files = {source.path(module) for module in source.texts}
    path, line = source.path(), 0
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename in files:
            path, line = frame.filename, frame.lineno or 0
    if isinstance(error, SyntaxError) and error.filename in files:
        path, line = error.filename, error.lineno or 0
    return f"{os.path.basename(path)}, line {line}"


def _check_state(source: PolicySource, policy: type[Policy[Any]]) -> None:
    state = getattr(policy, "State", None)
    if not (isinstance(state, type) and issubclass(state, msgspec.Struct)):
        raise source.refused(f"{policy.__name__}.State is not a msgspec.Struct")
    try:
        state()
    except TypeError as error:
        raise source.refused(f"{policy.__name__}.State needs defaults: {error}") from error
