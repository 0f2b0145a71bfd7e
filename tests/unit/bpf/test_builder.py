# SPDX-License-Identifier: GPL-2.0-or-later
"""bpf/builder.py: what becomes of the child's answers, and of a child that dies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bpftune.bpf import builder
from bpftune.bpf.builder import compile_in_child
from bpftune.ipc.errors import CompileError
from tests.unit.bpf.made import compiled, unit

CHILD = """\
#!{python}
import json, os, signal, sys, time
units = json.load(sys.stdin)["units"]
for unit in units:
    if unit["body"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if unit["body"] == "hang":
        time.sleep(60)
    if unit["body"] == "leave":
        sys.exit("out of memory")
    answer = {{"object": {answer}}} if unit["body"] == "good" else {{"error": unit["body"]}}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(autouse=True)
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that plays the compiler."""
    script = tmp_path / "python"
    script.write_text(CHILD.format(python=sys.executable, answer=compiled().as_json()))
    script.chmod(0o755)
    monkeypatch.setattr(builder, "compiler_python", lambda: str(script))


def test_objects_and_errors_come_back_in_order() -> None:
    good, bad = compile_in_child([unit(body="good"), unit("second", body="a.c:1:2: error: oops\n here")])

    assert good == compiled()
    assert isinstance(bad, CompileError)
    assert str(bad) == "cannot compile the probes of 'second': a.c:1:2: error: oops"
    assert bad.log.endswith("here")


@pytest.mark.parametrize(
    ("body", "said"), [("die", "was killed by SIGKILL"), ("leave", "ended with 1: out of memory")]
)
def test_a_unit_that_ends_the_compiler_fails_alone(body: str, said: str) -> None:
    before, culprit, after = compile_in_child(
        [unit("a", body="good"), unit("b", body=body), unit("c", body="good")]
    )

    assert before == after == compiled()
    assert isinstance(culprit, CompileError)
    assert "'b'" in str(culprit)
    assert said in str(culprit)


def test_a_compiler_that_hangs_uses_up_the_time_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_TIMEOUT_S", 2)
    before, culprit, after = compile_in_child(
        [unit("a", body="good"), unit("b", body="hang"), unit("c", body="hang")]
    )

    assert before == compiled()
    assert "'b': the compiler took over 2 s" in str(culprit)
    assert "'c': the compiler hung before its turn" in str(after)


def test_an_interpreter_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "compiler_python", lambda: "/nonexistent/python")
    (result,) = compile_in_child([unit(body="good")])

    assert isinstance(result, CompileError)
    assert "did not start" in str(result)


def test_a_compiler_that_hangs_is_no_reason_to_kill_the_service() -> None:
    unit_file = Path(__file__).resolve().parents[3] / "systemd/bpftune.service"
    settings = dict(line.split("=", 1) for line in unit_file.read_text().splitlines() if "=" in line)

    assert builder._TIMEOUT_S < int(settings["WatchdogSec"]) < int(settings["TimeoutStartSec"])
