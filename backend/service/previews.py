"""Preview images of captures and tracks for a job's panel: while the work runs, and of the finished result.

Training and evaluation draw their own previews.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..formats.capture import LARGEST_SIZE, Capture, load_capture, read_frame
from ..formats.image_reading import read_image
from ..output_files import temporaries_of
from ..progress import Progress
from .request_fields import Request
from .requests import CaptureRequest, TrackRequest

if TYPE_CHECKING:
    from ..formats.track import Track
    from ..head.model import HeadModel

SIZE = 512
"""Side of a preview, pixels."""
LANDMARK_COLOUR = (90, 200, 255)
"""RGB: a blue that neither skin nor hair has."""


class WorkPreview:
    """Draws what a running command is working on, for the commands capture and track."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._capture: Capture | None = None
        """Read when the first preview of a track is drawn."""

    def draw(self, done: int, total: int) -> np.ndarray | None:
        """(SIZE, SIZE, 3) uint8 RGB when `done` units of `total` are done, or None where nothing can be shown."""
        try:
            match self._request:
                case CaptureRequest():
                    return _newest_frame(self._request.capture)
                case TrackRequest():
                    return self._frame_with_landmarks(self._request.captures[0], done, total)
        except Exception:
            # A file that is just being written may be incomplete, and a preview is not worth failing the work.
            pass
        return None

    def _frame_with_landmarks(self, folder: Path, done: int, total: int) -> np.ndarray:
        """The frame as far into the clip as the stage has come, with the detector's landmarks."""
        self._capture = capture = self._capture or load_capture(folder)
        index = min(done * capture.frame_count // max(total, 1), capture.frame_count - 1)
        image = read_frame(capture, index, SIZE)
        pixels = capture.landmarks[index, :, :2] * (SIZE / capture.size) - 0.5
        for x, y in pixels[np.isfinite(pixels).all(1)]:
            cv2.circle(image, (round(float(x)), round(float(y))), 1, LANDMARK_COLOUR, -1, cv2.LINE_AA)
        return image


def _newest_frame(folder: Path) -> np.ndarray | None:
    """The last complete frame in the hidden folder that a capture is written to (`storage.write_beside`)."""
    hidden = temporaries_of(folder)
    frames = sorted(path for made in hidden for path in (made / "frames").glob("*.jpg"))
    if len(frames) < 2:
        return None
    # The newest file may still be incomplete; the one before it is not.
    image = read_image(frames[-2], cv2.IMREAD_COLOR_RGB, "wait", LARGEST_SIZE**2)
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def send_capture_preview(capture: Capture, progress: Progress) -> None:
    """The preview of a finished capture."""
    _send(lambda: read_frame(capture, _middle_frame(capture), SIZE), progress)


def send_track_preview(capture: Capture, track: Track, model: HeadModel, progress: Progress) -> None:
    """The preview of a finished track: the same frame with the visible edges of the tracked head's mesh."""
    from ..tracking.after.overlay import TrackedHead

    index = _middle_frame(capture)
    _send(lambda: TrackedHead(track, model).draw(read_frame(capture, index, SIZE), index), progress)


def _send(draw: Callable[[], np.ndarray], progress: Progress) -> None:
    try:
        progress.preview(draw())
    except Exception:
        # The command's own files are complete: a failed preview only goes to the log.
        traceback.print_exc()


def _middle_frame(capture: Capture) -> int:
    """Index of a frame from the middle of a capture, if possible one with a face."""
    good = np.flatnonzero(capture.flags == 0)
    return int(good[len(good) // 2]) if len(good) else capture.frame_count // 2
