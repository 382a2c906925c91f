"""What one frame shows of the face: how large, bright and sharp it is, where it looks, and what lies outside the
picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

import cv2
import numpy as np

from .detector import Face
from .picture_area import Area

CUT_OFF_TOLERANCE: Final = 0.01
"""Share of the face's extent by which a landmark may lie outside the picture before the face counts as cut off."""
_SHARPNESS_WIDTH: Final = 160
"""Pixels to which a face is scaled before its blur is measured, so that blur is a share of the face's width."""
_BLUR_LENGTH: Final = 9
"""Pixels over which the image is blurred once more, as in the paper."""
_HAIR_MATTE: Final = 128
_HAIR_SHARE: Final = 0.25
"""Share of the face's width along which the person reaches the upper edge of the picture when hair is cut off."""


class Outside(IntFlag):
    """Parts of the head that lie outside the picture."""

    NOTHING = 0
    CHIN = 1
    FOREHEAD = 2
    SIDE = 4
    HAIR = 8


@dataclass(frozen=True)
class FaceView:
    width: float
    """Pixels of the source from one side of the face to the other."""
    yaw: float
    """Degrees, positive where the person looks to their own left."""
    blur: float
    """0 (sharp) to 1 (Crété-Roffet et al., "The Blur Effect", 2007), relative to the face's width."""
    light: float
    """The face's median grey, 0 to 255."""
    outside: Outside

    @property
    def cuts_face(self) -> bool:
        """Whether a part of the face itself lies outside the picture."""
        return bool(self.outside & ~Outside.HAIR)


def view_of(
    face: Face, square: np.ndarray, matte: np.ndarray, crop: tuple[float, float, float], area: Area
) -> FaceView:
    """`face` is found in `square` (S, S, 3) uint8 RGB, the crop of the source image, whose `matte` is (S, S) uint8."""
    scale = len(square) / crop[2]
    points = face.landmarks[:, :2] / scale + crop[:2] - area.corner
    tolerance = CUT_OFF_TOLERANCE * face.extent / scale
    beyond = np.maximum(-points, points - area.size) > tolerance
    outside = Outside.NOTHING
    if beyond[:, 1].any():
        lower = points[:, 1] - area.height > tolerance
        outside |= Outside.CHIN if lower.any() else Outside.NOTHING
        outside |= Outside.FOREHEAD if (beyond[:, 1] & ~lower).any() else Outside.NOTHING
    if beyond[:, 0].any():
        outside |= Outside.SIDE
    if _hair_is_cut(face, matte, (area.top - crop[1]) * scale):
        outside |= Outside.HAIR
    forward, grey = face.pose[:3, 2], _grey_face(square, face)
    return FaceView(
        width=float(face.box[2] - face.box[0]) / scale,
        yaw=float(np.degrees(np.arctan2(forward[0], forward[2]))),
        blur=_blur_of(grey),
        light=float(np.median(grey)) if grey.size else 0.0,
        outside=outside,
    )


def _hair_is_cut(face: Face, matte: np.ndarray, top: float) -> bool:
    """Whether the person reaches the upper edge of the picture above the face. `top` is the edge's row in the matte;
    negative if the crop begins below it.
    """
    if top < -0.5:
        return False
    row = min(int(np.ceil(max(top, 0.0))) + 1, len(matte) - 1)
    left, right = (int(v) for v in face.box[[0, 2]].clip(0, matte.shape[1] - 1))
    above = matte[row, left : right + 1]
    return bool((above > _HAIR_MATTE).mean() >= _HAIR_SHARE)


def _grey_face(square: np.ndarray, face: Face) -> np.ndarray:
    """(H, W) uint8: the part of the image with the face, empty for a face of less than 8 pixels."""
    x0, y0, x1, y1 = face.box.clip(0, len(square)).round().astype(int)
    if x1 - x0 < 8 or y1 - y0 < 8:
        return np.empty((0, 0), np.uint8)
    return cv2.cvtColor(square[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY)


def _blur_of(grey: np.ndarray) -> float:
    if not grey.size:
        return 1.0
    scale = _SHARPNESS_WIDTH / grey.shape[1]
    part = cv2.resize(
        grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    ).astype(np.float32)
    blurs = []
    for axis in (0, 1):
        length = (1, _BLUR_LENGTH) if axis == 0 else (_BLUR_LENGTH, 1)
        change, blurred = (np.abs(np.diff(image, axis=axis)) for image in (part, cv2.blur(part, length)))
        lost = np.maximum(0, change - blurred).sum()
        blurs.append(1 - lost / max(float(change.sum()), 1e-6))
    return float(max(blurs))
