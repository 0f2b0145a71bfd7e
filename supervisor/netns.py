# SPDX-License-Identifier: GPL-2.0-or-later
"""The network namespaces that the supervisor knows, and the way into them.

A namespace is known by its cookie, which the kernel never uses twice within a boot; its inode
number finds it in the file system. Used by everything that reads or writes a tunable. Between
calls the registry holds no descriptor of a namespace but the supervisor's own: a descriptor would
keep the namespace, its devices and its sockets alive after their owner is gone.

The supervisor's own namespace counts as the initial one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bpftune.ipc.errors import NetnsGone, NotPermitted, NotSupported, UnknownName
from bpftune.ipc.messages import GLOBAL, Netns
from bpftune.supervisor import nsfs
from bpftune.supervisor.netns_names import NetnsNames

INITIAL_NAME = "global"
_STAY: AbstractContextManager[None] = nullcontext()


@dataclass(slots=True)
class _Known:
    netns: Netns
    pid: int
    """A process that was inside when last looked, or 0."""
    named: bool
    """Whether the name is one of /run/netns; any other is replaced when such a name appears."""


class NetnsRegistry:
    def __init__(self, *, run_netns: Path = Path("/run/netns"), proc_root: Path = Path("/proc")) -> None:
        """Raises NotSupported on a kernel without namespace cookies."""
        self._home_fd = nsfs.open_own()
        home = os.fstat(self._home_fd)
        cookie = _own_cookie()
        self.initial = Netns(cookie=cookie, inum=home.st_ino, name=INITIAL_NAME, initial=True)
        self._global = Netns(cookie=GLOBAL, inum=home.st_ino, name=INITIAL_NAME, initial=True)
        self._names = NetnsNames(run_netns=run_netns, proc_root=proc_root, nsfs_device=home.st_dev)
        self._known = {cookie: _Known(self.initial, 0, True)}
        self._by_handle = nsfs.cookies_open_namespaces(cookie, home.st_ino)
        self._inside = cookie

    def close(self) -> None:
        os.close(self._home_fd)

    def __contains__(self, cookie: int) -> bool:
        return cookie in self._known

    def discover(self) -> list[Netns]:
        """Look through /run/netns and /proc/*/ns/net; the namespaces that were not known before."""
        seen = {known.netns.inum for known in self._known.values()}
        new = []
        for inum, path, pid in self._names.all():
            if inum not in seen:
                seen.add(inum)
                new += self._discover(path, inum, pid)
        return new

    def learn(self, cookie: int, inum: int, pid: int = 0) -> Netns:
        """The namespace an event came from; `pid` is a process inside, 0 if that is unknown.

        It is looked for when it is entered, not now.
        """
        if cookie not in self._known and cookie != GLOBAL:
            described = self._names.describe({inum: pid})[inum]
            netns = Netns(cookie=cookie, inum=inum, name=described.name)
            self._known[cookie] = _Known(netns, described.pid or pid, described.lasting)
        return self.netns(cookie)

    def netns(self, cookie: int) -> Netns:
        """The namespace as known; GLOBAL gives a record for global tunables. Raises NetnsGone."""
        if cookie == GLOBAL:
            return self._global
        known = self._known.get(cookie)
        if known is None:
            raise NetnsGone(cookie)
        if not known.named and (name := self._names.named(known.netns.inum)):
            known.named = True
            known.netns = Netns(cookie=cookie, inum=known.netns.inum, name=name)
        return known.netns

    def known(self) -> list[Netns]:
        """Every known namespace, the initial one first."""
        return [self.netns(cookie) for cookie in self._known]

    def resolve(self, text: str) -> Netns:
        """The namespace a person means: a name, a cookie or an inode number. Raises UnknownName."""
        self.rename()
        for look_again in (False, True):
            if look_again:
                self.discover()
            # The last first: one that ended may not be forgotten yet when another has its name or inode.
            known = self.known()[::-1]
            for key in ("name", "cookie", "inum"):
                for netns in known:
                    if str(getattr(netns, key)) == text and not (key == "name" and netns.initial):
                        return netns
        # Last, so that an `ip netns` name wins over the word for the initial namespace.
        if text == INITIAL_NAME:
            return self.initial
        raise UnknownName("network namespace", text, [netns.name for netns in self.known()])

    def enter(self, cookie: int) -> AbstractContextManager[None]:
        """Be inside a namespace for the length of a `with` block; free for the initial one.

        Raises NetnsGone, or NotPermitted when the kernel refuses. A block for another namespace
        inside the block of one is a programming error; for the same one it is allowed.
        """
        if cookie == GLOBAL:
            cookie = self.initial.cookie
        if cookie == self._inside:
            return _STAY
        if self._inside != self.initial.cookie:
            raise RuntimeError(f"entering namespace {cookie} while inside {self._inside}")
        return self._switch(cookie)

    def forget(self, cookie: int) -> None:
        if cookie != self.initial.cookie:
            self._known.pop(cookie, None)

    def rename(self) -> None:
        """Describe anew what has no `ip netns` name, or no longer the one it had: names can be taken away
        and given to others, processes end or call exec(2)."""
        # An inode number is used again: what was heard of last is what has it now.
        newest = {known.netns.inum: known for known in self._known.values() if not known.netns.initial}
        nameless = {i: known for i, known in newest.items() if self._names.named(i) != known.netns.name}
        for inum, described in self._names.describe({i: known.pid for i, known in nameless.items()}).items():
            known = nameless[inum]
            known.netns = Netns(cookie=known.netns.cookie, inum=inum, name=described.name)
            known.pid, known.named = described.pid, described.lasting

    def gone(self) -> list[int]:
        """Cookies of known namespaces that exist no longer; the caller forgets them."""
        present = set() if self._by_handle else {inum for inum, _, _ in self._names.all()}
        others = (known.netns for known in self._known.values() if not known.netns.initial)
        return [netns.cookie for netns in others if self._is_gone(netns, present)]

    def _is_gone(self, netns: Netns, present: set[int]) -> bool:
        if not self._by_handle and netns.inum not in present:
            return True
        try:
            with self.enter(netns.cookie):
                return False
        except NetnsGone:
            return True
        except NotPermitted:
            return False

    def _discover(self, path: str, inum: int, pid: int) -> list[Netns]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return []
        try:
            nsfs.setns(fd)
            try:
                cookie = nsfs.read_cookie()
            finally:
                nsfs.setns(self._home_fd)
        except OSError:
            return []
        finally:
            os.close(fd)
        return [self.learn(cookie, inum, pid)]

    @contextmanager
    def descriptor(self, cookie: int) -> Iterator[int]:
        """A descriptor of the namespace for the length of a `with` block. Raises as `enter`."""
        fd = self._open(cookie)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _switch(self, cookie: int) -> Iterator[None]:
        with self.descriptor(cookie) as fd:
            try:
                nsfs.setns(fd)
            except OSError as error:
                raise NotPermitted(f"cannot enter network namespace {cookie}: {error.strerror}") from error
        self._inside = cookie
        try:
            # An inode number may have been given to a newer namespace; a handle names the cookie.
            if not self._by_handle and nsfs.read_cookie() != cookie:
                raise NetnsGone(cookie)
            yield
        finally:
            # Nothing may go on in the wrong namespace: an OSError here ends the supervisor.
            nsfs.setns(self._home_fd)
            self._inside = self.initial.cookie

    def _open(self, cookie: int) -> int:
        known = self._known.get(cookie)
        if known is None:
            raise NetnsGone(cookie)
        if self._by_handle:
            return _open_by_cookie(cookie, known.netns.inum)
        for path in self._names.paths(known.netns.inum, known.pid):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            # A name that is being taken away is an empty file for a moment.
            if os.fstat(fd).st_ino == known.netns.inum:
                return fd
            os.close(fd)
        raise NetnsGone(cookie)


def _open_by_cookie(cookie: int, inum: int) -> int:
    try:
        return nsfs.open_by_cookie(cookie, inum)
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise NetnsGone(cookie) from error
        raise NotPermitted(f"cannot open network namespace {cookie}: {error.strerror}") from error


def _own_cookie() -> int:
    try:
        return nsfs.read_cookie()
    except OSError as error:
        raise NotSupported(f"cannot read network namespace cookies: {error.strerror}") from error
