"""Converts decoded frames to display images: upright, with square pixels, in RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

WIDEST_PIXEL = 4
"""Width of a pixel over its height, or the inverse; anamorphic lenses and DV stay below 2. Another value is no shape of
pixels but a damaged or hostile file, and is ignored."""
_EXACT_CHROMA = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class Geometry:
    """The transform from the stored image to the displayed one."""

    width: int
    """Stored width and height, corrected to square pixels (DV and anamorphic clips store narrow or wide pixels)."""
    height: int
    matrix: np.ndarray
    """(2, 2): where the stored x axis (first row) and y axis (second row) point on the screen, y down."""

    @classmethod
    def of(cls, frame: av.VideoFrame, stream: VideoStream) -> Geometry:
        ratio = stream.sample_aspect_ratio
        if not ratio or not 1 / WIDEST_PIXEL <= ratio <= WIDEST_PIXEL:
            ratio = None
        side_data = frame.side_data.get("DISPLAYMATRIX")
        matrix = np.eye(2)
        if side_data is not None and len(bytes(side_data)) == 36:
            # Fixed point, 16.16; the third row and column are translation and perspective, which are not used.
            matrix = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3)[:2, :2] / 65536
        return cls(round(frame.width * ratio) if ratio else frame.width, frame.height, matrix)

    @property
    def is_transposed(self) -> bool:
        matrix = np.abs(self.matrix)
        return bool(matrix[0, 1] + matrix[1, 0] > matrix[0, 0] + matrix[1, 1])

    @property
    def upright_size(self) -> tuple[int, int]:
        return (self.height, self.width) if self.is_transposed else (self.width, self.height)

    def make_upright(self, image: np.ndarray) -> np.ndarray:
        """Rotate and mirror by the display matrix; the angle is rounded to the nearest multiple of 90 degrees."""
        if self.is_transposed:
            image, mirror_x, mirror_y = cv2.transpose(image), self.matrix[1, 0] < 0, self.matrix[0, 1] < 0
        else:
            mirror_x, mirror_y = self.matrix[0, 0] < 0, self.matrix[1, 1] < 0
        if mirror_x or mirror_y:
            image = cv2.flip(image, -1 if mirror_x and mirror_y else int(mirror_x))
        return image


def _colour_matrix(frame: av.VideoFrame) -> Colorspace:
    known = {int(space) for space in Colorspace}
    if int(frame.colorspace) in known:
        return Colorspace(int(frame.colorspace))
    if int(frame.colorspace) == 6:  # SMPTE 170M: the same figures as BT.601, but not a member of PyAV's enum
        return Colorspace.ITU601
    # For untagged footage players use BT.709 from 720 lines up and BT.601 below.
    return Colorspace.ITU709 if frame.height >= 720 or frame.width >= 1280 else Colorspace.ITU601


def to_rgb(
    frame: av.VideoFrame,
    geometry: Geometry,
    longest_side: int | None,
    reformatter: VideoReformatter,
) -> np.ndarray:
    """(H, W, 3) uint8 upright RGB.

    FFmpeg converts to separate planes of red, green and blue, which OpenCV merges. The values equal those of FFmpeg's
    `rgb24` and take half the time.
    """
    width, height = geometry.width, geometry.height
    shrink = min(1.0, longest_side / max(width, height)) if longest_side else 1.0
    full_range = int(frame.color_range) == int(ColorRange.JPEG) or frame.format.name.startswith("yuvj")
    converted = reformatter.reformat(
        frame,
        width=max(1, math.floor(width * shrink)),
        height=max(1, math.floor(height * shrink)),
        format="gbrp",
        src_colorspace=_colour_matrix(frame),
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG if full_range or frame.format.is_rgb else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=(Interpolation.AREA if shrink < 1 else Interpolation.BICUBIC) | _EXACT_CHROMA,
    )
    green, blue, red = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in converted.planes
    )
    return geometry.make_upright(cv2.merge((red, green, blue)))
