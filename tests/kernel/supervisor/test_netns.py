# SPDX-License-Identifier: GPL-2.0-or-later
"""The registry on real namespaces, by cookie handles where the kernel has them and by path."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftune.ipc.errors import NetnsGone, UnknownName
from bpftune.ipc.messages import GLOBAL
from bpftune.supervisor import nsfs
from bpftune.supervisor.netns import NetnsRegistry
from tests.kernel.namespaces import Namespace, checked, namespace
from tests.requirements import require_since
from tests.waiting import wait_for


@pytest.fixture(params=["by handle", "by path"])
def registry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[NetnsRegistry]:
    if request.param == "by path":
        monkeypatch.setattr(nsfs, "cookies_open_namespaces", lambda cookie, inum: False)
    else:
        inum = os.stat("/proc/self/ns/net").st_ino
        by_handle = nsfs.cookies_open_namespaces(nsfs.read_cookie(), inum)
        require_since((6, 18), by_handle, "needs file handles of namespaces")
    created = NetnsRegistry()
    yield created
    created.close()


def cookie_of(netns: Namespace) -> int:
    with netns.entered():
        return nsfs.read_cookie()


def own_namespace() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def held_namespaces() -> set[str]:
    """The namespaces that this process has descriptors of."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith("net:"):
            found.add(target)
    return found


def test_discovery_knows_cookie_inode_and_name(registry: NetnsRegistry, netns: Namespace) -> None:
    found = {one.name: one for one in registry.discover()}
    assert found[netns.name].cookie == cookie_of(netns)
    assert found[netns.name].inum == netns.inum
    assert not found[netns.name].initial
    assert registry.initial.initial
    assert registry.known()[0] == registry.initial
    assert netns.name not in {one.name for one in registry.discover()}


def test_entering_and_coming_back(registry: NetnsRegistry, netns: Namespace) -> None:
    home = own_namespace()
    cookie = registry.resolve(netns.name).cookie
    with registry.enter(cookie):
        assert nsfs.read_cookie() == cookie
        with registry.enter(cookie):
            assert nsfs.read_cookie() == cookie
        assert own_namespace() != home
    assert own_namespace() == home
    with registry.enter(GLOBAL):
        assert own_namespace() == home


def test_coming_back_after_an_error(registry: NetnsRegistry, netns: Namespace) -> None:
    home = own_namespace()
    cookie = registry.resolve(netns.name).cookie
    with pytest.raises(ZeroDivisionError), registry.enter(cookie):
        raise ZeroDivisionError
    assert own_namespace() == home
    with registry.enter(cookie):
        pass


def test_one_namespace_inside_another_is_a_programming_error(
    registry: NetnsRegistry, netns: Namespace
) -> None:
    with namespace("other") as other:
        registry.discover()
        first, second = registry.resolve(netns.name), registry.resolve(other.name)
        with registry.enter(first.cookie), pytest.raises(RuntimeError), registry.enter(second.cookie):
            pass


def test_nothing_holds_a_deleted_namespace(registry: NetnsRegistry) -> None:
    before = held_namespaces() | {own_namespace()}
    with namespace("short") as netns:
        cookie = registry.resolve(netns.name).cookie
        with registry.enter(cookie):
            inside = {own_namespace()}
            assert held_namespaces() <= before
        assert inside.isdisjoint(held_namespaces())
    wait_for(lambda: registry.gone() == [cookie], 5, "the namespace is gone")
    with pytest.raises(NetnsGone), registry.enter(cookie):
        pass
    registry.forget(cookie)
    assert registry.gone() == []
    with pytest.raises(NetnsGone):
        registry.netns(cookie)


def test_a_name_that_is_just_being_taken_away(registry: NetnsRegistry) -> None:
    """`ip netns delete` unmounts it, and removes the file that is left a moment later."""
    with namespace("short") as netns:
        cookie = registry.resolve(netns.name).cookie
        checked(["umount", "--lazy", f"/run/netns/{netns.name}"])
        wait_for(lambda: entering_says_gone(registry, cookie), 5, "the namespace is gone")


def entering_says_gone(registry: NetnsRegistry, cookie: int) -> bool:
    try:
        with registry.enter(cookie):
            return False
    except NetnsGone:
        return True


def test_a_namespace_without_a_name_is_called_after_a_process(registry: NetnsRegistry) -> None:
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as process:
        try:
            path = Path(f"/proc/{process.pid}/ns/net")
            home = Path("/proc/self/ns/net").stat().st_ino
            inum = wait_for(lambda: (i := path.stat().st_ino) != home and i, 5, "unshare(1) is done")
            comm = Path(f"/proc/{process.pid}/comm")
            wait_for(lambda: comm.read_text() == "sleep\n", 5, "sleep runs")
            (found,) = [one for one in registry.discover() if one.inum == inum]
            assert found.name == f"pid {process.pid} (sleep)"
            with registry.enter(found.cookie):
                assert nsfs.read_cookie() == found.cookie
            assert registry.resolve(str(found.cookie)) == found
            assert registry.resolve(str(found.inum)) == found
        finally:
            process.kill()
    wait_for(lambda: found.cookie in registry.gone(), 5, "it goes with its only process")


def test_learned_from_an_event_and_named_later(registry: NetnsRegistry) -> None:
    """An event can come before `ip netns add` has mounted the name."""
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as process:
        name = f"bt-later-{process.pid}"
        try:
            path = Path(f"/proc/{process.pid}/ns/net")
            home = Path("/proc/self/ns/net").stat().st_ino
            inum = wait_for(lambda: (i := path.stat().st_ino) != home and i, 5, "unshare(1) is done")
            cookie = int(checked(["nsenter", f"--net={path}", "python3", "-c", READ_COOKIE]).strip())
            assert registry.learn(cookie, inum, process.pid).name.startswith(f"pid {process.pid} (")
            checked(["ip", "netns", "attach", name, str(process.pid)])
            assert registry.netns(cookie).name == name
            assert registry.resolve(name).cookie == cookie
        finally:
            process.kill()
            checked(["ip", "netns", "delete", name])


def test_a_name_that_was_taken_away_and_given_to_another(registry: NetnsRegistry) -> None:
    """A namespace outlives its `ip netns` name as long as a process is inside."""
    with namespace("first") as first:
        found = registry.resolve(first.name)
        with subprocess.Popen(first.command("cat"), stdin=subprocess.PIPE) as process:
            comm = Path(f"/proc/{process.pid}/comm")
            wait_for(lambda: comm.read_text() == "cat\n", 5, "cat runs")
            checked(["ip", "netns", "delete", first.name])
            checked(["ip", "netns", "add", first.name])
            assert registry.resolve(first.name).cookie != found.cookie
            assert registry.netns(found.cookie).name == f"pid {process.pid} (cat)"
            assert process.stdin is not None
            process.stdin.close()


READ_COOKIE = (
    "import socket;"
    "print(int.from_bytes(socket.socket(socket.AF_UNIX).getsockopt(socket.SOL_SOCKET, 71, 8), 'little'))"
)


def test_names_that_nobody_has(registry: NetnsRegistry, netns: Namespace) -> None:
    assert registry.resolve("global") == registry.initial
    assert registry.resolve(str(registry.initial.cookie)) == registry.initial
    with pytest.raises(UnknownName, match=f"did you mean '{netns.name}'"):
        registry.resolve(netns.name + "x")


def test_a_cookie_that_never_was(registry: NetnsRegistry) -> None:
    registry.learn(1 << 50, 4026539999, 1)
    with pytest.raises(NetnsGone), registry.enter(1 << 50):
        pass


def test_an_inode_that_is_used_again_is_the_newest_one_s(registry: NetnsRegistry, netns: Namespace) -> None:
    """The one before it has ended, and nobody has looked since."""
    found = registry.resolve(netns.name)
    ended = registry.learn(found.cookie + (1 << 40), found.inum)
    registry.forget(found.cookie)
    registry.learn(found.cookie, found.inum)

    registry.rename()

    assert registry.resolve(netns.name).cookie == found.cookie
    assert registry.resolve(str(found.inum)).cookie == found.cookie
    assert registry.gone() == [ended.cookie]
