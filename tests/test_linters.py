# SPDX-License-Identifier: GPL-2.0-or-later
"""The linters, as tests: `make lint` runs this file and test_layers.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import require_command

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
FOLDERS = ("bpf", "ctl", "docs", "ipc", "supervisor", "tests", "tools", "tuners", "workers")
SHELL_SCRIPTS = (
    ".ci/run",
    *(f"tools/{name}" for name in ("setup", "install", "uninstall", "demo", "package")),
    *(f"tests/packages/{name}" for name in ("deb_lifecycle", "debian_root")),
    *(f"packaging/debian/bpftune-python.{name}" for name in ("postinst", "prerm", "postrm")),
    "packaging/debian/rtupdate",
    *("tests/vm/build-image", "tests/vm/guest/bpftune-vm", "tests/vm/guest/init"),
)


def test_ruff_format() -> None:
    check(str(BIN / "ruff"), "format", "--check", "--diff", ".")


def test_ruff() -> None:
    check(str(BIN / "ruff"), "check", ".")


@pytest.mark.timeout(600)
def test_mypy() -> None:
    check(str(BIN / "mypy"))


@pytest.mark.timeout(600)
def test_mypy_of_tests_tools_and_examples() -> None:
    policies = [str(path) for path in (ROOT / "docs").rglob("policy.py")]
    check(str(BIN / "mypy"), "tests", "tools", *policies)


def test_clang_format() -> None:
    sources = [str(path) for path in c_sources()]
    check(require_command("clang-format"), "--dry-run", "-Werror", "--style=file", *sources)


def test_shellcheck() -> None:
    check(require_command("shellcheck"), *SHELL_SCRIPTS)


def test_every_source_names_its_licence() -> None:
    python = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    scripts = [ROOT / script for script in SHELL_SCRIPTS]
    unmarked = [str(path) for path in (*python, *c_sources(), *scripts) if not is_marked(path)]

    assert not unmarked


def c_sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.[ch]"))


def is_marked(path: Path) -> bool:
    return "SPDX-License-Identifier: GPL-2.0-or-later" in path.read_text()[:200]


def check(*argv: str) -> None:
    """Fail with what the linter printed; all of it, since it names the places."""
    done = subprocess.run(
        argv,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        pytest.fail(f"{Path(argv[0]).name} {' '.join(argv[1:3])}\n{done.stdout}", pytrace=False)
