# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads a policy: read while we may, executed when we may nothing.

`read_source` runs with the fork server's rights, since a folder need not be readable for the
worker's user; it executes nothing. `load_policy` runs the tuner's code and is called unprivileged.

policy.py may be split: it is the package `policy` then, whose modules are the folder's other Python
files (`from .memory import make_room`).
"""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from bpftune.ipc.declaration import POLICY_FILE
from bpftune.ipc.errors import DeclarationError
from bpftune.tuners.base import Policy

_PACKAGE = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    folder: Path
    code: bytes
    modules: Mapping[str, bytes] = field(default_factory=dict)
    """The code of the folder's other Python files, by module name."""

    @property
    def path(self) -> str:
        return str(self.folder / POLICY_FILE)


def read_source(folder: Path) -> PolicySource:
    """Raises DeclarationError."""
    try:
        code = (folder / POLICY_FILE).read_bytes()
        others = [
            path for path in folder.glob("*.py") if path.stem.isidentifier() and path.name != POLICY_FILE
        ]
        modules = {path.stem: path.read_bytes() for path in others}
    except OSError as error:
        file = Path(error.filename or POLICY_FILE).name
        raise DeclarationError(folder, f"{file}: {error.strerror}") from error
    return PolicySource(folder=folder, code=code, modules=modules)


def load_policy(source: PolicySource) -> Policy[Any]:
    """Execute policy.py and make its one Policy. Raises DeclarationError, whatever is wrong with it."""
    try:
        module = _execute(source)
        policy = _find(source, module)
        return policy()
    except DeclarationError:
        raise
    except (Exception, SystemExit) as error:
        cause = f"{POLICY_FILE}, line {_line(source, error)}: {type(error).__name__}: {error}"
        raise DeclarationError(source.folder, cause) from error


def _find(source: PolicySource, module: ModuleType) -> type[Policy[Any]]:
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
    return classes[0]


class _Modules(MetaPathFinder, Loader):
    """Imports the folder's other files as modules of the package."""

    def __init__(self, source: PolicySource) -> None:
        self._source = source

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = name.rpartition(".")
        return (
            spec_from_loader(name, self) if package == _PACKAGE and module in self._source.modules else None
        )

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.rpartition(".")[2]
        _run(module, self._source.modules[name], str(self._source.folder / f"{name}.py"))


def _execute(source: PolicySource) -> ModuleType:
    _forget_earlier()
    sys.meta_path.append(_Modules(source))
    module = ModuleType(_PACKAGE)
    module.__package__ = _PACKAGE
    module.__path__ = []
    # msgspec resolves a record's annotations through sys.modules.
    sys.modules[_PACKAGE] = module
    _run(module, source.code, source.path)
    return module


def _run(module: ModuleType, code: bytes, path: str) -> None:
    # Tracebacks quote the source, which the worker itself may be unable to read.
    lines = code.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[path] = (len(code), None, lines, path)
    module.__file__ = path
    exec(compile(code, path, "exec", dont_inherit=True), module.__dict__)


def _forget_earlier() -> None:
    """A process that loads several policies, as tests do, must not mix their modules."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Modules)]
    for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]:
        del sys.modules[name]


def _line(source: PolicySource, error: BaseException) -> int:
    """Where in policy.py it happened, or what called that."""
    if isinstance(error, SyntaxError) and error.filename == source.path:
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == source.path), 0)


def _check_state(source: PolicySource, policy: type[Policy[Any]]) -> None:
    state = getattr(policy, "State", None)
    if not (isinstance(state, type) and issubclass(state, msgspec.Struct)):
        raise DeclarationError(source.folder, f"{policy.__name__}.State is not a msgspec.Struct")
    try:
        state()
    except TypeError as error:
        raise DeclarationError(source.folder, f"{policy.__name__}.State needs defaults: {error}") from error
