# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP bursts and a reader of limited speed, as a program for any Python.

    datagrams.py receive ADDRESS PORT PER_SECOND [--rcvbuf BYTES] [--force] [--reopen-ms MS]
    datagrams.py send ADDRESS PORT COUNT EVERY_MS [--bytes BYTES]

The receiver prints "listening" and reads at most PER_SECOND datagrams per second; with --reopen-ms it
opens its socket anew that often. --rcvbuf asks for a buffer size, --force as an administrator may. The
sender sends COUNT datagrams of BYTES every EVERY_MS. Both run until they are killed.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import time

PAYLOAD_BYTES = 1000
SO_RCVBUFFORCE = 33
CHUNK = 20
"""Datagrams between two looks at the clock."""


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_socket(address: str, port: int, rcvbuf_bytes: int, force: bool) -> socket.socket:
    receiver = socket.socket(family_of(address), socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if rcvbuf_bytes:
        option = SO_RCVBUFFORCE if force else socket.SO_RCVBUF
        receiver.setsockopt(socket.SOL_SOCKET, option, rcvbuf_bytes)
    receiver.settimeout(0.05)
    receiver.bind((address, port))
    return receiver


def receive(given: argparse.Namespace) -> None:
    told = False
    while True:
        with open_socket(given.address, given.port, given.rcvbuf, given.force) as receiver:
            if not told:
                print("listening", flush=True)
                told = True
            read_until(receiver, given.per_second, time.monotonic() + given.reopen_ms / 1000)


def read_until(receiver: socket.socket, per_second: int, end: float) -> None:
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            for _ in range(CHUNK):
                receiver.recv(PAYLOAD_BYTES)
        except TimeoutError:
            continue
        time.sleep(max(0.0, start + CHUNK / per_second - time.monotonic()))


def send(given: argparse.Namespace) -> None:
    payload = bytes(given.bytes)
    with socket.socket(family_of(given.address), socket.SOCK_DGRAM) as sender:
        sender.connect((given.address, given.port))
        while True:
            start = time.monotonic()
            for _ in range(given.count):
                with contextlib.suppress(ConnectionRefusedError):  # it is opening its socket anew
                    sender.send(payload)
            time.sleep(max(0.0, start + given.every_ms / 1000 - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    receiver, sender = commands.add_parser("receive"), commands.add_parser("send")
    for command in (receiver, sender):
        command.add_argument("address")
        command.add_argument("port", type=int)
    receiver.add_argument("per_second", type=int)
    receiver.add_argument("--rcvbuf", type=int, default=0)
    receiver.add_argument("--force", action="store_true")
    receiver.add_argument("--reopen-ms", type=float, default=float("inf"))
    sender.add_argument("count", type=int)
    sender.add_argument("every_ms", type=int)
    sender.add_argument("--bytes", type=int, default=PAYLOAD_BYTES)
    given = parser.parse_args()
    receive(given) if given.command == "receive" else send(given)


if __name__ == "__main__":
    main()
