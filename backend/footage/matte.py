"""The person's matte: the opacity of the person at each pixel, with soft edges.

MediaPipe's selfie segmentation works on 256 x 256 pixels and gives hair as soft blocks. Two inexpensive steps improve
it. Regions of low confidence inside the person (earrings, a shadow in the hair) are filled. A guided filter (He, Sun
and Tang, "Guided Image Filtering", 2010) with the colour image as its guide then aligns the matte's edge with the
image's edge, down to strands of hair. In the filter's fast form (He and Sun 2015) the linear model is fitted at 256 x
256 pixels and applied at full size.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..assets import asset_bytes
from .detector import quiet_stderr

_NETWORK_SIDE = 256
_RADIUS = 4
"""Radius of the guided filter's window, pixels of the 256 x 256 image."""
_EPSILON = 5e-4
"""Guided filter: colour variance (of values in [0, 1]) below which a window counts as flat."""
_SURE_PERSON, _SURE_BACKGROUND = 0.95, 0.05
_CLAMP = 0.12
"""Matte values within this distance of 0 or 1 become 0 or 1: the linear model leaves faint values on flat areas and
along hard edges."""


class MattingModel:
    """Selfie segmentation with edge refinement. One instance per thread; `matte` releases the interpreter lock while
    the network runs.
    """

    def __init__(self) -> None:
        with quiet_stderr():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._image_type, self._format = mediapipe.Image, mediapipe.ImageFormat.SRGB
            self._segmenter = vision.ImageSegmenter.create_from_options(
                vision.ImageSegmenterOptions(
                    base_options=BaseOptions(model_asset_buffer=asset_bytes("models/selfie_segmentation.tflite")),
                    output_confidence_masks=True,
                    output_category_mask=False,
                )
            )
            self.confidence(np.zeros((_NETWORK_SIDE, _NETWORK_SIDE, 3), np.uint8))

    def confidence(self, image: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1]: the network's confidence that a pixel of this RGB image belongs to a person."""
        found = self._segmenter.segment(self._image_type(image_format=self._format, data=np.ascontiguousarray(image)))
        return np.array(found.confidence_masks[0].numpy_view()).reshape(image.shape[:2])

    def matte(self, image: np.ndarray) -> np.ndarray:
        """(S, S) uint8 for a (S, S, 3) uint8 RGB image: 255 = the person."""
        small = cv2.resize(image, (_NETWORK_SIDE, _NETWORK_SIDE), interpolation=cv2.INTER_AREA)
        refined = guided_filter(small, fill_uncertain(self.confidence(small)), image)
        stretch = 255 / (1 - 2 * _CLAMP)
        # The values must not fall below 0, since the conversion takes the absolute value; above 255 it saturates.
        return cv2.convertScaleAbs(
            np.maximum(refined, np.float32(_CLAMP), out=refined), alpha=stretch, beta=-stretch * _CLAMP
        )

    def close(self) -> None:
        self._segmenter.close()


def fill_uncertain(confidence: np.ndarray) -> np.ndarray:
    """Fill holes of an (H, W) confidence map that hold no certain background, and keep only the largest component.

    A real gap, for example between hair and neck, contains pixels that the network classifies as background with high
    confidence.
    """
    filled = confidence.copy()
    count, labels = cv2.connectedComponents((confidence < _SURE_PERSON).astype(np.uint8), connectivity=4)
    holes = np.ones(count, bool)
    holes[0] = False
    holes[labels[confidence <= _SURE_BACKGROUND]] = False  # pyright: ignore[reportArgumentType, reportCallIssue]  (int32)
    if holes.any():
        filled[holes.take(labels)] = 1.0  # pyright: ignore[reportArgumentType, reportCallIssue]  (int32)

    maybe_person = (filled > _SURE_BACKGROUND).astype(np.uint8)
    count, labels = cv2.connectedComponents(maybe_person, connectivity=8)
    if count > 2:
        person = 1 + int(np.bincount(labels.reshape(-1))[1:].argmax())
        filled[(labels != person) & (labels != 0)] = 0.0
    return filled


def guided_filter(small: np.ndarray, matte: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Fast guided filter with a colour guide (He and Sun 2015; the model is eq. 14-15 of He, Sun and Tang 2010).

    `small` is (h, w, 3) uint8, `matte` (h, w) float32 on the same pixels, `image` (H, W, 3) uint8 the same image at
    full size. In each window the matte is modelled as a . colour + b; returns (H, W) float32 from the averaged a and b.
    """

    def mean(values: np.ndarray, scale: float = 1.0) -> np.ndarray:
        # Box sums of 8- or 16-bit integers are exact, and faster than those of floats.
        side = 2 * _RADIUS + 1
        averaged = cv2.boxFilter(values, cv2.CV_32F, (side, side), borderType=cv2.BORDER_REFLECT)
        return np.multiply(averaged, np.float32(scale), out=averaged)

    guide = cv2.split(small)
    r, g, b = (mean(plane, 1 / 255) for plane in guide)
    matte_mean = mean(matte)

    def covariance(i: int, j: int) -> np.ndarray:
        product = mean(np.multiply(guide[i], guide[j], dtype=np.uint16), 1 / 255**2)
        product -= (r, g, b)[i] * (r, g, b)[j]
        return product + np.float32(_EPSILON) if i == j else product

    # Gaussian elimination of the symmetric 3 x 3 systems, for all windows at once.
    rr, rg, rb = covariance(0, 0), covariance(0, 1), covariance(0, 2)
    g_of_r, b_of_r = rg / rr, rb / rr
    gg, gb = covariance(1, 1) - g_of_r * rg, covariance(1, 2) - g_of_r * rb
    b_of_g = gb / gg
    bb = covariance(2, 2) - b_of_r * rb - b_of_g * gb
    m_r, m_g, m_b = (
        mean(plane * matte, 1 / 255) - plane_mean * matte_mean
        for plane, plane_mean in zip(guide, (r, g, b), strict=True)
    )
    m_g -= g_of_r * m_r
    slope_b = (m_b - b_of_r * m_r - b_of_g * m_g) / bb
    slope_g = m_g / gg - b_of_g * slope_b
    slope_r = m_r / rr - g_of_r * slope_g - b_of_r * slope_b
    offset = matte_mean - slope_r * r - slope_g * g - slope_b * b

    full_size = image.shape[1], image.shape[0]
    refined = cv2.resize(mean(offset), full_size, interpolation=cv2.INTER_LINEAR)
    for slope, plane in zip((slope_r, slope_g, slope_b), cv2.split(image), strict=True):
        slope = cv2.resize(mean(slope, 1 / 255), full_size, interpolation=cv2.INTER_LINEAR)
        refined += np.multiply(slope, plane, out=slope)
    return refined
