# SPDX-License-Identifier: GPL-2.0-or-later
"""Tab in bash, zsh and fish: exactly what the parsers take, and the tuners that are there at that moment."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from bpftune.ctl.arguments import Verb
from bpftune.ctl.arguments import make_parser as make_control_parser
from bpftune.supervisor.options import make_parser as make_daemon_parser
from tests.packages import shells
from tools.completions.__main__ import main as write_completions

Offered = Callable[[Path, list[str]], list[str]]

each_shell = pytest.mark.parametrize(
    "offered",
    [shells.offered_by_bash, shells.offered_by_zsh, shells.offered_by_fish],
    ids=["bash", "zsh", "fish"],
)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where bpftune is as far as the scripts know, with two tuners."""
    prefix = tmp_path_factory.mktemp("prefix")
    for name in ("tcp_buffer", "neigh_table"):
        add_tuner(prefix, name)
    return prefix


@pytest.fixture(scope="module")
def share(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    share = tmp_path_factory.mktemp("share")
    write_completions(share, str(prefix))
    return share


def add_tuner(prefix: Path, name: str) -> Path:
    folder = prefix / "lib/bpftune/python/bpftune/tuners" / name
    folder.mkdir(parents=True)
    (folder / "tuner.toml").touch()
    return folder


def flags(parser: argparse.ArgumentParser, *, start: str = "-") -> list[str]:
    taken = (flag for action in parser._actions for flag in action.option_strings)
    return sorted(flag for flag in taken if flag.startswith(start))


def verb_parser(verb: str) -> argparse.ArgumentParser:
    for action in make_control_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser = action.choices[verb]
            assert isinstance(parser, argparse.ArgumentParser)
            return parser
    raise AssertionError("bpftune-ctl has no verbs")


@each_shell
@pytest.mark.parametrize("start", ["-", "--"])
def test_bpftune_offers_the_options_it_takes(share: Path, offered: Offered, start: str) -> None:
    assert sorted(offered(share, ["bpftune", start])) == flags(make_daemon_parser(), start=start)


@each_shell
def test_bpftune_ctl_offers_its_verbs(share: Path, offered: Offered) -> None:
    words = [word for word in offered(share, ["bpftune-ctl", ""]) if not word.startswith("-")]

    assert sorted(words) == sorted(Verb)


@each_shell
def test_bpftune_ctl_offers_its_options_before_the_verb(share: Path, offered: Offered) -> None:
    assert sorted(offered(share, ["bpftune-ctl", "--"])) == flags(make_control_parser(), start="--")


@each_shell
@pytest.mark.parametrize("verb", ["status", "events", "enable", "rollback", "export"])
def test_a_verb_offers_the_options_it_takes(share: Path, offered: Offered, verb: str) -> None:
    assert sorted(offered(share, ["bpftune-ctl", verb, "-"])) == flags(verb_parser(verb))


def test_bash_offers_the_options_of_every_verb(share: Path) -> None:
    for verb in Verb:
        assert sorted(shells.offered_by_bash(share, ["bpftune-ctl", verb, "-"])) == flags(verb_parser(verb))


@each_shell
@pytest.mark.parametrize(
    "line", [["bpftune", "-a", ""], ["bpftune-ctl", "restart", ""], ["bpftune-ctl", "--json", "enable", ""]]
)
def test_tuners_are_those_that_are_there(
    share: Path, prefix: Path, offered: Offered, line: list[str]
) -> None:
    new = add_tuner(prefix, "time_wait")
    try:
        assert {"neigh_table", "tcp_buffer", "time_wait"} <= set(offered(share, line))
    finally:
        (new / "tuner.toml").unlink()
        new.rmdir()

    assert "time_wait" not in offered(share, line)


@each_shell
def test_words_are_completed(share: Path, offered: Offered) -> None:
    assert offered(share, ["bpftune-ctl", "disable", "tcp"]) == ["tcp_buffer"]
    assert "all" in offered(share, ["bpftune-ctl", "rollback", "a"])


@each_shell
def test_values_are_offered_behind_their_option(share: Path, offered: Offered) -> None:
    assert offered(share, ["bpftune", "--learning-rate", ""]) == ["0", "1", "2", "3", "4"]
    assert offered(share, ["bpftune-ctl", "history", "--limit", ""]) == []


def test_bash_takes_a_value_behind_an_equals_sign(share: Path) -> None:
    """It hands `=` over as a word of its own."""
    assert shells.offered_by_bash(share, ["bpftune", "--allow", "=", "neigh"]) == ["neigh_table"]
    assert "tcp_buffer" in shells.offered_by_bash(share, ["bpftune", "--allow", "="])


def test_changes_are_asked_from_the_daemon(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bpftune-ctl"
    fake.write_text("#!/bin/sh\nprintf 'ID  TIME   TUNABLE\\n 7  12:00  x\\n12  12:01  y\\n'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert shells.offered_by_bash(share, ["bpftune-ctl", "explain", ""]) == ["7", "12"]
    assert shells.offered_by_bash(share, ["bpftune-ctl", "rollback", "1"]) == ["12"]
