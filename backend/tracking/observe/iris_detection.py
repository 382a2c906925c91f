"""Detecting the irises in the images, near their predicted positions.

The limbus, the border between iris and white of the eye, is clearly visible at the capture's resolution. The rig
predicts a circle of known depth and axis, hence an ellipse in the image. Its displacement is searched at which the
image is brighter outside than inside along the arc that the eyelids leave free (Daugman's integro-differential
operator, IEEE PAMI 15 (1993), eq. 2, with known shape and size of the ellipse). The search mostly uses the blue
channel, in which skin is dark and the white of the eye is not. An arc that eyelids hide does not count; a free arc
without an edge counts against the displacement.

The sum over the arc is taken as a log probability over displacements. Its mean is the measurement, and its covariance
the uncertainty by direction: the two free sides of an iris under a low eyelid determine its horizontal position, but
not its height. Both eyes move together, so each displacement is also scored in the other eye.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from ...cores import core_count
from ...correspondence.landmark_sets import LEFT_LIDS, LID_PAIRS, RIGHT_LIDS
from ...formats.capture import Capture, read_frame
from ...progress import SILENT, Progress
from ...splatting.jit import kernel
from ..model.camera import Camera
from ..model.frame_state import FrameState, eye_occlusion
from ..model.landmark_surface import LandmarkSurface
from ..model.prediction import predict
from .gap_closure import landmark_gap

_EYE_OUTLINES = tuple(np.concatenate((lids[:9], lids[:8:-1])) for lids in (LEFT_LIDS, RIGHT_LIDS))
"""The eyelids' landmarks around each eye, as polygons."""
_ANGLES = np.arange(40) * (2 * np.pi / 40)
_STEP = 0.5
"""Pixels at 512 between the displacements that are tried."""
_STEPS = 12
"""Displacements that are tried in each direction."""
_HALF_SCALE = np.array(((0.5, 0, 0), (0, 0.5, 0)))
"""The transform from the full grid of displacements to the grid with every second one."""
_BLUR = 0.8
"""Pixels at 512 of the blur that is applied first."""
_MARGIN = 0.5
"""Pixels at 512 inside the eyelids' outline at which an arc begins to count as free; one pixel farther in it counts
fully."""
_REDNESS = 0.5
"""How much redness darkens the searched channel: skin is red, and the white of the eye is not."""
_FULL_EDGE = 0.8
"""Share of the eye's contrast that counts as a full edge."""
_MIN_EDGE = 0.3
"""Share of a full edge below which a free piece of arc counts against the displacement: an eyelid's edge is fainter
than the limbus."""
_PREDICTION_SIGMA = 4.0
"""Pixels at 512 by which the predicted position errs."""
_EYE_DIFFERENCE = 5
"""The number of steps, in all, by which the two eyes' displacements may differ."""
_MIN_RADIUS = 3.0
"""Pixels of radius below which an iris is not searched."""
_MIN_SIGMA = 0.3
"""Pixels at 512 of error that remain however clear the limbus is."""
_RELIABLE_SIGMA, _MAX_SIGMA = 0.6, 2.0
"""Pixels at 512: up to the first uncertainty the measurement replaces the detector's iris landmarks, from the second on
it does not count."""
_MIN_GAP, _OPEN_GAP = 0.35, 0.55
"""Gaps between the eyelids, in iris diameters: up to the first too little of the iris is visible, from the second on
enough."""
_RADII = np.linspace(0.80, 1.16, 10)
"""Radii that are tried, relative to the rig's. Irises differ little between people (11.7 mm, half a millimetre more or
less), but a clip does not show how large a head is."""
_SAMPLED_FRAMES = 32
"""Frames from which the size of the irises is learned."""


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
    predicted = predict(surface, state, camera).double().cpu().numpy()
    centres, pixel, frames = predicted[:, ::3], camera.pixel, len(state)
    axes = np.stack((predicted[:, 1::3] - centres, predicted[:, 2::3] - centres), 2)
    hidden = eye_occlusion(state).cpu().numpy()

    def scores_of(index: int, radii: np.ndarray) -> np.ndarray | None:
        """(R, 2, S, S): the operator over displacements, for each radius and eye of a frame."""
        reach = int(np.ceil(np.linalg.norm(axes[index], axis=-1).max() * radii.max() + (_STEP * _STEPS + 4) * pixel))
        corners = np.concatenate((centres[index].min(0) - reach, centres[index].max(0) + reach)).astype(int)
        left, top, right, bottom = corners.clip(0, capture.size).tolist()
        if not face_found[index] or right - left < reach or bottom - top < reach:
            return None
        image = read_frame(capture, index)[top:bottom, left:right]
        outlines, local_centres = capture.landmarks[index, :, :2] - (left, top), centres[index] - (left, top)
        return np.stack(
            [
                _operator(image, outlines[_EYE_OUTLINES[eye]], local_centres[eye], axes[index, eye], radii, pixel)
                for eye in range(2)
            ],
            1,
        )

    with ThreadPoolExecutor(core_count()) as pool:
        chosen = training[np.linspace(0, len(training) - 1, min(_SAMPLED_FRAMES, len(training))).round().astype(int)]
        tried = [scores for scores in pool.map(lambda index: scores_of(index, _RADII), chosen) if scores is not None]
        radius = _best_radius(np.stack(tried)) if tried else 1.0
        difference = _usual_difference([scores[np.abs(_RADII - radius).argmin()] for scores in tried])

        def measure(index: int) -> tuple[np.ndarray, np.ndarray] | None:
            """Displacements (2, 2) in pixels at 512 and their covariances (2, 2, 2)."""
            scores = scores_of(index, np.array((radius,)))
            if scores is None:
                return None
            left, right = scores[0]
            # Landmarks of an eye that is turned away are guesses, so its scores do not count for the other eye.
            visible = 1 - hidden[index]
            parts = (
                _posterior(left + visible[1] * _shifted(right, -difference)),
                _posterior(right + visible[0] * _shifted(left, difference)),
            )
            displacements, covariances = (np.stack(values) for values in zip(*parts, strict=True))
            return displacements, covariances

        prior_covariance = _posterior(np.zeros((2 * _STEPS + 1, 2 * _STEPS + 1)))[1]
        measured = []
        for index, part in enumerate(pool.map(measure, range(frames)), 1):
            measured.append(part or (np.zeros((2, 2)), np.stack((prior_covariance, prior_covariance))))
            if index % 16 == 0 or index == frames:
                progress.update("irises", index, frames)
                if progress.cancelled():
                    pool.shutdown(wait=False, cancel_futures=True)
                progress.raise_if_cancelled()
    offsets, spreads = (np.stack(values) for values in zip(*measured, strict=True))

    gaps = np.stack([landmark_gap(capture.landmarks, LID_PAIRS[side][:3]) for side in ("left", "right")], 1)
    opening = np.nan_to_num(gaps / (2 * radius * np.linalg.norm(axes, axis=-1).max(-1).clip(1e-6)))
    free = np.minimum(1 - hidden, ((opening - _MIN_GAP) / (_OPEN_GAP - _MIN_GAP)).clip(0, 1))
    variances, directions = np.linalg.eigh(spreads)
    found = free * ((_MAX_SIGMA - np.sqrt(variances[..., -1])) / (_MAX_SIGMA - _RELIABLE_SIGMA)).clip(0, 1)
    # The window of displacements is no observation: the precision of the window alone is subtracted.
    precision = free[..., None] * np.maximum(1 / (variances + _MIN_SIGMA**2) - 1 / prior_covariance[0, 0], 0)
    roots = np.sqrt(precision)[..., None] * directions.swapaxes(-1, -2) / pixel
    return DetectedIrises(centres + offsets * pixel, roots, found)


def _whiteness(image: np.ndarray) -> np.ndarray:
    """(H, W) float32 of an RGB image (H, W, 3): blue, reduced where red exceeds it."""
    red, blue = image[..., 0].astype(np.float32), image[..., 2].astype(np.float32)
    return np.maximum(blue - _REDNESS * np.maximum(red - blue, 0), 0)


def _usual_difference(scores: list[np.ndarray]) -> np.ndarray:
    """(2,) steps (x, y): the median difference of the right eye's displacement from the left's, over scores (2, S, S).

    The errors of the detector's landmarks displace the two eyes in the same way in all frames.
    """
    steps = []
    for pair in scores:
        if pair.any((1, 2)).all():
            left, right = (np.array(np.unravel_index(one.argmax(), one.shape)) for one in pair)
            steps.append((right - left)[::-1])
    # From few frames it would be accidental, and each eye would merely confirm the other.
    return np.median(steps, axis=0) if len(steps) >= _SAMPLED_FRAMES // 4 else np.zeros(2)


def _shifted(scores: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The other eye's scores (S, S), shifted to this eye's displacements, with a tolerance of _EYE_DIFFERENCE steps."""
    near = cv2.dilate(scores, np.ones((_EYE_DIFFERENCE, _EYE_DIFFERENCE)))
    move = np.array(((1.0, 0, shift[0]), (0, 1.0, shift[1])))
    return cv2.warpAffine(near, move, near.shape, borderMode=cv2.BORDER_REPLICATE)


def _best_radius(maps: np.ndarray) -> float:
    """The radius with the largest scores, from the operator (N, R, 2, S, S) for `_RADII`, interpolated by a
    parabola.
    """
    totals = maps.max((3, 4)).sum((0, 2))
    best = int(totals.argmax())
    if not 0 < best < len(_RADII) - 1:
        return 1.0
    low, middle, high = totals[best - 1 : best + 2]
    return float(_RADII[best] + (_RADII[1] - _RADII[0]) * 0.5 * (low - high) / min(low - 2 * middle + high, -1e-9))


def _posterior(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (2,) and covariance (2, 2) of the displacement, in pixels at 512, from scores (S, S)."""
    steps = _STEP * np.arange(-_STEPS, _STEPS + 1)
    scores = scores - 0.5 * (steps[:, None] ** 2 + steps**2) / _PREDICTION_SIGMA**2
    share = np.exp(scores - scores.max())
    share /= share.sum()
    across, down = share.sum(0), share.sum(1)
    mean = np.array((across @ steps, down @ steps))
    mixed = (steps - mean[1]) @ share @ (steps - mean[0])
    return mean, np.array(((across @ (steps - mean[0]) ** 2, mixed), (mixed, down @ (steps - mean[1]) ** 2)))


def _operator(
    image: np.ndarray, outline: np.ndarray, centre: np.ndarray, axes: np.ndarray, radii: np.ndarray, pixel: float
) -> np.ndarray:
    """(R, S, S): the operator's sums over the free arc, for radii (R,) and displacements (y, x).

    `outline` (16, 2) are the eyelids; `centre` (2,) and `axes` (2, 2) describe the predicted ellipse; all in pixels.
    The result is zero where the eye is too small or too near the border of the image.
    """
    scores = np.zeros((len(radii), 2 * _STEPS + 1, 2 * _STEPS + 1))
    size = np.linalg.norm(axes, axis=1).max()
    half = int(np.ceil(size * radii.max() + (_STEP * _STEPS + 3) * pixel))
    left, top = np.floor(centre).astype(int) - half
    width = 2 * half + 1
    if size < _MIN_RADIUS or left < 0 or top < 0 or left + width > image.shape[1] or top + width > image.shape[0]:
        return scores
    blurred = cv2.GaussianBlur(_whiteness(image[top : top + width, left : left + width]), (0, 0), _BLUR * pixel)
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
    # The slope, per pixel, of a blurred step as high as the eye's contrast.
    full = max(_FULL_EDGE * (bright - dark) / ((2 * _BLUR + 1) * pixel), 1.0)
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
            _MIN_EDGE,
            coarse,
        )
        # The image is blurred, so the sums are smooth enough to be interpolated from every second displacement.
        cv2.warpAffine(
            coarse,
            _HALF_SCALE,
            scores.shape[1:],
            scores[index],
            cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            cv2.BORDER_REPLICATE,
        )
    return scores


@kernel(fast=True)
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
