# SPDX-License-Identifier: GPL-2.0-or-later
"""Small UDP datagrams as fast as one CPU can send them, as a program for any Python.

    flood.py receive ADDRESS PORT
    flood.py send ADDRESS PORT CPU

The receiver prints "listening" and discards; both run until they are killed.
"""

from __future__ import annotations

import os
import socket
import sys

PAYLOAD = bytes(64)


def receive(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((address, port))
        print("listening", flush=True)
        while True:
            receiver.recv(2048)


def send(address: str, port: int, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((address, port))
        while True:
            try:
                sender.send(PAYLOAD)
            except OSError:
                continue  # the queue is full or nobody listens yet: that is what a flood is


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2], int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
