"""The person's matte: which pixels are the person, softly at the edge.

MediaPipe's selfie segmentation sees 256 x 256 pixels and draws hair as soft blocks. Two things mend that cheaply:
what it is merely unsure of in the middle of the person (earrings, a shadow in the hair) is filled, and a guided
filter (He, Sun and Tang, "Guided Image Filtering", 2010) with the colour picture as its guide moves the edge onto the
edge in the picture, down to strands of hair. In its fast form (He and Sun 2015) the linear model is fitted at 256 x
256 and applied at full size.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..assets import asset_path
from .detector import quiet_stderr

_NETWORK_SIDE = 256
_RADIUS = 4
"""Of the guided filter's window, pixels of the 256 x 256 picture."""
_EPSILON = 5e-4
"""Guided filter: colour variance (of values in [0, 1]) below which a window counts as flat."""
_SURE_PERSON, _SURE_BACKGROUND = 0.95, 0.05
_HAZE = 0.12
"""A matte within this of 0 or 1 is 0 or 1: the linear model leaves a veil on flat areas and a rim on firm edges."""


class Matter:
    """One instance per thread; `matte` releases the interpreter lock while the network runs."""

    def __init__(self) -> None:
        with quiet_stderr():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._image_type, self._format = mediapipe.Image, mediapipe.ImageFormat.SRGB
            self._segmenter = vision.ImageSegmenter.create_from_options(vision.ImageSegmenterOptions(
                base_options=BaseOptions(model_asset_path=str(asset_path("models/selfie_segmentation.tflite"))),
                output_confidence_masks=True,
                output_category_mask=False,
            ))
            self.confidence(np.zeros((_NETWORK_SIDE, _NETWORK_SIDE, 3), np.uint8))

    def confidence(self, image: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1]: the network's own belief that a pixel of this RGB picture is a person."""
        found = self._segmenter.segment(self._image_type(image_format=self._format, data=np.ascontiguousarray(image)))
        return np.array(found.confidence_masks[0].numpy_view()).reshape(image.shape[:2])

    def matte(self, image: np.ndarray) -> np.ndarray:
        """(S, S) uint8 for a (S, S, 3) uint8 RGB picture: 255 = the person."""
        small = cv2.resize(image, (_NETWORK_SIDE, _NETWORK_SIDE), interpolation=cv2.INTER_AREA)
        refined = guided_filter(small, fill_unsure(self.confidence(small)), image)
        return cv2.convertScaleAbs((np.clip(refined, _HAZE, 1 - _HAZE) - _HAZE) * (255 / (1 - 2 * _HAZE)))

    def close(self) -> None:
        self._segmenter.close()


def fill_unsure(confidence: np.ndarray) -> np.ndarray:
    """Fill the holes of an (H, W) confidence map that are nowhere surely background, and drop islands outside it.

    A gap through which the background really shows, between hair and neck, holds pixels that the network is sure of.
    """
    filled = confidence.copy()
    count, labels = cv2.connectedComponents((confidence < _SURE_PERSON).astype(np.uint8), connectivity=4)
    holes = np.ones(count, bool)
    holes[0] = False
    holes[labels[confidence <= _SURE_BACKGROUND]] = False
    filled[holes[labels]] = 1.0

    maybe_person = (filled > _SURE_BACKGROUND).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(maybe_person, connectivity=8)
    if count > 2:
        person = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        filled[(labels != person) & (labels != 0)] = 0.0
    return filled


def guided_filter(small: np.ndarray, matte: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Fast guided filter with a colour guide (He and Sun 2015; the model is eq. 14-15 of He, Sun and Tang 2010).

    `small` is (h, w, 3) uint8, `matte` (h, w) float32 on the same pixels, `image` (H, W, 3) uint8 the same picture in
    full. In each window the matte is modelled as a . colour + b; returns (H, W) float32 from the averaged a and b.
    """
    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * _RADIUS + 1, 2 * _RADIUS + 1), borderType=cv2.BORDER_REFLECT)

    guide = [plane.astype(np.float32) / 255 for plane in cv2.split(small)]
    means = [mean(plane) for plane in guide]
    matte_mean = mean(matte)
    with_matte = [mean(plane * matte) - plane_mean * matte_mean for plane, plane_mean in zip(guide, means, strict=True)]
    covariance = {
        (i, j): mean(guide[i] * guide[j]) - means[i] * means[j] + (_EPSILON if i == j else 0.0)
        for i in range(3) for j in range(i, 3)
    }
    rr, rg, rb, gg, gb, bb = (covariance[pair] for pair in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    # The symmetric 3 x 3 covariance is inverted by its cofactors, for all windows at once.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    scale = 1 / (rr * c_rr + rg * c_rg + rb * c_rb)
    m_r, m_g, m_b = with_matte
    slopes = [
        (c_rr * m_r + c_rg * m_g + c_rb * m_b) * scale,
        (c_rg * m_r + c_gg * m_g + c_gb * m_b) * scale,
        (c_rb * m_r + c_gb * m_g + c_bb * m_b) * scale,
    ]
    offset = matte_mean - sum(slope * plane_mean for slope, plane_mean in zip(slopes, means, strict=True))

    full_size = image.shape[1], image.shape[0]
    refined = cv2.resize(mean(offset), full_size, interpolation=cv2.INTER_LINEAR)
    for slope, plane in zip(slopes, cv2.split(image), strict=True):
        slope = cv2.resize(mean(slope), full_size, interpolation=cv2.INTER_LINEAR)
        refined += cv2.multiply(slope, plane, scale=1 / 255, dtype=cv2.CV_32F)
    return refined
