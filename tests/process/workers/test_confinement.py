# SPDX-License-Identifier: GPL-2.0-or-later
"""What a worker process is not allowed to do."""

from __future__ import annotations

import os
from pathlib import Path

from bpftune.ipc.codec import MAX_MESSAGE_BYTES
from tests.process.rig import Rig

TELL = """
def on_event(self, event, situation, state):
    return Decision(notes=[situation.note("net.test.size", "full", self.attempt())])

"""


def _attempt(rig: Rig, body: str) -> str:
    """What a policy that runs `body` (which returns a text) answers."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    worker = rig.active("prisoner", f"{TELL}\ndef attempt(self):\n    import errno, os, socket\n{lines}\n")
    rig.event(worker)
    return rig.until(lambda: rig.desk.notes, "the policy's note")[0]


def _try(call: str) -> str:
    return f"""
try:
    {call}
except OSError as error:
    return errno.errorcode[error.errno]
return "allowed"
"""


def _status(pid: int | None) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_no_privilege_is_left(rig: Rig) -> None:
    status = _status(rig.active("prisoner").pid)
    account = rig.forkserver.account
    assert set(status["Uid"].split()) == {str(account.uid)} != {"0"}
    assert set(status["Gid"].split()) == {str(account.gid)} != {"0"}
    assert status["Groups"] == ""
    for which in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[which], 16) == 0, which
    assert status["NoNewPrivs"] == "1"


def test_the_network_namespace_is_not_ours_and_empty(rig: Rig) -> None:
    worker = rig.active("prisoner")
    theirs = Path(f"/proc/{worker.pid}/ns/net")
    assert theirs.readlink() != Path("/proc/self/ns/net").readlink()
    interfaces = Path(f"/proc/{worker.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_nothing_can_be_reached(rig: Rig) -> None:
    assert _attempt(rig, _try('socket.create_connection(("127.0.0.1", 9), timeout=1)')) == "ENETUNREACH"


def test_no_process_can_be_made(rig: Rig) -> None:
    assert _attempt(rig, _try("os.fork()")) == "EAGAIN"


def test_no_file_can_be_written(rig: Rig) -> None:
    target = rig.run_dir / "open-to-all"
    target.mkdir()
    target.chmod(0o777)
    assert _attempt(rig, _try(f'os.write(os.open("{target}/x", os.O_CREAT | os.O_WRONLY), b"x")')) == "EFBIG"


def test_descriptors_are_few_and_its_own(rig: Rig) -> None:
    worker = rig.active("prisoner")
    opened = {fd: os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")}
    assert opened["0"] == "/dev/null"
    assert not [path for path in opened.values() if path.startswith("/") and path != "/dev/null"]
    # One connection, to its supervisor: the fork server's command socket is not among them.
    assert len([path for path in opened.values() if path.startswith("socket:")]) == 1


def test_its_socket_cannot_be_found_once_it_is_connected(rig: Rig) -> None:
    rig.active("prisoner")
    assert list((rig.run_dir / "workers").iterdir()) == []


def test_a_folder_that_only_root_can_read_works_and_stays_clean(rig: Rig) -> None:
    rig.folders.chmod(0o700)
    worker = rig.active("prisoner")
    rig.event(worker)
    rig.until(lambda: rig.desk.answers, "an answer")
    assert sorted(path.name for path in (rig.folders / "prisoner").iterdir()) == ["policy.py", "tuner.toml"]


def test_memory_is_bounded_and_a_bomb_ends_only_itself(rig: Rig) -> None:
    other = rig.active("other")
    other_pid = other.pid
    bomb = rig.active("bomb", "def on_event(self, event, situation, state):\n    x = bytes(1 << 30)\n")
    rig.event(bomb)
    rig.until(lambda: rig.desk.logged("bomb: ") and rig.desk.logged("MemoryError"), "the bomb went off")
    rig.event(other)
    rig.until(lambda: rig.desk.answers, "the other answers")
    assert other.pid == other_pid


def test_an_oversized_message_ends_its_sender(rig: Rig) -> None:
    policy = f"""
    def on_event(self, event, situation, state):
        return Decision(notes=[situation.note("net.test.size", "full", "x" * {MAX_MESSAGE_BYTES + 1})])
    """
    worker = rig.active("shouter", policy)
    rig.event(worker)
    rig.until(lambda: worker.restarts, "it was restarted")
    assert rig.desk.answers == []
