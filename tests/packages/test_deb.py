# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package: what lintian says, what is inside, and its life in a fresh Debian 12 and 13.

Services do not run in a chroot; deb_lifecycle, which does the checking, sees to them where it runs under
systemd.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.packages.conftest import ROOT, run
from tests.packages.roots import run_in, unpack_root
from tests.requirements import require_command

pytestmark = [pytest.mark.packages, pytest.mark.timeout(900)]

NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "build", "dist"
)
# Left out: what the hypothesis of here comes upon at random, and older ones may not.
UNIT_TESTS = """
mkdir -p /dev/pts && mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && ln -sf pts/ptmx /dev/ptmx
export PYTHONPATH=/checkout/src
cd /checkout && python3 -m pytest -q -W default -p no:cacheprovider -k 'not in_vain' tests/unit
"""


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"), revision="1")


def build(folder: Path, *, revision: str) -> Path:
    require_command("dh")
    run("tools/package", "deb", str(folder), REVISION=revision)
    [package] = folder.glob("*.deb")
    return package


def test_lintian_finds_nothing(deb: Path) -> None:
    assert run(require_command("lintian"), "--allow-root", "--no-cfg", str(deb)) == ""


def test_a_second_build_is_the_same(deb: Path, tmp_path: Path) -> None:
    assert build(tmp_path, revision="1").read_bytes() == deb.read_bytes()


def test_it_holds_what_make_install_puts_there(deb: Path, staged: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--extract", str(deb), str(tmp_path))

    missing = [name for name in installed_names(staged) if not (tmp_path / name).exists()]
    assert missing == []


def installed_names(staged: Path) -> list[str]:
    """As Debian has them: man pages are compressed, zsh looks in another folder, no byte code."""
    paths = (path.relative_to(staged) for path in staged.rglob("*") if not path.is_dir())
    names = (str(path) for path in paths if path.suffix != ".pyc" and ".dist-info" not in str(path))
    return [
        f"{name}.gz" if "/man/" in name else name.replace("zsh/site-functions", "zsh/vendor-completions")
        for name in names
        if not name.endswith("bin/python3")  # a link to what only the installed system has
    ]


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_install_upgrade_remove_and_purge(deb: Path, suite: str, tmp_path: Path) -> None:
    newer = build(tmp_path, revision="2")
    root = unpack_root(suite, tmp_path)
    (root / "packages").mkdir()
    for file in (deb, newer, ROOT / "tests/packages/deb_lifecycle"):
        shutil.copy(file, root / "packages")

    said = run_in(
        *(root, "sh", "/packages/deb_lifecycle"), f"/packages/{deb.name}", f"/packages/{newer.name}"
    )

    assert said.endswith("deb_lifecycle: all checks passed\n")


def test_it_works_with_the_python_and_msgspec_of_debian_13(deb: Path, tmp_path: Path) -> None:
    """Newer than what the checkout's own venv has, and older."""
    root = unpack_root("trixie", tmp_path)
    shutil.copy(deb, root)
    shutil.copytree(ROOT, root / "checkout", symlinks=True, ignore=NOT_SOURCES)
    tools = "python3-pytest python3-pytest-timeout python3-hypothesis"
    run_in(root, "sh", "-c", f"apt-get -q update && apt-get -q -y install /{deb.name} {tools}")

    run_in(root, "sh", "-c", UNIT_TESTS)
