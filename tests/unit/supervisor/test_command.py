# SPDX-License-Identifier: GPL-2.0-or-later
"""`bpftune -S` over the shipped folders, without a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bpftune.bpf.runtime import ProbeSource
from bpftune.ipc.control import HookStatus
from bpftune.ipc.errors import BpfError, UnknownName
from bpftune.supervisor import command
from bpftune.supervisor.command import attach_once
from bpftune.supervisor.options import Options


class Survey:
    """Stands for the BPF layer and the watchers."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.settings: dict[str, object] = {}

    def bpf(self, **settings: object) -> Survey:
        self.settings = settings
        return self

    def watchers(self, bpf: Survey, warn: object, *, legacy: bool) -> Survey:
        return self

    def load_with(self, sources: Sequence[ProbeSource]) -> dict[str, BpfError]:
        self.loaded = [source.declaration.name for source in sources]
        return {}

    def hooks(self, tuner: str) -> list[HookStatus]:
        return []

    survey = hooks

    def attach(self, tuner: str) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def survey(monkeypatch: pytest.MonkeyPatch) -> Survey:
    survey = Survey()
    monkeypatch.setattr(command, "Bpf", survey.bpf)
    monkeypatch.setattr(command, "Watchers", survey.watchers)
    return survey


def test_a_survey_acts_on_nothing(survey: Survey, tmp_path: Path) -> None:
    hooks = attach_once(Options(state_dir=tmp_path))
    assert {"tcp_conn", "tcp_buffer"} <= hooks.keys() == {*survey.loaded}
    assert survey.settings["dry_run"] is True


def test_a_survey_of_some_tuners(survey: Survey, tmp_path: Path) -> None:
    hooks = attach_once(Options(state_dir=tmp_path, allow=("tcp_conn",)))
    assert [*hooks] == survey.loaded == ["tcp_conn"]


def test_a_survey_of_a_tuner_that_does_not_exist(survey: Survey, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no tuner 'tcp_con'; did you mean 'tcp_conn'"):
        attach_once(Options(state_dir=tmp_path, allow=("tcp_con",)))
