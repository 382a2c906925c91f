"""Where the irises are in the pictures.

The limbus, the iris's rim against the white of the eye, is plain to see at the capture's resolution. What the rig
predicts is a circle of known depth and axis, hence an ellipse in the picture; its displacement is looked for at which
the picture is brighter outside than inside all along the arc that the lids leave free (Daugman's integro-differential
operator, IEEE PAMI 15 (1993), eq. 2, with the ellipse's shape and size known). Mostly the blue channel is looked at, in
which skin is dark and the white of the eye is not. An arc that lids hide says nothing; an arc that lies free and shows
no edge speaks against the place.

The sum over the arc is taken as the logarithm of a probability over displacements. Its mean is the measurement and its
spread the uncertainty, by direction: two free sides of an iris under a low lid tell its place across and not its
height. Both eyes look together, so each displacement is also asked of the other eye.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numba
import numpy as np

from ...correspondence.landmark_sets import LEFT_LIDS, LID_PAIRS, RIGHT_LIDS
from ...formats.capture import Capture, read_frame
from ...progress import SILENT, Progress
from ..model.camera import Camera
from ..model.frame_state import FrameState, eye_occlusion
from ..model.landmark_surface import LandmarkSurface
from ..model.prediction import predict
from .gap_closure import landmark_gap

_OUTLINES = tuple(np.concatenate((lids[:9], lids[:8:-1])) for lids in (LEFT_LIDS, RIGHT_LIDS))
"""The lids' points around each eye."""
_ANGLES = np.arange(40) * (2 * np.pi / 40)
_STEP = 0.5
"""Pixels at 512 between displacements that are tried,"""
_STEPS = 12
"""and how many of them in each direction."""
_HALVE = np.array(((0.5, 0, 0), (0, 0.5, 0)))
"""From displacements of the whole map to those of a map with every second one."""
_BLUR = 0.8
"""Pixels at 512 by which the picture is smoothed first."""
_MARGIN = 0.5
"""Pixels at 512 inside the lids' outline from which on an arc is taken to be free, fully so a pixel farther in."""
_REDNESS = 0.5
"""By how much redness darkens what is looked at: skin is red and the white of the eye is not."""
_FULL = 0.8
"""Share of the eye's contrast that makes a full edge,"""
_EDGE = 0.3
"""and share of a full edge below which a free piece of arc speaks against the place: a lid's edge is fainter than the
limbus."""
_PULL = 4.0
"""Pixels at 512 by which the prediction errs."""
_TOGETHER = 5
"""Steps by which two eyes' displacements may differ, this many in all."""
_SMALLEST = 3.0
"""Pixels of radius below which an iris is not looked for."""
_FLOOR = 0.3
"""Pixels at 512 of error that remain however clear the limbus is."""
_SURE, _LOST = 0.6, 2.0
"""Pixels at 512 of uncertainty up to which the measurement replaces the detector's iris points, and from which on it is
none."""
_SLIT, _OPEN = 0.35, 0.55
"""Gap between the lids, in diameters of an iris, up to which there is too little of it to be seen, and from which on
enough."""
_RADII = np.linspace(0.80, 1.16, 10)
"""Irises differ little between people, 11.7 mm and half a millimetre more or less, but a clip does not tell how large a
head is."""
_SAMPLE = 32
"""Frames of which the size of the irises is learned."""


@dataclass(frozen=True)
class DetectedIrises:
    """The left and the right iris in F frames."""

    centres: np.ndarray
    """(F, 2, 2) pixels."""
    roots: np.ndarray
    """(F, 2, 2, 2): U with U'U the precision of a centre; zero where no iris was found."""
    found: np.ndarray
    """(F, 2) in [0, 1]: how far the measurement replaces the detector's iris landmarks."""


def detect_irises(
    capture: Capture,
    surface: LandmarkSurface,
    state: FrameState,
    camera: Camera,
    face_found: np.ndarray,
    training: np.ndarray,
    progress: Progress = SILENT,
) -> DetectedIrises:
    """Measure the irises of every frame, near their positions in `state`.

    `surface` is the person's `model.limbus_surface`. Frames without a face (`face_found` (F,) bool) get none. The size
    of the irises, and the usual difference between the two eyes' displacements, are learned from the frames `training`.
    """
    shown = predict(surface, state, camera).double().cpu().numpy()
    centres, pixel, frames = shown[:, ::3], camera.pixel, len(state)
    axes = np.stack((shown[:, 1::3] - centres, shown[:, 2::3] - centres), 2)
    hidden = eye_occlusion(state).cpu().numpy()

    def look(index: int, radii: np.ndarray) -> np.ndarray | None:
        """(R, 2, S, S): the operator over displacements, for either eye."""
        reach = int(np.ceil(np.linalg.norm(axes[index], axis=-1).max() * radii.max() + (_STEP * _STEPS + 4) * pixel))
        corners = np.concatenate((centres[index].min(0) - reach, centres[index].max(0) + reach)).astype(int)
        left, top, right, bottom = corners.clip(0, capture.size).tolist()
        if not face_found[index] or right - left < reach or bottom - top < reach:
            return None
        picture = read_frame(capture, index)[top:bottom, left:right]
        outlines, middles = capture.landmarks[index, :, :2] - (left, top), centres[index] - (left, top)
        return np.stack(
            [
                _operator(picture, outlines[_OUTLINES[eye]], middles[eye], axes[index, eye], radii, pixel)
                for eye in range(2)
            ],
            1,
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chosen = training[np.linspace(0, len(training) - 1, min(_SAMPLE, len(training))).round().astype(int)]
        tried = [scores for scores in pool.map(lambda index: look(index, _RADII), chosen) if scores is not None]
        radius = _best_radius(np.stack(tried)) if tried else 1.0
        apart = _usual_difference([scores[np.abs(_RADII - radius).argmin()] for scores in tried])

        def measure(index: int) -> tuple[np.ndarray, np.ndarray] | None:
            """Displacements (2, 2) in pixels at 512 and their covariances (2, 2, 2)."""
            scores = look(index, np.array((radius,)))
            if scores is None:
                return None
            left, right = scores[0]
            # What is imagined of an eye that is turned away tells nothing of the other.
            there = 1 - hidden[index]
            parts = (
                _posterior(left + there[1] * _shifted(right, -apart)),
                _posterior(right + there[0] * _shifted(left, apart)),
            )
            displacements, covariances = (np.stack(values) for values in zip(*parts, strict=True))
            return displacements, covariances

        nothing = _posterior(np.zeros((2 * _STEPS + 1, 2 * _STEPS + 1)))[1]
        seen = []
        for index, part in enumerate(pool.map(measure, range(frames)), 1):
            seen.append(part or (np.zeros((2, 2)), np.stack((nothing, nothing))))
            if index % 16 == 0 or index == frames:
                progress.update("irises", index, frames)
                if progress.cancelled():
                    pool.shutdown(wait=False, cancel_futures=True)
                progress.raise_if_cancelled()
    offsets, spreads = (np.stack(values) for values in zip(*seen, strict=True))

    gaps = np.stack([landmark_gap(capture.landmarks, LID_PAIRS[side][:3]) for side in ("left", "right")], 1)
    wide = np.nan_to_num(gaps / (2 * radius * np.linalg.norm(axes, axis=-1).max(-1).clip(1e-6)))
    free = np.minimum(1 - hidden, ((wide - _SLIT) / (_OPEN - _SLIT)).clip(0, 1))
    variances, directions = np.linalg.eigh(spreads)
    found = free * ((_LOST - np.sqrt(variances[..., -1])) / (_LOST - _SURE)).clip(0, 1)
    # The window of displacements is no observation: what it alone would tell is taken off.
    told = free[..., None] * np.maximum(1 / (variances + _FLOOR**2) - 1 / nothing[0, 0], 0)
    roots = np.sqrt(told)[..., None] * directions.swapaxes(-1, -2) / pixel
    return DetectedIrises(centres + offsets * pixel, roots, found)


def _whiteness(picture: np.ndarray) -> np.ndarray:
    """(H, W) float32 of RGB (H, W, 3): blue, less where it is redder than blue."""
    red, blue = picture[..., 0].astype(np.float32), picture[..., 2].astype(np.float32)
    return np.maximum(blue - _REDNESS * np.maximum(red - blue, 0), 0)


def _usual_difference(scores: list[np.ndarray]) -> np.ndarray:
    """(2,) steps (across, down) by which the right eye's displacement exceeds the left's in scores (2, S, S), usually:
    where the detector's points put the two eyes wrong, they do so all the time.
    """
    steps = []
    for pair in scores:
        if pair.any((1, 2)).all():
            left, right = (np.array(np.unravel_index(one.argmax(), one.shape)) for one in pair)
            steps.append((right - left)[::-1])
    # Of a few frames that would be what they happen to show, and each eye would confirm the other.
    return np.median(steps, axis=0) if len(steps) >= _SAMPLE // 4 else np.zeros(2)


def _shifted(scores: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The other eye's scores (S, S) where this eye's would be, nearly."""
    near = cv2.dilate(scores, np.ones((_TOGETHER, _TOGETHER)))
    move = np.array(((1.0, 0, shift[0]), (0, 1.0, shift[1])))
    return cv2.warpAffine(near, move, near.shape, borderMode=cv2.BORDER_REPLICATE)


def _best_radius(maps: np.ndarray) -> float:
    """From the operator (N, R, 2, S, S) for `_RADII`."""
    totals = maps.max((3, 4)).sum((0, 2))
    best = int(totals.argmax())
    if not 0 < best < len(_RADII) - 1:
        return 1.0
    low, middle, high = totals[best - 1 : best + 2]
    return float(_RADII[best] + (_RADII[1] - _RADII[0]) * 0.5 * (low - high) / min(low - 2 * middle + high, -1e-9))


def _posterior(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (2,) and covariance (2, 2), pixels at 512, of the displacement."""
    steps = _STEP * np.arange(-_STEPS, _STEPS + 1)
    scores = scores - 0.5 * (steps[:, None] ** 2 + steps**2) / _PULL**2
    share = np.exp(scores - scores.max())
    share /= share.sum()
    across, down = share.sum(0), share.sum(1)
    mean = np.array((across @ steps, down @ steps))
    mixed = (steps - mean[1]) @ share @ (steps - mean[0])
    return mean, np.array(((across @ (steps - mean[0]) ** 2, mixed), (mixed, down @ (steps - mean[1]) ** 2)))


def _operator(
    picture: np.ndarray, outline: np.ndarray, centre: np.ndarray, axes: np.ndarray, radii: np.ndarray, pixel: float
) -> np.ndarray:
    """(R, S, S): sums over the free arc for each of the radii and displacements (down, across); zero where it cannot be
    taken.

    `outline` (16, 2) the lids, `centre` (2,) and `axes` (2, 2) of the predicted ellipse, pixels.
    """
    scores = np.zeros((len(radii), 2 * _STEPS + 1, 2 * _STEPS + 1))
    size = np.linalg.norm(axes, axis=1).max()
    half = int(np.ceil(size * radii.max() + (_STEP * _STEPS + 3) * pixel))
    left, top = np.floor(centre).astype(int) - half
    width = 2 * half + 1
    if size < _SMALLEST or left < 0 or top < 0 or left + width > picture.shape[1] or top + width > picture.shape[0]:
        return scores
    blurred = cv2.GaussianBlur(_whiteness(picture[top : top + width, left : left + width]), (0, 0), _BLUR * pixel)
    slope_x, slope_y = (cv2.Sobel(blurred, cv2.CV_32F, 1 - axis, axis, ksize=1) / 2 for axis in range(2))
    eye = np.zeros((width, width), np.uint8)
    cv2.fillPoly(eye, [np.round((outline - (left, top) - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    values = blurred[eye > 0]
    if len(values) < 20:
        return scores
    values.sort()
    dark, bright = values[len(values) // 10], values[-len(values) // 10]
    free = np.clip(cv2.distanceTransform(eye, cv2.DIST_L2, 3) / pixel - _MARGIN, 0, 1)
    rim = np.outer(np.cos(_ANGLES), axes[0]) + np.outer(np.sin(_ANGLES), axes[1])
    along = np.outer(-np.sin(_ANGLES), axes[0]) + np.outer(np.cos(_ANGLES), axes[1])
    normals = np.stack((along[:, 1], -along[:, 0]), 1)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    normals *= np.sign((normals * rim).sum(1, keepdims=True)) / lengths
    # A step as high as the eye's contrast, blurred, rises by so much a pixel.
    full = max(_FULL * (bright - dark) / ((2 * _BLUR + 1) * pixel), 1.0)
    coarse = np.empty((_STEPS + 1, _STEPS + 1))
    for index, radius in enumerate(radii):
        _sum_over_arc(
            slope_x / full,
            slope_y / full,
            free,
            centre - (left, top) - 0.5,
            radius * rim,
            normals,
            2 * _STEP * pixel,
            _EDGE,
            coarse,
        )
        # The pictures are blurred too far for the sums to bend between every other displacement.
        cv2.warpAffine(
            coarse,
            _HALVE,
            scores.shape[1:],
            scores[index],
            cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            cv2.BORDER_REPLICATE,
        )
    return scores


@numba.njit(cache=True, nogil=True, fastmath=True)
def _sum_over_arc(
    gx: np.ndarray,
    gy: np.ndarray,
    free: np.ndarray,
    centre: np.ndarray,
    rim: np.ndarray,
    normals: np.ndarray,
    step: float,
    edge: float,
    scores: np.ndarray,
) -> None:
    middle = scores.shape[0] // 2
    for row in range(scores.shape[0]):
        for column in range(scores.shape[1]):
            total = 0.0
            for k in range(len(rim)):
                x = centre[0] + (column - middle) * step + rim[k, 0]
                y = centre[1] + (row - middle) * step + rim[k, 1]
                i, j = int(y), int(x)
                if i < 0 or j < 0 or i + 1 >= free.shape[0] or j + 1 >= free.shape[1]:
                    continue
                v, u = y - i, x - j
                a, b, c, d = (1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u
                weight = a * free[i, j] + b * free[i, j + 1] + c * free[i + 1, j] + d * free[i + 1, j + 1]
                if weight > 0:
                    rise = normals[k, 0] * (a * gx[i, j] + b * gx[i, j + 1] + c * gx[i + 1, j] + d * gx[i + 1, j + 1])
                    rise += normals[k, 1] * (a * gy[i, j] + b * gy[i, j + 1] + c * gy[i + 1, j] + d * gy[i + 1, j + 1])
                    total += weight * (min(max(rise, -1.0), 1.0) - edge)
            scores[row, column] = total
