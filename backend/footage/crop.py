"""Search of the person's head in a clip, and one square crop for the whole clip.

There is one crop for all frames, because a crop that follows the face would turn head motion and detector noise into
background motion, and one camera could no longer describe all frames.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from .detector import Face, FaceDetector

SEARCH_SIDE = 960
"""Longest side of the frames that are searched, pixels. With tiles, faces from 6 % of the image width are found."""
RELEVANT_SIZE = 0.4
"""A second face smaller than this share of the first is ignored: it is a bystander or a poster."""

# Margins from the landmark box (hairline to chin) to the head box, in units of the landmark box's longer side: hair
# above, neck and the upper shoulders below, ears and hair at the sides. The side margins also cover the back of the
# head when the head rotates.
_ABOVE, _BELOW, _BESIDE = 0.55, 0.45, 0.5

_LANDMARK_FACE_HEIGHT = 0.18
"""Metres from hairline to chin in the detector's canonical face."""
_PRIOR_FIELD_OF_VIEW = np.deg2rad(50.0)
_MIN_CAMERA_DISTANCE = 0.7
"""Metres: the least plausible camera distance. A smaller one means that the footage was cropped from a wider image."""


@dataclass(frozen=True)
class Sighting:
    """The person's face in one searched frame, in pixels of the upright source image."""

    number: int
    box: np.ndarray
    """(4,) x0, y0, x1, y1 of the landmarks."""
    several: bool
    """Whether another person's face of relevant size is in the image."""
    roll: float = 0.0
    """Degrees, see `Face.roll`."""

    @property
    def centre(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def extent(self) -> float:
        return float((self.box[2:] - self.box[:2]).max())

    @property
    def head_box(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1 of the head with hair, neck and the upper shoulders."""
        return self.box + self.extent * np.array([-_BESIDE, -_ABOVE, _BESIDE, _BELOW])


def choose_face(faces: list[Face], expected: np.ndarray | None) -> tuple[Face, bool]:
    """The person among `faces` (not empty), and whether there is a second face of relevant size.

    The person is the largest face, unless another is nearer to the `expected` centre (2,) by more than it is smaller.
    """
    if expected is None:
        person = faces[0]
    else:
        person = max(faces, key=lambda face: face.extent - np.linalg.norm(face.centre - expected))
    several = any(other is not person and other.extent >= RELEVANT_SIZE * person.extent for other in faces)
    return person, several


class HeadSearch:
    """Finds the person's face, of any size in the image, in a sequence of frames."""

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self._last: Sighting | None = None

    def find(self, number: int, image: np.ndarray, scale: float, faces: list[Face]) -> Sighting | None:
        """The person in one frame, or None.

        `image` (H, W, 3) uint8 is the upright source image scaled by `scale`. `faces` are the detector's results for
        the whole image; if there are none, parts of the image are searched.
        """
        faces = faces or self._search_parts(image, scale)
        if not faces:
            return None
        expected = self._last.centre * scale if self._last else None
        person, several = choose_face(faces, expected)
        self._last = Sighting(number, person.box / scale, several, person.roll)
        return self._last

    def _search_parts(self, image: np.ndarray, scale: float) -> list[Face]:
        """Run the detector around the last known position, or on overlapping tiles if there is none.

        The detector scales its input to 128 x 128 pixels, which is too coarse for a small face in the whole image.
        """
        height, width = image.shape[:2]
        regions = []
        if self._last:
            x, y = self._last.centre * scale
            reach = 1.5 * self._last.extent * scale
            regions.append((x - reach, y - reach, x + reach, y + reach))
        else:
            side = 0.6 * max(width, height)
            regions += [
                (x, y, x + side, y + side) for y in _tile_starts(height, side) for x in _tile_starts(width, side)
            ]
        for x0, y0, x1, y1 in regions:
            left, top = max(0, round(x0)), max(0, round(y0))
            part = image[top : max(top + 1, round(y1)), left : max(left + 1, round(x1))]
            if min(part.shape[:2]) < 16:
                continue
            faces = self._detector.detect(part)
            if faces:
                shift = np.array([left, top, 0], np.float32)
                return [Face(face.landmarks + shift, face.scores, face.pose) for face in faces]
        return []


def _tile_starts(length: float, side: float) -> list[float]:
    return [0.0, length - side] if length > side else [0.0]


def stable_crop(sightings: list[Sighting], source_width: int, source_height: int) -> tuple[float, float, float]:
    """The square that covers the head in every sighting: x and y of its top-left corner and its side, whole source
    pixels.

    Head boxes are clipped to the source image, so the square extends beyond the image only where its shape requires it.
    A sighting that overlaps neither its predecessor nor its successor is a false detection and is left out.
    """
    boxes = np.array([s.head_box for s in sightings])
    if len(boxes) >= 3:
        touches = np.array([_overlap(a, b) for a, b in itertools.pairwise(boxes)])
        supported = np.append(touches, False) | np.append(False, touches)
        boxes = boxes[supported] if supported.any() else boxes
    source = np.array([source_width, source_height], np.float64)
    low = np.clip(boxes[:, :2].min(0), 0, source)
    high = np.clip(boxes[:, 2:].max(0), 0, source)
    side = max(2, round((high - low).max()))
    corner = (low + high - side) / 2
    room = source - side
    # Along each axis, move the square inside the image if it fits; otherwise centre it on the image.
    corner = np.where(room >= 0, np.clip(corner, 0, np.maximum(room, 0)), room / 2).round()
    return float(corner[0]), float(corner[1]), float(side)


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a[:2] < b[2:]).all() and (b[:2] < a[2:]).all())


def cut_square(image: np.ndarray, crop: tuple[float, float, float], size: int) -> np.ndarray:
    """The crop of an image (H, W, 3), resized to (size, size, 3). Beyond the image its border pixels are repeated."""
    height, width = image.shape[:2]
    x, y, side = (int(v) for v in crop)
    part = image[max(0, y) : max(0, min(height, y + side)), max(0, x) : max(0, min(width, x + side))]
    margins = max(0, -y), max(0, y + side - height), max(0, -x), max(0, x + side - width)
    if any(margins):
        part = cv2.copyMakeBorder(part, *margins, cv2.BORDER_REPLICATE)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


def image_mask(crop: tuple[float, float, float], size: int, source_width: int, source_height: int) -> np.ndarray:
    """(size, size) bool: the pixels of the crop whose centre lies inside the source image."""
    centres = (np.arange(size) + 0.5) * crop[2] / size
    inside_x = (centres + crop[0] > 0) & (centres + crop[0] < source_width)
    inside_y = (centres + crop[1] > 0) & (centres + crop[1] < source_height)
    return inside_y[:, None] & inside_x[None, :]


def guess_intrinsics(
    crop: tuple[float, float, float],
    size: int,
    source_width: int,
    source_height: int,
    face_extent: float,
) -> np.ndarray:
    """(3, 3) K in crop pixels, guessed from the image size and the face's extent alone.

    The focal length gives a field of view of 50 degrees across the shorter side of the source, a phone's main camera
    (26 mm equivalent) or a webcam. If that would put the face (`face_extent` source pixels from hairline to chin)
    nearer than 0.7 m, the footage was cropped from a wider image, and the focal length that puts the face at 0.7 m is
    used. The principal point is the centre of the source image.
    """
    by_view = min(source_width, source_height) / 2 / np.tan(_PRIOR_FIELD_OF_VIEW / 2)
    by_distance = face_extent * _MIN_CAMERA_DISTANCE / _LANDMARK_FACE_HEIGHT
    scale = size / crop[2]
    focal = max(by_view, by_distance) * scale
    return np.array(
        [
            [focal, 0, (source_width / 2 - crop[0]) * scale],
            [0, focal, (source_height / 2 - crop[1]) * scale],
            [0, 0, 1],
        ]
    )
