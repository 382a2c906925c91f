"""The person's matte: which pixels are the person, softly at the edge.

MediaPipe's selfie segmentation sees 256 x 256 pixels.
"""

from __future__ import annotations

import numpy as np

from ..assets import asset_path
from .detector import quiet_stderr


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
            self.confidence(np.zeros((64, 64, 3), np.uint8))

    def confidence(self, image: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1]: the network's own belief that a pixel of this RGB picture is a person."""
        found = self._segmenter.segment(self._image_type(image_format=self._format, data=np.ascontiguousarray(image)))
        return np.array(found.confidence_masks[0].numpy_view()).reshape(image.shape[:2])

    def matte(self, image: np.ndarray) -> np.ndarray:
        """(H, W) uint8 for a (H, W, 3) uint8 RGB picture: 255 = the person."""
        return np.clip(np.rint(self.confidence(image) * 255), 0, 255).astype(np.uint8)

    def close(self) -> None:
        self._segmenter.close()
