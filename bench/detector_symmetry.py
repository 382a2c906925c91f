"""Left-right asymmetry of the face detector: `python -m bench.detector_symmetry CAPTURE...`.

`assets/derive/landmark_bias.py` assumes that the detector is symmetric. The asymmetric part of its error is half the
difference between a frame's landmarks and the mirrored landmarks of the mirrored frame. It is reported in millimetres,
and as the yaw of the head that explains it best, which is the error that it causes in tracking.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

import numpy as np

from assets.derive.landmark_bias import landmark_basis, mirrored_points
from backend.footage.detector import FaceDetector
from backend.formats.capture import Capture, load_capture, read_frame
from backend.head.formats import load_head
from backend.head.model import HeadModel

FRAMES = 30
_FOREHEAD, _CHIN = 10, 152
"""Landmarks whose distances on the head and in the image give metres per pixel."""


def asymmetry(capture: Capture, model: HeadModel, detector: FaceDetector) -> tuple[float, float]:
    """The mean sideways error of the landmarks in millimetres and the yaw in degrees that explains it best.

    Errors are averaged over FRAMES frames of the clip before their absolute values are taken.
    """
    positions = landmark_basis(model, model.template[..., None])[..., 0]
    known = (model.landmark_faces >= 0) & (np.arange(len(positions)) < 468)
    other = mirrored_points(model)
    errors = []
    for index in np.linspace(0, capture.frame_count - 1, FRAMES).astype(int):
        image = read_frame(capture, int(index))
        faces, mirrored = detector.detect(image), detector.detect(np.ascontiguousarray(image[:, ::-1]))
        if faces and mirrored:
            points, mirrored_back = (
                faces[0].landmarks[:, :2],
                mirrored[0].landmarks[other, :2] * (-1, 1) + (image.shape[1], 0),
            )
            size = np.linalg.norm(points[_FOREHEAD] - points[_CHIN]) / np.linalg.norm(
                positions[_FOREHEAD] - positions[_CHIN]
            )
            errors.append((points - mirrored_back)[:, 0] / 2 / size)
    sideways, depth = np.mean(errors, 0)[known], positions[known, 2] - positions[known, 2].mean()
    sideways -= sideways.mean()
    return 1000 * float(np.abs(sideways).mean()), float(np.rad2deg(sideways @ depth / (depth @ depth)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="+", type=Path)
    model = load_head()
    print("| capture | sideways, mm | yaw, degrees |\n|:--|--:|--:|")
    with closing(FaceDetector()) as detector:
        for folder in parser.parse_args().captures:
            sideways, yaw = asymmetry(load_capture(folder), model, detector)
            print(f"| {folder.stem} | {sideways:.2f} | {yaw:.2f} |")


if __name__ == "__main__":
    main()
