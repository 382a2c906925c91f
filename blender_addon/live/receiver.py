"""Packets from the network (UDP), received in a thread so that none is lost while Blender draws.

By default it listens on this computer alone (loopback). Whoever is first heard is listened to; packets of others are
left out until that one has been silent for a while. Memory is bounded: a packet that is too long and those that nobody
takes are left out.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Final

from ..errors import EffigyError
from ..threads import run_in_thread

LONGEST_PACKET: Final = 8192
"""Bytes: a face by VMC has 2,500, and networks carry 1,500 in one piece."""
MOST_WAITING: Final = 64
"""Packets that are kept until Blender takes them: a second of 60 faces a second. Recording as many takes 50 ms."""
FORGET_SENDER_SECONDS: Final = 2.0
"""After so long without a packet, another sender may take over."""
LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = "0.0.0.0"
"""Only where the artist has chosen it."""
_WAKE_SECONDS: Final = 0.2


class Receiver:
    """A socket that is open until `close`."""

    def __init__(self, port: int, *, network: bool) -> None:
        """`network`: whether other computers and phones may send. Raises an `EffigyError` if the port is taken."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(_WAKE_SECONDS)
        try:
            self._socket.bind((EVERYWHERE if network else LOOPBACK, port))
        except OSError as error:
            self._socket.close()
            raise EffigyError(_sentence(port, error)) from error
        self.port: int = self._socket.getsockname()[1]
        self._waiting: deque[tuple[bytes, float]] = deque(maxlen=MOST_WAITING)
        self._closed = threading.Event()
        self._sender = ""
        self._heard = -FORGET_SENDER_SECONDS
        self.too_long = 0
        """Packets that were left out for their length."""
        self.others = 0
        """Packets that were left out because another sender was listened to."""
        self._thread: Future[None] = run_in_thread(self._receive, "Effigy Live")

    @property
    def sender(self) -> str:
        """The address of whoever is listened to; empty before the first packet."""
        return self._sender

    def take(self) -> list[tuple[bytes, float]]:
        """The packets that have come, and when each came (`time.monotonic`)."""
        found = []
        while self._waiting:
            found.append(self._waiting.popleft())
        return found

    def close(self) -> None:
        """Closes the socket; the port is free afterwards."""
        self._closed.set()
        self._thread.exception(timeout=10 * _WAKE_SECONDS)

    def _receive(self) -> None:
        with self._socket:
            while not self._closed.is_set():
                try:
                    packet, (sender, _) = self._socket.recvfrom(LONGEST_PACKET + 1)
                except TimeoutError:
                    continue
                except OSError:
                    # Windows reports a sender that is gone in the receiver, and a packet that is too long as an error.
                    self.too_long += 1
                    self._closed.wait(0.001)
                    continue
                self._keep(packet, sender, time.monotonic())

    def _keep(self, packet: bytes, sender: str, now: float) -> None:
        if len(packet) > LONGEST_PACKET:
            self.too_long += 1
        elif sender != self._sender and now - self._heard < FORGET_SENDER_SECONDS:
            self.others += 1
        else:
            self._sender, self._heard = sender, now
            self._waiting.append((packet, now))


def _sentence(port: int, error: OSError) -> str:
    if error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)):
        return f"Port {port} is used by another program: close that one, or set another port here and in the sender."
    return f"Port {port} cannot be listened to ({error.strerror}): choose another port."
