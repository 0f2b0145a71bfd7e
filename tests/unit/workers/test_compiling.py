# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import marshal
import os

import pytest

from bpftune.workers import compiling
from bpftune.workers.compiling import compile_apart
from bpftune.workers.policy import PolicySource

GOOD = PolicySource(folder="/made/up", text=b"answer = 42\n")


def test_the_code_is_that_of_the_source_and_knows_its_file() -> None:
    code = marshal.loads(compile_apart(GOOD))["policy"]
    found: dict[str, object] = {}
    exec(code, found)
    assert found["answer"] == 42
    assert code.co_filename == "/made/up/policy.py"


def test_what_does_not_compile_gives_nothing() -> None:
    assert compile_apart(PolicySource(folder="/made/up", text=b"def (:\n")) == b""


def test_a_compiler_that_is_killed_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "compile_policy", lambda _source: os.kill(os.getpid(), 9))
    assert compile_apart(GOOD) == b""


def test_no_child_and_no_descriptor_is_left() -> None:
    before = os.listdir("/proc/self/fd")
    compile_apart(GOOD)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
