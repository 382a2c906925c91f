"""Whether the face detector sees a picture and its mirror image alike: `python -m bench.detector_symmetry CAPTURE...`.

`assets/derive/landmark_bias.py` takes it for granted that it does. Half the difference between a frame's points and the
mirrored points of the mirrored frame is what a detector without sides would not have; as a turn of the head it is what
the tracker is misled by.
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
"""Points whose distance, on the head and in the picture, gives metres per pixel."""


def asymmetry(capture: Capture, model: HeadModel, detector: FaceDetector) -> tuple[float, float]:
    """Mean over frames: millimetres at which points lie to the side of where they should, and degrees of yaw that
    explain it best.
    """
    places = landmark_basis(model, model.template[..., None])[..., 0]
    known = (model.landmark_faces >= 0) & (np.arange(len(places)) < 468)
    other = mirrored_points(model)
    found = []
    for index in np.linspace(0, capture.frame_count - 1, FRAMES).astype(int):
        image = read_frame(capture, int(index))
        seen, mirrored = detector.detect(image), detector.detect(np.ascontiguousarray(image[:, ::-1]))
        if seen and mirrored:
            points, back = seen[0].landmarks[:, :2], mirrored[0].landmarks[other, :2] * (-1, 1) + (image.shape[1], 0)
            size = np.linalg.norm(points[_FOREHEAD] - points[_CHIN]) / np.linalg.norm(places[_FOREHEAD] - places[_CHIN])
            found.append((points - back)[:, 0] / 2 / size)
    aside, depth = np.mean(found, 0)[known], places[known, 2] - places[known, 2].mean()
    aside -= aside.mean()
    return 1000 * float(np.abs(aside).mean()), float(np.rad2deg(aside @ depth / (depth @ depth)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="+", type=Path)
    model = load_head()
    print("| capture | aside, mm | yaw, degrees |\n|:--|--:|--:|")
    with closing(FaceDetector()) as detector:
        for folder in parser.parse_args().captures:
            aside, yaw = asymmetry(load_capture(folder), model, detector)
            print(f"| {folder.stem} | {aside:.2f} | {yaw:.2f} |")


if __name__ == "__main__":
    main()
