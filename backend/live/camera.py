"""Frames of a camera, or of a film that is played in its place, the newest one at a time.

A thread reads all frames, because a driver hands out the oldest one that nobody has read: whoever reads seldom would
see the past.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from ..errors import EffigyError
from ..footage.decode import probe, read_frames

WIDTH, HEIGHT, RATE = 640, 480, 30
"""Which frames a camera is asked for."""
LOST_SECONDS: Final = 2.0
"""Without a frame, after which a camera is lost."""
FIRST_SECONDS: Final = 20.0
"""For the first frame: some drivers take ten seconds to open a camera."""
_STOP_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Shot:
    """One frame."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    time: float
    """`time.monotonic` when the camera had it."""
    read_seconds: float
    """For reading it, without waiting for it."""


class Camera:
    """The frames of a source."""

    def __init__(self, shots: Generator[Shot, None, None]) -> None:
        """`shots` waits for each frame, and ends with the source."""
        self._shots = shots
        self._changed = threading.Condition()
        self._newest: Shot | None = None
        self._ended = self._stopped = self._seen = False
        self._error: Exception | None = None
        self.passed_over = 0
        """Frames for which there was no time."""
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

    def newest(self) -> Shot | None:
        """Waits for a frame that was not given yet; None at the end of a film. Raises an `EffigyError` if none
        comes.
        """
        patience = LOST_SECONDS if self._seen else FIRST_SECONDS
        with self._changed:
            if not self._changed.wait_for(lambda: self._newest is not None or self._ended, patience):
                raise EffigyError(
                    f"The camera has given no picture for {patience:g} s: plug it in again, close other programs that "
                    "use it, then start Live again."
                )
            if self._error is not None:
                raise self._error
            shot, self._newest, self._seen = self._newest, None, True
            return shot

    def close(self) -> None:
        self._stopped = True
        self._thread.join(_STOP_SECONDS)

    def _read(self) -> None:
        try:
            with closing(self._shots):
                for shot in self._shots:
                    with self._changed:
                        self.passed_over += self._newest is not None
                        self._newest = shot
                        self._changed.notify()
                    if self._stopped:
                        break
        except Exception as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()


@contextmanager
def open_camera(source: str) -> Iterator[Camera]:
    """A camera by its number, counted from 0, or a film by its path. Raises an `EffigyError` for anything else."""
    shots = _of_device(int(source)) if source.isdecimal() and len(source) < 4 else _of_film(Path(source))
    with closing(Camera(shots)) as camera:
        yield camera


def _of_film(path: Path) -> Generator[Shot, None, None]:
    """The frames of a film, each when its time has come."""
    info = probe(path)
    begun = time.monotonic()
    last = begun
    for frame in read_frames(info, longest_side=WIDTH):
        read = time.monotonic() - last
        due = begun + frame.time
        time.sleep(max(0.0, due - time.monotonic()))
        last = time.monotonic()
        yield Shot(frame.image, last, read)
        last = time.monotonic()


def _of_device(number: int) -> Generator[Shot, None, None]:
    device = cv2.VideoCapture(number)
    try:
        if not device.isOpened():
            raise EffigyError(
                f"Camera {number} cannot be opened: plug it in, choose another number, close other programs that use "
                "it, and allow Blender the camera in the system's privacy settings."
            )
        for name, value in (("FRAME_WIDTH", WIDTH), ("FRAME_HEIGHT", HEIGHT), ("FPS", RATE), ("BUFFERSIZE", 1)):
            device.set(getattr(cv2, f"CAP_PROP_{name}"), value)
        seen = time.monotonic()
        while time.monotonic() - seen < LOST_SECONDS:
            if not device.grab():
                time.sleep(0.01)
                continue
            seen = time.monotonic()
            decoded, image = device.retrieve()
            if decoded:
                yield Shot(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), seen, time.monotonic() - seen)
        raise EffigyError(f"Camera {number} was lost: plug it in again, then start Live again.")
    finally:
        device.release()
