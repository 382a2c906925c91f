"""The motion of the torso below a tracked head, for the footage that shows one.

Corners of collar, seams and folds are found in one frame and looked for in all others by the pyramidal method of Lucas
and Kanade, each time from that one frame, so that errors do not add up. They lie on a rough surface below the neck
(`backend.head.bust_surface`), which makes a rigid motion in space of their motion in the image. Turns and distance,
which the image tells least of, are held by priors: near those of the frame before, and of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from ...formats.capture import Capture, read_body_matte, read_frame
from ...formats.track import Track
from ...head.bust_surface import FALL, HALF_WIDTH, RISE, bust_surface
from ...head.model import HeadModel
from ...progress import SILENT, Progress

LEAST_SHARE = 0.015
"""Of the image that a body covers in the mean, from which on the footage shows shoulders."""
SAMPLES = 24
"""Frames from which that is found."""
_SIZE = 512
"""Pixels of a side of the images in which corners are followed, at most."""
_CORNERS = 160
_FEWEST = 6
"""Corners found again, without which the torso stays where it was."""
_WINDOW = {"winSize": (21, 21), "maxLevel": 3}
_RETURN = 1.0
"""Pixels that a corner may land from its start when it is followed back."""
_PIXEL = 1.0
"""Standard deviation of a corner's place, pixels of _SIZE; errors beyond it count as outliers."""
_TURN, _TURN_STEP = np.deg2rad(8.0), np.deg2rad(0.7)
"""Standard deviations of the torso's turn, from the first frame's and from the last one's, radians."""
_MOVE, _MOVE_STEP = 0.1, 0.02
"""The same of its place across the image, metres."""
_DEPTH, _DEPTH_STEP = 0.03, 0.002
"""The same of its distance."""


def with_torso(capture: Capture, track: Track, model: HeadModel, progress: Progress = SILENT) -> Track:
    """The track with the torso's motion, where the capture shows shoulders. Needs the capture's body mattes."""
    if not shows_shoulders(capture, track):
        return replace(track, torso_to_camera=None)
    return replace(track, torso_to_camera=_follow(capture, track, model, progress))


def shows_shoulders(capture: Capture, track: Track) -> bool:
    """Whether the body covers enough of the training frames; held-out frames say nothing."""
    frames = np.linspace(0, max(track.training_count - 1, 0), min(SAMPLES, capture.frame_count)).round().astype(int)
    share = np.mean([read_body_matte(capture, int(index)).mean() for index in frames]) / 255
    return float(share) > LEAST_SHARE


@dataclass(frozen=True)
class _Corners:
    """What is followed: P corners of the first frame."""

    image: np.ndarray
    """(S, S) uint8: the first frame."""
    pixels: np.ndarray
    """(P, 2) float32 as OpenCV counts them, the centre of the top-left pixel at 0."""
    points: np.ndarray
    """(P, 3) metres, camera space, in the first frame."""
    pivot: np.ndarray
    """(3,) metres, about which the torso turns."""
    intrinsics: np.ndarray
    """(3, 3) of `image`."""

    def seen(self, motion: np.ndarray) -> np.ndarray:
        """(P, 2) pixels of the corners after `motion` (6,): an axis-angle turn about the pivot, and a shift."""
        turned = Rotation.from_rotvec(motion[:3]).apply(self.points - self.pivot) + self.pivot + motion[3:]
        landed = turned @ self.intrinsics.T
        return landed[:, :2] / np.maximum(landed[:, 2:], 0.01) - 0.5

    def matrix(self, motion: np.ndarray) -> np.ndarray:
        """(4, 4) of a motion, in camera space."""
        made = np.eye(4)
        made[:3, :3] = Rotation.from_rotvec(motion[:3]).as_matrix()
        made[:3, 3] = self.pivot - made[:3, :3] @ self.pivot + motion[3:]
        return made

    def found_in(self, image: np.ndarray, matte: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (P, 2) of the corners in another frame near those of `motion`, and which (P,) were found there, on the
        body whose `matte` (S, S) uint8 this is.
        """
        guess = self.seen(motion).astype(np.float32)
        there, found, _ = cv2.calcOpticalFlowPyrLK(
            self.image, image, self.pixels, guess.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_WINDOW
        )
        back, returned, _ = cv2.calcOpticalFlowPyrLK(
            image, self.image, there, self.pixels.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_WINDOW
        )
        near = np.linalg.norm(back - self.pixels, axis=1) < _RETURN
        column, row = np.round(there).astype(int).clip(0, len(matte) - 1).T
        inside = ((there >= 0) & (there < len(matte))).all(1) & (matte[row, column] > 127)
        return there, near & inside & (found[:, 0] > 0) & (returned[:, 0] > 0)


def _follow(capture: Capture, track: Track, model: HeadModel, progress: Progress) -> np.ndarray | None:
    """(F, 4, 4) `Track.torso_to_camera`; None where nothing can be followed."""
    first, size = _typical_frame(track), min(_SIZE, capture.size)
    corners = _corners(capture, track, model, first, size)
    if corners is None:
        return None
    motions = np.zeros((capture.frame_count, 6))
    done = 0
    for order in (range(first + 1, capture.frame_count), range(first - 1, -1, -1)):
        last = np.zeros(6)
        for index in order:
            progress.raise_if_cancelled()
            matte = read_body_matte(capture, index, size)
            pixels, found = corners.found_in(_grey(capture, index, size), matte, last)
            last = motions[index] = _solved(corners, pixels, found, last) if found.sum() >= _FEWEST else last
            progress.update("torso", done := done + 1, capture.frame_count - 1)
    rest = track.head_to_camera[first].astype(np.float64)
    return np.array([corners.matrix(motion) @ rest for motion in motions], np.float32)


def _typical_frame(track: Track) -> int:
    """The training frame whose head is nearest to the mean pose of the good ones."""
    good = np.flatnonzero(track.flags[: track.training_count] == 0)
    if not len(good):
        return 0
    axes = track.head_to_camera[good, :3, :3].astype(np.float64)
    # A turn by one radian moves the face by a decimetre.
    poses = np.concatenate((0.1 * axes.reshape(-1, 9), track.head_to_camera[good, :3, 3]), 1)
    return int(good[np.linalg.norm(poses - np.median(poses, 0), axis=1).argmin()])


def _corners(capture: Capture, track: Track, model: HeadModel, first: int, size: int) -> _Corners | None:
    intrinsics = track.intrinsics.astype(np.float64)
    intrinsics[:2] *= size / track.size
    image, matte = _grey(capture, first, size), read_body_matte(capture, first, size)
    # The outline moves with the background that shows behind it.
    inside = cv2.erode((matte > 200).astype(np.uint8), np.ones((9, 9), np.uint8))
    pixels = cv2.goodFeaturesToTrack(image, _CORNERS, 0.005, 5, mask=inside)
    if pixels is None or len(pixels) < _FEWEST:
        return None
    pixels = pixels[:, 0]
    surface = bust_surface(model, track.identity)
    across = np.linspace(-HALF_WIDTH, HALF_WIDTH, 61)
    up = np.linspace(-FALL, RISE, 39)
    pose = track.head_to_camera[first].astype(np.float64)
    places = surface.points(*np.meshgrid(across, up)).reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
    landed = places @ intrinsics.T
    landed = landed[:, :2] / landed[:, 2:] - 0.5
    nearest = np.linalg.norm(landed - pixels[:, None], axis=2).argmin(1)
    rays = np.concatenate((pixels + 0.5, np.ones((len(pixels), 1))), 1) @ np.linalg.inv(intrinsics).T
    points = rays * places[nearest, 2:]
    pivot = pose[:3, :3] @ surface.centre + pose[:3, 3]
    return _Corners(image, pixels, points, pivot, intrinsics)


def _grey(capture: Capture, index: int, size: int) -> np.ndarray:
    return cv2.cvtColor(read_frame(capture, index, size), cv2.COLOR_RGB2GRAY)


def _solved(corners: _Corners, pixels: np.ndarray, found: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The motion (6,) that explains the corners that were found, near `last` (6,)."""
    of_all = np.array([_TURN] * 3 + [_MOVE, _MOVE, _DEPTH])
    of_step = np.array([_TURN_STEP] * 3 + [_MOVE_STEP, _MOVE_STEP, _DEPTH_STEP])

    def residuals(motion: np.ndarray) -> np.ndarray:
        errors = np.linalg.norm(corners.seen(motion)[found] - pixels[found], axis=1) / _PIXEL
        # Beyond a pixel or two an error counts by its logarithm (Cauchy), because such corners were found wrongly.
        robust = np.sqrt(np.log1p(errors**2))
        return np.concatenate((robust, motion / of_all, (motion - last) / of_step))

    return least_squares(residuals, last, method="lm", x_scale=of_step, max_nfev=60).x
