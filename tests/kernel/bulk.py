# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP traffic as a program: traffic.py runs it inside namespaces with any Python, nothing installed.

    bulk.py receive ADDRESS PORT [--rcvbuf BYTES] [--pause-ms MS]
    bulk.py send ADDRESS PORT SECONDS [--sndbuf BYTES]

The receiver prints "listening", serves one connection after another and prints the bytes of each.
--pause-ms makes it a slow reader. --rcvbuf and --sndbuf lock the buffer as setsockopt(2) does.
"""

from __future__ import annotations

import argparse
import socket
import time

CHUNK_BYTES = 1 << 18


def receive(address: str, port: int, rcvbuf_bytes: int, pause_ms: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf_bytes)
        listener.bind((address, port))
        listener.listen()
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                print(drain(connection, pause_ms), flush=True)


def drain(connection: socket.socket, pause_ms: int) -> int:
    buffer = bytearray(CHUNK_BYTES)
    total = 0
    try:
        while count := connection.recv_into(buffer):
            total += count
            if pause_ms:
                time.sleep(pause_ms / 1000)
    except ConnectionResetError:
        pass
    return total


def send(address: str, port: int, seconds: float, sndbuf_bytes: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    payload = bytes(CHUNK_BYTES)
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        if sndbuf_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf_bytes)
        connection.connect((address, port))
        end = time.monotonic() + seconds
        total = 0
        while time.monotonic() < end:
            total += connection.send(payload)
    print(total, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    receiver = commands.add_parser("receive")
    sender = commands.add_parser("send")
    for command in (receiver, sender):
        command.add_argument("address")
        command.add_argument("port", type=int)
    receiver.add_argument("--rcvbuf", type=int, default=0)
    receiver.add_argument("--pause-ms", type=int, default=0)
    sender.add_argument("seconds", type=float)
    sender.add_argument("--sndbuf", type=int, default=0)
    given = parser.parse_args()
    if given.command == "receive":
        receive(given.address, given.port, given.rcvbuf, given.pause_ms)
    else:
        send(given.address, given.port, given.seconds, given.sndbuf)


if __name__ == "__main__":
    main()
