"""The face detector: 478 landmarks, 52 blendshape scores and a head pose for each face in an image.

MediaPipe's face landmarker runs in image mode. Its video mode smooths landmarks over time, which makes them lag up to
13 px behind a fast head at 512 px. The tracker smooths instead, with both earlier and later frames.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..assets import asset_bytes
from ..head.model import LANDMARK_COUNT

SCORE_NAMES = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)
"""The 52 ARKit names: the detector's order without its `_neutral`, then `tongueOut`, which it does not detect (always
0)."""

FOREHEAD, CHIN = 10, 152
"""Landmarks at the hairline and at the tip of the chin."""
_MAX_FACES = 2
"""Two are enough to notice a second person in the image."""


@dataclass(frozen=True)
class Face:
    landmarks: np.ndarray
    """(478, 3) float32: x, y in pixels of the image (centre of the top-left pixel at 0.5), z on the same scale."""
    scores: np.ndarray
    """(52,) float32 in the order of SCORE_NAMES."""
    pose: np.ndarray
    """(4, 4) float32: transform from the canonical face to an OpenGL camera, centimetres."""

    @cached_property
    def box(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1 around the landmarks, pixels."""
        points = self.landmarks[:, :2]
        return np.concatenate([points.min(0), points.max(0)])

    @property
    def centre(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def extent(self) -> float:
        """The longer side of the box: nearly equal in frontal and in profile views. Pixels."""
        return float((self.box[2:] - self.box[:2]).max())

    @property
    def roll(self) -> float:
        """Degrees in [-180, 180] by which the forehead lies to the right of the chin: 0 for an upright head, 90 for one
        that was turned clockwise.
        """
        x, y = self.landmarks[FOREHEAD, :2] - self.landmarks[CHIN, :2]
        return float(np.degrees(np.arctan2(x, -y)))


class FaceDetector:
    """One instance per thread; `detect` releases the interpreter lock."""

    def __init__(self) -> None:
        with quiet_stderr():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._image_type, self._format = mediapipe.Image, mediapipe.ImageFormat.SRGB
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_buffer=asset_bytes("models/face_landmarker.task")),
                    num_faces=_MAX_FACES,
                    output_face_blendshapes=True,
                    output_facial_transformation_matrixes=True,
                )
            )
            # The model's last log lines come with its first inference.
            self.detect(np.zeros((64, 64, 3), np.uint8))

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces in a (H, W, 3) uint8 RGB image, the largest first."""
        height, width = image.shape[:2]
        found = self._landmarker.detect(self._image_type(image_format=self._format, data=np.ascontiguousarray(image)))
        faces = []
        for points, categories, pose in zip(
            found.face_landmarks,
            found.face_blendshapes,
            found.facial_transformation_matrixes,
            strict=True,
        ):
            landmarks = np.array([(p.x * width, p.y * height, p.z * width) for p in points], np.float32)
            by_name = {category.category_name: category.score for category in categories}
            scores = np.array([by_name.get(name, 0.0) for name in SCORE_NAMES], np.float32)
            faces.append(Face(landmarks.reshape(LANDMARK_COUNT, 3), scores, np.asarray(pose, np.float32)))
        return sorted(faces, key=lambda face: -face.extent)

    def close(self) -> None:
        self._landmarker.close()


class FaceScore:
    """How sure the detector's first stage is that an image shows an upright face. The landmarker itself keeps that to
    itself, and takes some upside-down faces for upright ones.
    """

    def __init__(self) -> None:
        with quiet_stderr():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._image_type, self._format = mediapipe.Image, mediapipe.ImageFormat.SRGB
            with zipfile.ZipFile(io.BytesIO(asset_bytes("models/face_landmarker.task"))) as bundle:
                model = bundle.read("face_detector.tflite")
            self._detector = vision.FaceDetector.create_from_options(
                vision.FaceDetectorOptions(
                    base_options=BaseOptions(model_asset_buffer=model), min_detection_confidence=0.1
                )
            )

    def of(self, image: np.ndarray) -> float:
        """0 to 1 for a (H, W, 3) uint8 RGB image; 0 if nothing in it looks like a face."""
        # This model logs for every size of an image.
        with quiet_stderr():
            found = self._detector.detect(self._image_type(image_format=self._format, data=np.ascontiguousarray(image)))
        return max((float(face.categories[0].score or 0) for face in found.detections), default=0.0)

    def close(self) -> None:
        # And when it ends.
        with quiet_stderr():
            self._detector.close()


_stderr_lock = threading.Lock()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Suppress the log lines that MediaPipe's C++ code writes to file descriptor 2 while a model loads.

    MediaPipe has no setting for this (absl logs before it is initialised, TensorFlow Lite logs on its own), and the
    command line promises one line on stderr. Only loading is wrapped; messages during inference are not hidden.
    """
    with _stderr_lock:
        try:
            sys.stderr.flush()
            saved = os.dup(2)
        except (OSError, AttributeError, ValueError):
            # A program without a console has no stderr to keep clean.
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
