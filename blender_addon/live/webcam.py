"""Faces that the worker sees through a camera of this computer: its job `live`."""

from __future__ import annotations

import time
from typing import Final

import numpy as np
from mathutils import Quaternion

from ..errors import EffigyError
from ..rig.rotations import axis_angle_to_quaternion
from ..worker import session
from ..worker.messages import JobFace
from ..worker.remote import RemoteWorkerClient
from .face import CHANNELS, INDEX, Face
from .rates import LOST_SECONDS, Rate

_ORDER: Final = np.argsort([INDEX[name] for name in sorted(CHANNELS)])
"""The worker sends the channels in alphabetical order."""


class WebcamSource:
    """A camera that the worker watches."""

    def __init__(self, camera: str) -> None:
        """`camera`: its number, or a film that is played in its place. Raises an `EffigyError` without a backend."""
        self._client = session.client()
        if isinstance(self._client, RemoteWorkerClient):
            raise EffigyError(
                "The worker runs by its own command, perhaps on another machine, which has other cameras: use a phone, "
                "or clear the Worker Command in Effigy's preferences."
            )
        self._job = self._client.start_job("live", {"camera": camera})
        self._frames, self._faces = Rate(), Rate()
        self._age = 0.0

    def take(self) -> list[tuple[Face, float]]:
        # Faces must not wait for the worker's own timer.
        self._client.pump()
        found = []
        while self._job.faces:
            seen, now = self._job.faces.popleft(), time.monotonic()
            self._frames.count(now)
            if (face := _face_of(seen)) is not None:
                self._faces.count(now)
                self._age = seen.age
                found.append((face, now))
        if not found and self._job.finished:
            raise EffigyError(self._job.error or "The film has ended.")
        return found

    @property
    def trouble(self) -> str:
        if not self._frames.heard:
            return "Opening the camera…"
        if self._frames.silent_for > LOST_SECONDS:
            return f"The camera has given no picture for {self._frames.silent_for:.0f} s."
        if self._faces.silent_for > LOST_SECONDS:
            return "The camera sees no face: look into it, with light on the face."
        return ""

    @property
    def figures(self) -> str:
        return f"{self._faces.per_second:.0f} faces/s, {1e3 * self._age:.0f} ms old"

    def close(self) -> None:
        self._job.cancel()


def _face_of(seen: JobFace) -> Face | None:
    if seen.channels is None or seen.head is None:
        return None
    head = Quaternion(axis_angle_to_quaternion(np.array(seen.head)))
    return Face(seen.time, np.array(seen.channels)[_ORDER].clip(0, 1), head)
