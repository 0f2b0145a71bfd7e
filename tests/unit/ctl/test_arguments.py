# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of bpftune-ctl, and that every verb has an exchange and fits its reply."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpftune.ctl.arguments import Arguments, Verb, parse_arguments
from bpftune.ctl.requests import EXCHANGES
from bpftune.ipc.control import (
    EnableRequest,
    ExplainRequest,
    HistoryRequest,
    RollbackRequest,
    SupportRequest,
)
from bpftune.ipc.errors import UsageError


@pytest.mark.parametrize(
    "argv",
    [
        ["--json", "--run-dir", "/x", "--timeout", "2.5", "status"],
        ["status", "--json", "--run-dir=/x", "--timeout=2.5"],
        ["--json", "status", "--run-dir", "/x", "--timeout", "2.5"],
    ],
)
def test_global_options_stand_before_or_after_the_verb(argv: list[str]) -> None:
    assert parse_arguments(argv) == Arguments(verb=Verb.STATUS, json=True, run_dir=Path("/x"), timeout_s=2.5)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["rollback"], Arguments(verb=Verb.ROLLBACK, target="all")),
        (["rollback", "12", "--dry-run"], Arguments(verb=Verb.ROLLBACK, target="12", dry_run=True)),
        (["enable", "t", "--netns", "blue"], Arguments(verb=Verb.ENABLE, tuner="t", netns="blue")),
        (["disable", "t"], Arguments(verb=Verb.DISABLE, tuner="t")),
        (["history"], Arguments(verb=Verb.HISTORY, limit=100)),
        (["events"], Arguments(verb=Verb.EVENTS, limit=10)),
        (["events", "-n", "3", "--follow"], Arguments(verb=Verb.EVENTS, limit=3, follow=True)),
        (["explain", "#12"], Arguments(verb=Verb.EXPLAIN, change=12)),
        (["export", "--sysctl-d"], Arguments(verb=Verb.EXPORT, sysctl_d=True)),
    ],
)
def test_verbs_take_their_arguments(argv: list[str], expected: Arguments) -> None:
    assert parse_arguments(argv) == expected


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "VERB"),
        (["stauts"], "no verb 'stauts'; did you mean 'status'?"),
        (["frobnicate"], "no verb 'frobnicate'"),
        (["explain"], "CHANGE"),
        (["explain", "x"], "'x' is not a change number"),
        (["explain", "0"], "'0' is not a change number"),
        (["explain", str(1 << 70)], "is not a change number"),
        (["explain", "9" * 5000], "is not a change number"),
        (["history", "--limit", "0"], "'0' is not a number from 1"),
        (["history", "-n", "5001"], "'5001' is not a number from 1 to 5000"),
        (["events", "-n", "9" * 5000], "is not a number from 1 to 5000"),
        (["status", "--timeout", "0"], "'0' is not a number of seconds"),
        (["status", "--timeout", "nan"], "'nan' is not a number of seconds"),
        (["status", "--run-dir", ""], "a directory is needed"),
        (["status", "--dry-run"], "unrecognized arguments: --dry-run"),
        (["restart"], "TUNER"),
        (["restart", "\udcff"], r"'\xff' is not UTF-8"),
        (["enable", "t", "--netns", "n\udcff"], r"'n\xff' is not UTF-8"),
        (["rollback", "\udcff"], r"'\xff' is not UTF-8"),
        (["status", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_wrong_use_is_one_line(argv: list[str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(argv)

    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_verb_has_an_exchange() -> None:
    assert set(EXCHANGES) == set(Verb)


def test_requests_carry_what_was_given() -> None:
    def request(*argv: str) -> object:
        arguments = parse_arguments(argv)
        return EXCHANGES[arguments.verb].build(arguments)

    assert request("enable", "t", "--netns", "b") == EnableRequest(tuner="t", netns="b")
    assert request("rollback", "t", "--dry-run") == RollbackRequest(target="t", dry_run=True)
    assert request("history", "-n", "5") == HistoryRequest(limit=5)
    assert request("explain", "7") == ExplainRequest(change=7)
    assert request("support") == SupportRequest()


def test_help_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for argv in ([], *([verb.value] for verb in Verb)):
        with pytest.raises(SystemExit) as caught:
            parse_arguments([*argv, "--help"])
        assert caught.value.code == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
