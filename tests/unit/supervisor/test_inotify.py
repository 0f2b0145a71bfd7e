# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.supervisor.inotify import Change, Inotify

CHANGES = Change.CREATE | Change.DELETE | Change.ONLY_DIRECTORY


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    made = Inotify()
    yield made
    made.close()


def is_readable(inotify: Inotify) -> bool:
    return bool(select.select([inotify.fileno()], [], [], 0)[0])


def test_it_is_readable_from_a_change_until_it_is_drained(inotify: Inotify, tmp_path: Path) -> None:
    inotify.watch(tmp_path, CHANGES)
    inotify.watch(tmp_path, CHANGES)
    assert not is_readable(inotify)
    for number in range(100):
        (tmp_path / f"tuner{number}").mkdir()
    assert is_readable(inotify)
    inotify.drain()
    assert not is_readable(inotify)
    inotify.drain()


def test_only_what_was_asked_for(inotify: Inotify, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    inotify.watch(tmp_path, Change.DELETE)
    file.write_text("changed")
    assert not is_readable(inotify)
    file.unlink()
    assert is_readable(inotify)


def test_what_is_not_a_directory_is_an_error(inotify: Inotify, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inotify.watch(tmp_path / "missing", CHANGES)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError):
        inotify.watch(file, CHANGES)
