"""Pictures for those who wait: what is being cut out and tracked, and how the tracked head lies over it at the end."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..progress import Progress

SIZE = 512
"""Side of a preview, pixels."""
LINE = (90, 200, 255)
"""Of landmarks, RGB: no skin or hair is of this blue."""


class Glimpses:
    """What a running command is at, for commands that show no pictures of their own: capture and track."""

    def __init__(self, command: str, params: dict[str, Any]) -> None:
        self._folder = Path(params["capture"]) if command in ("capture", "track") else None
        self._look = {"capture": self._newest, "track": self._with_landmarks}.get(command)
        self._capture: Any = None

    def picture(self, done: int, total: int) -> np.ndarray | None:
        """(SIZE, SIZE, 3) uint8 RGB, or None where there is nothing to see."""
        try:
            return self._look(done, total) if self._look else None
        except Exception:
            # It is a courtesy: a file that is just being written may not be whole.
            return None

    def _newest(self, done: int, total: int) -> np.ndarray | None:
        """The last whole frame of the hidden folder that a capture grows in (`storage.write_beside`)."""
        growing = self._folder.parent.glob(f".{self._folder.stem}.*{self._folder.suffix}/frames")
        frames = sorted(path for folder in growing for path in folder.glob("*.jpg"))
        if len(frames) < 2:
            return None
        picture = cv2.imdecode(np.fromfile(frames[-2], np.uint8), cv2.IMREAD_COLOR)
        return None if picture is None else _fitted(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))

    def _with_landmarks(self, done: int, total: int) -> np.ndarray:
        """The frame that is as far in the clip as the work is in its stage, with the landmarks that are followed."""
        from ..formats.capture import load_capture, read_frame

        self._capture = self._capture or load_capture(self._folder)
        index = min(done * self._capture.frame_count // max(total, 1), self._capture.frame_count - 1)
        picture = read_frame(self._capture, index, SIZE)
        pixels = self._capture.landmarks[index, :, :2] * (SIZE / self._capture.size) - 0.5
        for x, y in pixels[np.isfinite(pixels).all(1)]:
            cv2.circle(picture, (round(float(x)), round(float(y))), 1, LINE, -1, cv2.LINE_AA)
        return picture


def _fitted(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def show_afterwards(command: str, params: dict[str, Any], progress: Progress) -> None:
    """The preview that follows a finished command; training and evaluation show their own while they run."""
    try:
        if command == "capture":
            progress.preview(_middle_frame(Path(params["capture"]))[0])
        elif command == "track":
            progress.preview(tracked_frame(Path(params["capture"])))
    except Exception:
        # What the command made is whole: that its picture failed is for the log.
        traceback.print_exc()


def _middle_frame(folder: Path) -> tuple[np.ndarray, int]:
    """A frame (SIZE, SIZE, 3) uint8 from the middle of a capture, if possible one with a face, and its index."""
    from ..formats.capture import load_capture, read_frame

    capture = load_capture(folder)
    good = np.flatnonzero(capture.flags == 0)
    index = int(good[len(good) // 2]) if len(good) else capture.frame_count // 2
    return read_frame(capture, index, SIZE), index


def tracked_frame(folder: Path) -> np.ndarray:
    """The same frame with the face of the tracked head drawn over it, as the edges of its mesh that face the camera."""
    from ..formats.track import load_track
    from ..head.registry import find_head
    from ..tracking.after.overlay import TrackedHead

    picture, index = _middle_frame(folder)
    track = load_track(folder / "track.npz")
    model = find_head(track.head_name, track.head_fingerprint, "The track")
    return TrackedHead(track, model).draw(picture, index)
