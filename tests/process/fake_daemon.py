# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon's sockets with canned answers behind them, in a thread of the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Self

import zmq

from bpftune.ipc.control import CONTROL_SOCKET, EVENTS_SOCKET, LogEvent, Reply, Request
from bpftune.ipc.control import events as event_codec
from bpftune.ipc.control import replies as reply_codec
from bpftune.ipc.control import requests as request_codec

POLL_MS = 20

Answer = Callable[[Request], bytes | None]
"""None: the daemon stays silent."""


def always(reply: Reply) -> Answer:
    return lambda request: reply_codec.encode(reply)


class FakeDaemon:
    """Serves from `with` on; `requests` is what was asked."""

    def __init__(self, run_dir: Path, answer: Answer) -> None:
        self.requests: list[Request] = []
        self._answer = answer
        self._stopping = Event()
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(f"ipc://{run_dir / CONTROL_SOCKET}")
        self._publisher = self._context.socket(zmq.XPUB)
        self._publisher.bind(f"ipc://{run_dir / EVENTS_SOCKET}")
        self._thread = Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def wait_for_follower(self) -> None:
        """A subscription arrives on XPUB as a message."""
        assert self._publisher.poll(10_000)
        self._publisher.recv()

    def publish(self, event: LogEvent) -> None:
        self._publisher.send(event_codec.encode(event))

    def close(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._thread.join()
            self._publisher.close()
            self._context.term()

    def _serve(self) -> None:
        with self._router:
            while not self._stopping.is_set():
                if self._router.poll(POLL_MS):
                    self._answer_one()

    def _answer_one(self) -> None:
        identity, payload = self._router.recv_multipart()
        request = request_codec.decode(payload)
        self.requests.append(request)
        answer = self._answer(request)
        if answer is not None:
            self._router.send_multipart([identity, answer])
