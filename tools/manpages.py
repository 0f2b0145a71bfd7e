# SPDX-License-Identifier: GPL-2.0-or-later
"""Man pages from docs/*.md and docs/tuners/*.md: `python -m tools.manpages MANDIR`.

tools/install calls it. Every page of docs/ is turned into the shape that man pages have (NAME, SYNOPSIS,
lists of definitions where Markdown has tables) and then by go-md2man into roff. A new file in
docs/tuners is a new page bpftune-NAME(7); nothing else lists them. It must never change docs/.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bpftune import __version__

DOCS = Path(__file__).resolve().parents[1] / "docs"
CONVERTER = "go-md2man"
_COMMAND_TITLE = re.compile(r"# (?P<name>[\w-]+)\((?P<section>\d)\): (?P<summary>.+)")
_LINK = re.compile(r"\[(?P<text>[^]]+)\]\((?P<target>[^)]+)\)")
_CELL_BORDER = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    source: Path
    name: str
    section: int
    summary: str
    body: str
    """Markdown without its title."""

    @property
    def file(self) -> Path:
        return Path(f"man{self.section}") / f"{self.name}.{self.section}"

    @property
    def reference(self) -> str:
        return f"**{self.name}**({self.section})"


def main(man_dir: Path) -> None:
    pages = read_pages(DOCS)
    for page in pages:
        path = man_dir / page.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_roff(to_man_markdown(page, pages, date_of(page.source))))


def read_pages(docs: Path) -> list[Page]:
    commands = [_read_command(path) for path in sorted(docs.glob("*.md"))]
    return commands + [_read_tuner(path) for path in sorted(docs.glob("tuners/*.md"))]


def _read_command(path: Path) -> Page:
    title, _, body = path.read_text().partition("\n")
    match = _COMMAND_TITLE.fullmatch(title)
    if match is None:
        raise SystemExit(f"manpages: cannot use {path}: its title is not '# NAME(SECTION): SUMMARY'")
    return Page(
        source=path, name=match["name"], section=int(match["section"]), summary=match["summary"], body=body
    )


def _read_tuner(path: Path) -> Page:
    """The first sentence of a tuner's page is its summary."""
    body = path.read_text().partition("\n")[2]
    first_paragraph = " ".join(body.strip().partition("\n\n")[0].split())
    sentence = re.split(r"[.:;](?:\s|$)", first_paragraph, maxsplit=1)[0]
    summary = sentence[:1].lower() + sentence[1:].replace("`", "")
    return Page(source=path, name=f"bpftune-{path.stem}", section=7, summary=summary, body=body)


def date_of(path: Path) -> str:
    """Of the last commit where the caller says it, for builds that can be repeated."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or path.stat().st_mtime)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def to_man_markdown(page: Page, pages: Iterable[Page], date: str) -> str:
    title = f'# {page.name.upper()} {page.section} {date} "bpftune {__version__}" "bpftune"'
    sections = [title, "# NAME", f"{page.name} - {page.summary}", *_opening(page.body)]
    others = ", ".join(other.reference for other in pages if other is not page)
    text = "\n\n".join([*sections, "# SEE ALSO", f"{others}, **sysctl**(8)"])
    return _resolve_links(text, {other.source.name: other for other in pages}) + "\n"


def _opening(body: str) -> list[str]:
    """The body with SYNOPSIS over the block that shows the command and DESCRIPTION over what follows."""
    text = re.sub(r"^## (.+)$", lambda match: "# " + match[1].upper(), body.strip("\n"), flags=re.MULTILINE)
    text = re.sub(r"^### ", "## ", text, flags=re.MULTILINE)
    text = "\n".join(_tables_to_definitions(text.split("\n")))
    if not text.startswith("    "):
        return ["# DESCRIPTION", text]
    synopsis, _, rest = text.partition("\n\n")
    return ["# SYNOPSIS", synopsis, "# DESCRIPTION", rest]


def _tables_to_definitions(lines: Iterable[str]) -> Iterator[str]:
    """A row's first cell is the term. What it means comes first behind it, the rest with its heading."""
    for is_table, block in groupby(lines, key=lambda line: line.startswith("|")):
        if not is_table:
            yield from block
            continue
        header, _rule, *rows = [_cells(line) for line in block]
        for row in rows:
            yield from (row[0] or "-", ": " + _definition(header[1:], row[1:]), "")


def _definition(header: list[str], cells: list[str]) -> str:
    meaning = 0 if len(cells) == 1 else header.index("meaning") if "meaning" in header else None
    labelled = [
        f"{name.capitalize()}: {cell.rstrip('.')}."
        for column, (name, cell) in enumerate(zip(header, cells, strict=True))
        if column != meaning
    ]
    return " ".join(labelled if meaning is None else [cells[meaning], *labelled])


def _cells(line: str) -> list[str]:
    cells = _CELL_BORDER.split(line.strip())[1:-1]
    return [cell.strip().replace("\\|", "|") for cell in cells]


def _resolve_links(text: str, pages: dict[str, Page]) -> str:
    def resolve(match: re.Match[str]) -> str:
        page = pages.get(Path(match["target"]).name)
        return page.reference if page is not None else match["text"]

    return _LINK.sub(resolve, text)


def to_roff(markdown: str) -> str:
    done = subprocess.run([CONVERTER], input=markdown, stdout=subprocess.PIPE, text=True, check=True)
    # The constant-width font is no font of terminals, and groff and mandoc warn about it.
    roff = done.stdout.replace("\\fB\\fC", "\\fB").replace("\\fC", "\\fB")
    return re.sub(r"^(\.S[HS] .*)\n\.PP$", r"\1", roff, flags=re.MULTILINE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
