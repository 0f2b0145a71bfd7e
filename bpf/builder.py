# SPDX-License-Identifier: GPL-2.0-or-later
"""Units in, objects out: from the cache where it has them, else from one compiler child.

The child is a separate program, so that neither BCC nor LLVM is ever mapped here; it is gone when
`build` returns.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpftune
from bpftune.bpf.btf import VMLINUX
from bpftune.bpf.cache import Cache
from bpftune.bpf.fingerprint import compiler_python, environment_checksum, unit_key
from bpftune.bpf.unit import Object, Unit
from bpftune.ipc.errors import CompileError

Built = Object | CompileError
CompileUnits = Callable[[Sequence[Unit]], list[Built]]
"""One result per unit, in order."""

_TIMEOUT_S = 100
"""BCC takes 0.1 s per unit on hardware, some 6 s on an emulated machine, and there are nine. The loop stands
still meanwhile, so it must be less than WatchdogSec in systemd/bpftune.service."""


class Builder:
    def __init__(
        self,
        cache: Cache,
        *,
        compile_units: CompileUnits,
        environment: Callable[[], int] = environment_checksum,
    ) -> None:
        self._cache = cache
        self._compile = compile_units
        self._environment = environment

    def build(self, units: Sequence[Unit]) -> list[Built]:
        """One result per unit, in order. Everything the cache lacks is compiled in one child."""
        environment = self._environment()
        keys = [unit_key(environment, unit) for unit in units]
        built: list[Built | None] = [
            self._cache.read(unit, key) for unit, key in zip(units, keys, strict=True)
        ]
        missing = [index for index, found in enumerate(built) if found is None]
        compiled = self._compile([units[index] for index in missing]) if missing else []
        for index, result in zip(missing, compiled, strict=True):
            built[index] = result
            if isinstance(result, Object):
                self._cache.write(units[index], keys[index], result)
        return [result for result in built if result is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChildRun:
    answers: list[dict[str, Any]]
    ended: str
    """How the child ended, for people; empty: well."""


def compile_in_child(units: Sequence[Unit]) -> list[Built]:
    """A unit that takes the compiler down fails alone: the ones behind it get another child, and what is
    left of the time for all."""
    results: list[Built] = []
    end_s = time.monotonic() + _TIMEOUT_S
    while len(results) < len(units):
        waiting = units[len(results) :]
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            results += [_failure(unit, "the compiler hung before its turn") for unit in waiting]
            break
        run = _run_child(waiting, left_s)
        results += [_result(unit, answer) for unit, answer in zip(waiting, run.answers, strict=False)]
        if len(run.answers) < len(waiting):
            culprit = waiting[len(run.answers)]
            results.append(_failure(culprit, f"the compiler {run.ended or 'gave no answer'}"))
    return results


def _result(unit: Unit, answer: dict[str, Any]) -> Built:
    if "error" in answer:
        return _failure(unit, str(answer["error"]))
    return Object.from_json(answer["object"])


def _failure(unit: Unit, cause: str) -> CompileError:
    first_line = next((line for line in cause.splitlines() if "error:" in line), cause)
    return CompileError(f"cannot compile the probes of '{unit.tuner}': {first_line}", log=cause)


def _run_child(units: Sequence[Unit], timeout_s: float) -> _ChildRun:
    request = json.dumps({"btf": str(VMLINUX), "units": [unit.as_json() for unit in units]})
    try:
        # -P: the working directory never counts as a place to import from.
        done = subprocess.run(
            [compiler_python(), "-P", "-m", "bpftune.bpf.compiler"],
            input=request.encode(),
            capture_output=True,
            env=_environment(),
            cwd="/",
            # Ctrl-C is the supervisor's to act on: a compiler that it ends would look broken.
            start_new_session=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return _ChildRun(answers=_answers(error.stdout or b""), ended=f"took over {timeout_s:.0f} s")
    except OSError as error:
        return _ChildRun(answers=[], ended=f"did not start: {error}")
    return _ChildRun(answers=_answers(done.stdout), ended=_ending(done))


def _answers(output: bytes) -> list[dict[str, Any]]:
    """Whole lines only: the last one may have been cut off."""
    return [json.loads(line) for line in output.split(b"\n")[:-1]]


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    said = done.stderr.decode(errors="replace").strip().splitlines()
    last = f": {said[-1]}" if said else ""
    if done.returncode < 0:
        return f"was killed by {signal.Signals(-done.returncode).name}{last}"
    return f"ended with {done.returncode}{last}" if done.returncode else ""


def _environment() -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(Path(bpftune.__file__).parent.parent),
    }
