# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from bpftune.ipc.errors import DeclarationError
from bpftune.workers.policy import load_policy, read_source

HEAD = """
import msgspec
from bpftune.tuners.base import Decision, Policy

class State(msgspec.Struct):
    count: int = 0
"""

ONE = f"""{HEAD}
class Mine(Policy[State]):
    State = State

    def on_timer(self, situation, state):
        raise ValueError("here")
"""


def load(folder: Path, text: str) -> object:
    (folder / "policy.py").write_text(text, errors="surrogateescape")
    return load_policy(read_source(str(folder)))


def test_the_one_policy_is_made(tmp_path: Path) -> None:
    assert type(load(tmp_path, ONE)).__name__ == "Mine"
    assert [path.name for path in tmp_path.iterdir()] == ["policy.py"]


def test_a_traceback_quotes_the_source_though_the_file_is_gone(tmp_path: Path) -> None:
    (tmp_path / "policy.py").write_text(ONE)
    source = read_source(str(tmp_path))
    (tmp_path / "policy.py").unlink()
    policy = load_policy(source)
    with pytest.raises(ValueError, match="here") as caught:
        policy.on_timer(None, None)  # type: ignore[arg-type]
    assert 'raise ValueError("here")' in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (HEAD, "defines 0 subclasses"),
        (ONE + "\nclass Other(Mine):\n    pass\n", "defines 2 subclasses"),
        (ONE.replace("    State = State\n", ""), "not a msgspec.Struct"),
        (ONE.replace("count: int = 0", "count: int"), "needs defaults"),
        (ONE + "\ndef (:\n", r"policy\.py, line 14: SyntaxError: "),
        ("import msgspec\nimport no_such_module\n", r"policy\.py, line 2: ModuleNotFoundError: "),
        ("def fail():\n    raise SystemExit(3)\nfail()\n", r"policy\.py, line 2: SystemExit: 3"),
        ("x = '\udcff'", r"policy\.py, line \d+: SyntaxError: "),
    ],
)
def test_what_is_no_policy_is_refused(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(DeclarationError, match=cause):
        load(tmp_path, text)


def test_a_tuner_with_strategies_needs_a_policy_that_evaluates(tmp_path: Path) -> None:
    (tmp_path / "policy.py").write_text(ONE)
    with pytest.raises(DeclarationError, match=r"no evaluate\(\)"):
        load_policy(read_source(str(tmp_path)), evaluates=True)
    (tmp_path / "policy.py").write_text(
        ONE + "\n    def evaluate(self, strategy, states, now_ns):\n        return 1\n"
    )
    assert load_policy(read_source(str(tmp_path)), evaluates=True).evaluate("any", {}, 0) == 1


def test_a_folder_without_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"policy\.py"):
        read_source(str(tmp_path))


SPLIT = "from .steps import step\n" + ONE.replace('raise ValueError("here")', "return step()")
STEPS = "from .deeper import FAR\n\ndef step():\n    raise KeyError(FAR)\n"


def split(folder: Path, **modules: str) -> object:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return load(folder, SPLIT)


def test_a_policy_may_have_more_modules(tmp_path: Path) -> None:
    (tmp_path / ".#steps.py").write_text("an editor's")
    policy = split(tmp_path, steps=STEPS, deeper="FAR = 'far'\n")
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(KeyError, match="far") as caught:
        policy.on_timer(None, None)  # type: ignore[attr-defined]
    assert "raise KeyError(FAR)" in "".join(traceback.format_exception(caught.value))


def test_modules_of_another_policy_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    split(tmp_path / "one", steps=STEPS, deeper="FAR = 'one'\n")
    with pytest.raises(DeclarationError, match=r"steps\.py, line 1: ModuleNotFoundError: .*deeper"):
        split(tmp_path / "two", steps=STEPS)


def test_a_module_that_does_not_compile_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"steps\.py, line 2: SyntaxError: "):
        split(tmp_path, steps="x = 1\ndef (:\n")
