# SPDX-License-Identifier: GPL-2.0-or-later
"""No import goes the wrong way: the layer table of ARCHITECTURE.md is the rule."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| `(\w+)/` \|[^|]*\| ([^|]*) \|$", re.MULTILINE)
POLICY_MAY_IMPORT = {"bpftune.ipc", "bpftune.tuners", "msgspec"}
IMPURE = {"io", "os", "pathlib", "random", "socket", "subprocess", "threading", "time"}
"""A policy has no I/O and no clock of its own."""


def layer_table() -> dict[str, set[str]]:
    """Folder -> what it may import besides itself and the standard library."""
    rows = ROW.findall((ROOT / "ARCHITECTURE.md").read_text())
    return {folder: set(re.findall(r"[\w.]+", allowed)) - {"stdlib"} for folder, allowed in rows}


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, at any depth; relative ones start with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from bpftune import ipc` names a folder as much as `import bpftune.ipc` does.
            names = [f"bpftune.{alias.name}" for alias in node.names] if module == "bpftune" else [module]
            yield from ((node.lineno, name) for name in names)


def wrong_imports(source: str, folder: str, table: dict[str, set[str]]) -> list[tuple[int, str]]:
    """The imports in `source` that a file of `folder` may not have."""
    allowed = table[folder] | {folder}
    return [(line, name) for line, name in imported_modules(source) if not is_allowed(name, allowed, table)]


def is_allowed(module: str, allowed: set[str], table: dict[str, set[str]]) -> bool:
    top, _, rest = module.partition(".")
    if top == "bpftune":
        layer = rest.partition(".")[0]
        return layer in allowed or layer not in table  # bpftune itself: the version
    return top in sys.stdlib_module_names or (top in allowed and top not in table)


@pytest.mark.parametrize("folder", ["ipc", "bpf", "tuners", "workers", "supervisor", "ctl"])
def test_imports_follow_the_layers(folder: str) -> None:
    table = layer_table()
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {folder}/ may not import {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, name in wrong_imports(path.read_text(), folder, table)
        if not (is_beside(name) and path.parent.parent == ROOT / "tuners")
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "policy",
    sorted((*ROOT.glob("tuners/*/*.py"), *ROOT.glob("docs/**/policy.py"))),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_policies_are_pure(policy: Path) -> None:
    wrong = [
        f"{policy.relative_to(ROOT)}:{line}: a policy may not import {name}"
        for line, name in imported_modules(policy.read_text())
        if not is_pure(name) and not is_beside(name)
    ]

    assert not wrong, "\n".join(wrong)


def is_beside(module: str) -> bool:
    """What a policy that was split imports of its own folder."""
    return re.fullmatch(r"\.\w*", module) is not None


def is_pure(module: str) -> bool:
    top = module.partition(".")[0]
    if top == "bpftune":
        return ".".join(module.split(".")[:2]) in POLICY_MAY_IMPORT
    return top in POLICY_MAY_IMPORT or (top in sys.stdlib_module_names and top not in IMPURE)


def test_table_names_every_folder_of_code() -> None:
    linked = {link.name for link in (ROOT / "src/bpftune").iterdir() if link.is_symlink()}

    assert linked <= set(layer_table())


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("import bpftune.supervisor.loop", "ipc"),
        ("from bpftune import workers", "supervisor"),
        ("def f():\n    from bpftune.bpf.runtime import Bpf", "ctl"),
        ("import supervisor", "ctl"),
        ("from . import errors", "ipc"),
        ("import zmq", "tuners"),
    ],
)
def test_a_wrong_import_is_found(source: str, folder: str) -> None:
    assert wrong_imports(source, folder, layer_table())


def test_a_right_import_is_not() -> None:
    source = (
        "import os\nimport zmq\nfrom bpftune.ipc.errors import BpftuneError\nfrom bpftune import __version__"
    )

    assert not wrong_imports(source, "supervisor", layer_table())


def test_the_supervisors_modules_are_all_on_the_map() -> None:
    _, _, rest = (ROOT / "ARCHITECTURE.md").read_text().partition("### supervisor/")
    section = rest.partition("\n## ")[0]
    assert sorted(re.findall(r"`(\w+)`", section)) == sorted(
        path.stem for path in (ROOT / "supervisor").glob("*.py") if path.stem != "__init__"
    )
