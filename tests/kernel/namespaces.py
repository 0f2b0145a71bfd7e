# SPDX-License-Identifier: GPL-2.0-or-later
"""Throwaway network namespaces and what joins two of them.

Kernel tests call it. Nothing here touches the initial namespace: a test that must (global
sysctls) is covered by the guard in sysctl_guard.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.long_path import DEVICE
from tests.kernel.paths import long_path

RUN_NETNS = Path("/run/netns")
PROC_SYS = Path("/proc/sys")
CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A named network namespace with its loopback up."""

    name: str

    @property
    def path(self) -> Path:
        return RUN_NETNS / self.name

    @property
    def inum(self) -> int:
        return self.path.stat().st_ino

    def command(self, *argv: str) -> list[str]:
        """`argv` as a command line that runs in this namespace."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str) -> str:
        """Run a command in this namespace and return what it printed."""
        return checked(self.command(*argv))

    @contextlib.contextmanager
    def running(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs in this namespace until the end of the block, if not until its own."""
        with subprocess.Popen(
            self.command(*argv), stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def read_sysctl(self, key: str) -> str:
        """The value as sysctl(8) prints it, fields separated by one space."""
        with self.entered():
            return read_sysctl(key)

    def write_sysctl(self, key: str, value: str) -> None:
        """Write as this process, from inside; `run("sysctl", ...)` writes as an administrator would."""
        with self.entered():
            sysctl_path(key).write_text(value)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace inside the block."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.path)
            try:
                yield
            finally:
                _setns(Path(f"/proc/self/fd/{home}"))
        finally:
            os.close(home)


class InitialNamespace(Namespace):
    """The one that the tests run in. What a test changes there it must put back itself."""

    __slots__ = ()

    @property
    def path(self) -> Path:
        return Path("/proc/self/ns/net")

    def command(self, *argv: str) -> list[str]:
        return list(argv)


INITIAL = InitialNamespace(name="global")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two joined namespaces, `a` at one end and `b` at the other."""

    a: Namespace
    b: Namespace
    a_ipv4: str
    b_ipv4: str
    a_ipv6: str
    b_ipv6: str
    device: str
    """Its name is the same in both."""


@contextlib.contextmanager
def namespace(label: str = "ns") -> Iterator[Namespace]:
    """A new namespace named after `label`, deleted at the end of the block."""
    created = Namespace(name=f"bt-{label}-{uuid.uuid4().hex[:6]}")
    checked(["ip", "netns", "add", created.name])
    try:
        created.run("ip", "link", "set", "lo", "up")
        yield created
    finally:
        checked(["ip", "netns", "delete", created.name])


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """Two namespaces joined by a veth, with an IPv4 and an IPv6 address each, reachable at once."""
    with _two(device="veth0") as made:
        peer = ("peer", "name", made.device, "netns", made.b.name)
        made.a.run("ip", "link", "add", made.device, "type", "veth", *peer)
        _configure(made)
        yield made


@contextlib.contextmanager
def distant_pair(*, rtt_ms: float = 40, mbit_per_s: float = 100, loss: float = 0) -> Iterator[Pair]:
    """The same, but with a path of that round trip time, rate and loss (0..1) in between (long_path.py)."""
    with (
        _two(device=DEVICE) as made,
        long_path(made.a.name, made.b.name, rtt_ms=rtt_ms, mbit_per_s=mbit_per_s, loss=loss),
    ):
        _configure(made)
        yield made


@contextlib.contextmanager
def distant_from_initial(*, rtt_ms: float = 40, mbit_per_s: float = 100, loss: float = 0) -> Iterator[Pair]:
    """The same with the initial namespace as `b`; its end of the path goes with the block."""
    here = f"/proc/{os.getpid()}/ns/net"
    with (
        namespace("a") as a,
        long_path(a.name, here, rtt_ms=rtt_ms, mbit_per_s=mbit_per_s, loss=loss),
    ):
        made = _joined(a, INITIAL, device=DEVICE)
        _configure(made)
        yield made


@contextlib.contextmanager
def _two(*, device: str) -> Iterator[Pair]:
    with namespace("a") as a, namespace("b") as b:
        yield _joined(a, b, device=device)


def _joined(a: Namespace, b: Namespace, *, device: str) -> Pair:
    addresses = {"a_ipv4": "10.77.0.1", "b_ipv4": "10.77.0.2", "a_ipv6": "fd77::1", "b_ipv6": "fd77::2"}
    return Pair(a=a, b=b, device=device, **addresses)


def _configure(pair: Pair) -> None:
    device = pair.device
    ends = ((pair.a, pair.a_ipv4, pair.a_ipv6), (pair.b, pair.b_ipv4, pair.b_ipv6))
    for end, ipv4, ipv6 in ends:
        end.run("ip", "address", "add", f"{ipv4}/24", "dev", device)
        if sysctl_path("net.ipv6").exists():
            # Without nodad the address is unusable for the second that duplicate detection takes.
            end.run("ip", "address", "add", f"{ipv6}/64", "dev", device, "nodad")
        end.run("ip", "link", "set", device, "up")


def cookie(netns: Namespace) -> int:
    """What the kernel calls it, never used twice."""
    with netns.entered(), socket.socket() as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")


def sysctl_path(key: str) -> Path:
    return PROC_SYS / key.replace(".", "/")


def read_sysctl(key: str) -> str:
    """A sysctl of the calling thread's namespace."""
    return " ".join(sysctl_path(key).read_text().split())


def checked(argv: Sequence[str]) -> str:
    """Run a command; AssertionError with what it said when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}"
    return done.stdout


def _setns(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno), str(path))
    finally:
        os.close(descriptor)
