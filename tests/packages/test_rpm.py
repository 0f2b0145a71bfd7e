# SPDX-License-Identifier: GPL-2.0-or-later
"""The rpm package: the same content as the Debian one, and its life in a root of its own.

That root is a Debian with what the package requires, since its scriptlets need a system to run in; rpm's
own dependencies have other names there and are not checked.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bpftune import __version__
from tests.packages.conftest import run
from tests.packages.roots import run_in, succeeds_in, unpack_root
from tests.requirements import require_command

pytestmark = [pytest.mark.packages, pytest.mark.timeout(900)]

REQUIRED = "libbpf1 python3-bpfcc python3-psutil python3-systemd python3-zmq systemd"


@pytest.fixture(scope="module")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("rpm"), revision="1")


def build(folder: Path, *, revision: str) -> Path:
    require_command("rpmbuild")
    run("tools/package", "rpm", str(folder), REVISION=revision)
    [package] = folder.glob("*.rpm")
    return package


def test_a_second_build_is_the_same(rpm: Path, tmp_path: Path) -> None:
    assert build(tmp_path, revision="1").read_bytes() == rpm.read_bytes()


def test_it_holds_what_make_install_puts_there(rpm: Path, staged: Path) -> None:
    listed = set(run("rpm", "--query", "--list", "--package", str(rpm)).split())
    paths = (path for path in staged.rglob("*") if not path.is_dir())
    names = (f"/{path.relative_to(staged)}" for path in paths if path.suffix != ".pyc")

    assert [name for name in names if name not in listed and ".dist-info/" not in name] == []


def test_it_conflicts_with_the_one_in_c(rpm: Path) -> None:
    assert run("rpm", "--query", "--conflicts", "--package", str(rpm)) == "bpftune\n"


def test_install_upgrade_and_remove(rpm: Path, tmp_path: Path) -> None:
    newer = build(tmp_path, revision="2")
    root = unpack_root("bookworm", tmp_path)
    run_in(root, "sh", "-c", f"apt-get -q update && apt-get -q -y install {REQUIRED}")
    proc = f"--mount-proc={root}/proc"
    rpm_in_root = ("unshare", "--mount", "--pid", "--fork", proc, "rpm", "--root", str(root), "--nodeps")

    assert "rror" not in run(*rpm_in_root, "--install", str(rpm))
    assert run_in(root, "bpftune", "-V") == f"bpftune {__version__}\n"
    assert list((root / "usr/lib/bpftune").rglob("*.pyc"))
    assert succeeds_in(root, "getent", "passwd", "bpftune")
    ledger = root / "var/lib/bpftune/ledger"
    ledger.touch()

    assert "rror" not in run(*rpm_in_root, "--upgrade", str(newer))
    assert run_in(root, "bpftune-ctl", "-V") == f"bpftune-ctl {__version__}\n"

    assert "rror" not in run(*rpm_in_root, "--erase", "bpftune-python")
    assert not (root / "usr/lib/bpftune").exists()
    assert not succeeds_in(root, "sh", "-c", "command -v bpftune")
    assert ledger.exists()
