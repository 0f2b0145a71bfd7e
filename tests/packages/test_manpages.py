# SPDX-License-Identifier: GPL-2.0-or-later
"""The man pages: one for each page of docs/, found good by mandoc and by man itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.packages.conftest import ROOT
from tests.requirements import require_command
from tools import manpages

DOCS = ROOT / "docs"
MAN = Path("usr/share/man")


def pages(staged: Path) -> list[Path]:
    return sorted(path for path in (staged / MAN).rglob("*") if path.is_file())


def test_every_page_of_the_docs_is_a_man_page(staged: Path) -> None:
    names = {path.stem for path in (*DOCS.glob("*.md"), *DOCS.glob("tuners/*.md"))}
    names -= {"bpftune", "bpftune-ctl"}
    expected = {"man8/bpftune.8", "man1/bpftune-ctl.1", *(f"man7/bpftune-{name}.7" for name in names)}

    assert {str(path.relative_to(staged / MAN)) for path in pages(staged)} == expected


def test_every_tuner_has_its_page(staged: Path) -> None:
    for declaration in (ROOT / "tuners").glob("*/tuner.toml"):
        assert (staged / MAN / f"man7/bpftune-{declaration.parent.name}.7").exists()


def test_a_new_page_of_a_tuner_is_enough(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs)
    (docs / "tuners/time_wait.md").write_text("# time_wait\n\nKeeps `tw` in\nbounds. And more.\n")

    page = next(page for page in manpages.read_pages(docs) if page.name == "bpftune-time_wait")

    assert str(page.file) == "man7/bpftune-time_wait.7"
    assert page.summary == "keeps tw in bounds"


def test_mandoc_finds_nothing_wrong(staged: Path) -> None:
    paths = [str(path) for path in pages(staged)]
    done = subprocess.run(
        [require_command("mandoc"), "-T", "lint", "-W", "warning", *paths],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_man_shows_them_without_warnings(staged: Path) -> None:
    for path in pages(staged):
        assert show(path).stderr == ""


def test_tables_are_lists_of_definitions(staged: Path) -> None:
    text = show(staged / MAN / "man8/bpftune.8").stdout

    assert "       -a, --allow TUNER\n" in text
    assert "Default: /var/lib/bpftune." in text
    assert "|" not in text


def test_pages_refer_to_each_other(staged: Path) -> None:
    text = show(staged / MAN / "man8/bpftune.8").stdout
    see_also = " ".join(text[text.index("SEE ALSO") :].split())

    assert "bpftune-ctl(1)" in see_also
    assert "bpftune-tcp_buffer(7)" in see_also


def test_a_page_says_in_one_line_what_it_is_about(staged: Path) -> None:
    for path in pages(staged):
        lines = show(path).stdout.splitlines()
        name = " ".join(lines[lines.index("NAME") + 1 : lines.index("NAME") + 4]).split(" - ")
        assert name[0].strip() == path.stem
        assert name[1].strip()


def show(page: Path) -> subprocess.CompletedProcess[str]:
    """As a terminal of many columns would, so that lines stay whole."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "400", "MANROFFOPT": ""}
    return subprocess.run(
        [require_command("man"), "--warnings", "--local-file", "--no-justification", str(page)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
