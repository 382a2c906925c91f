"""Where faces come from, and what to say when none come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .face import Face
from .live_link import LiveLinkReader
from .rates import LOST_SECONDS, Rate
from .receiver import Receiver
from .vmc import VmcReader


class Source(Protocol):
    """What a session takes faces from."""

    def take(self) -> list[tuple[Face, float]]:
        """The faces that have come since the last call, and when each came (`time.monotonic`). Raises an
        `EffigyError` if no more will come.
        """
        ...

    @property
    def trouble(self) -> str:
        """Why no face comes, as a sentence; empty while all is well."""
        ...

    @property
    def figures(self) -> str:
        """Faces a second, and what else is known, for the panel."""
        ...

    def close(self) -> None: ...


class PacketSource:
    """Faces in packets from the network."""

    def __init__(self, receiver: Receiver, read: Callable[[bytes, float], Face | None], sender: str) -> None:
        """`read` gives the face of a packet, or None, and raises a ValueError for what it cannot read. `sender`: what
        sends, in words.
        """
        self._receiver, self._read, self._sender = receiver, read, sender
        self._packets, self._faces = Rate(), Rate()
        self.malformed = 0

    def take(self) -> list[tuple[Face, float]]:
        found = []
        for packet, arrived in self._receiver.take():
            try:
                face = self._read(packet, arrived)
            except ValueError:
                self.malformed += 1
                continue
            self._packets.count(arrived)
            if face is not None:
                self._faces.count(arrived)
                found.append((face, arrived))
        return found

    @property
    def trouble(self) -> str:
        port = self._receiver.port
        if self._packets.silent_for > LOST_SECONDS:
            if self._packets.heard:
                return (
                    f"{self._sender} has sent nothing for {self._packets.silent_for:.0f} s: check that it runs and is "
                    "in the same network. It goes on by itself when something comes."
                )
            left_out = f" {self.malformed} packets were not understood." if self.malformed else ""
            return f"Waiting for {self._sender} on port {port}.{left_out}"
        if self._faces.silent_for > LOST_SECONDS:
            return f"{self._sender} sees no face."
        return ""

    @property
    def figures(self) -> str:
        left_out = self.malformed + self._receiver.too_long + self._receiver.others
        dropped = f", {left_out} packets left out" if left_out else ""
        return f"{self._faces.per_second:.0f} faces/s from {self._receiver.sender or 'nobody yet'}{dropped}"

    def close(self) -> None:
        self._receiver.close()


def live_link_face(port: int, *, network: bool) -> PacketSource:
    return PacketSource(Receiver(port, network=network), LiveLinkReader().read, "Live Link Face")


def vmc(port: int, *, network: bool) -> PacketSource:
    return PacketSource(Receiver(port, network=network), VmcReader().read, "The VMC sender")
