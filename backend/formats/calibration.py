"""Calibrated cameras: the `transforms.json` that nerfstudio's `ns-process-data` writes from COLMAP, and others like it.

One entry of `frames` for each camera is enough; every entry has

    file_path          names the capture: it, or a folder in it, is called like the capture or its footage
    transform_matrix   4 x 4, camera to world, with OpenGL's camera axes (+X right, +Y up, +Z backwards)
    fl_x fl_y cx cy w h k1 k2 p1 p2      pixels; here or, for all cameras, beside `frames`

(https://docs.nerf.studio/quickstart/data_conventions.html). The unit of length may be any: tracking finds it by the
size of the head. OpenGL's camera axes become OpenCV's here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from ..errors import EffigyError
from ..reading import Damaged, Unlike, read_json, reading, shown
from .capture import Capture

NOUN: Final = "file of cameras"
REMEDY: Final = "write it again, as nerfstudio's transforms.json"
MOST_CAMERAS: Final = 100_000
"""Entries: a camera may have one for each of its images."""
OPENGL_TO_OPENCV: Final = np.diag((1.0, -1.0, -1.0, 1.0))
"""A camera's own axes: Y and Z have the opposite direction."""
MOST_PIXELS: Final = 1e6
"""Of a focal length or a picture's side."""
MOST_NUMBER: Final = 1e9
"""Of a matrix and of distortion: squares of greater ones overflow where cameras are compared."""
MOST_DISTORTION: Final = 0.01
"""Of the crop's side: how far lens distortion may move a point. The tracker has none; this is 5 pixels of 512."""
MOST_DIFFERENCE: Final = 1e-3
"""Between the matrices of one camera's images, relative to the largest number: cameras stand still."""
CUT_ALIKE: Final = (
    "Cut the footage so that frame n of every camera is the same moment (`capture --first-frame`, `--last-frame`)."
)
_PINHOLES: Final = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")


@dataclass(frozen=True)
class CalibratedCamera:
    """A camera that stands still."""

    names: frozenset[str]
    """What its file is called, without suffix, and the folders that it is in; in lower case."""
    world_to_camera: np.ndarray
    """(4, 4) float64, OpenCV axes, in the file's unit of length."""
    intrinsics: np.ndarray
    """(3, 3) pixels of the whole picture, the centre of the top-left pixel at (0.5, 0.5)."""
    size: tuple[float, float]
    """Width and height of the whole picture, pixels."""
    distortion: np.ndarray
    """(4,): k1, k2, p1, p2 of OpenCV's model."""


def load_cameras(path: Path) -> list[CalibratedCamera]:
    """The entries of a file of cameras. Raises an `EffigyError` where it is missing, damaged or of another kind."""
    with reading(path, NOUN, REMEDY):
        content = read_json(path, NOUN, REMEDY)
        if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
            raise Unlike("it has no list of frames")
        entries = content["frames"]
        if not 0 < len(entries) <= MOST_CAMERAS:
            raise Damaged(f"it has {len(entries)} frames")
        return [_camera(entry, content) for entry in entries]


def _camera(entry: Any, common: dict[str, Any]) -> CalibratedCamera:
    if not isinstance(entry, dict) or "file_path" not in entry:
        raise Damaged("a frame has no file_path")
    name = shown(entry["file_path"])
    values = common | entry
    if (model := values.get("camera_model", "OPENCV")) not in _PINHOLES:
        raise EffigyError(
            f"The camera of {name} is of the kind {shown(model)}: undistort the footage and its calibration first."
        )
    try:
        matrix = np.array(entry["transform_matrix"], np.float64).reshape(4, 4)
        width, height = float(values["w"]), float(values["h"])
        focal = float(values["fl_x"])
        numbers = (focal, float(values.get("fl_y", focal)), float(values["cx"]), float(values["cy"]), width, height)
        distortion = np.array([float(values.get(key, 0)) for key in ("k1", "k2", "p1", "p2")])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Damaged(f"the frame {name} lacks numbers: transform_matrix, fl_x, cx, cy, w and h are needed") from error
    possible = np.abs(matrix).max() < MOST_NUMBER and np.abs(distortion).max() < MOST_NUMBER
    if not (possible and min(numbers) > 0 and max(numbers) < MOST_PIXELS and np.isfinite(numbers).all()):
        raise Damaged(f"the frame {name} has numbers that no camera has")
    rotation = matrix[:3, :3]
    apart = max(np.abs(rotation @ rotation.T - np.eye(3)).max(), np.abs(matrix[3] - (0, 0, 0, 1)).max())
    if apart > 1e-2 or np.linalg.det(rotation) < 0:
        raise Damaged(f"the transform_matrix of {name} is no rotation and translation")
    focal_x, focal_y, x, y, _, _ = numbers
    path = PurePosixPath(str(entry["file_path"]).replace("\\", "/"))
    return CalibratedCamera(
        frozenset(part.lower() for part in (path.stem, *path.parts[:-1])),
        np.linalg.inv(matrix @ OPENGL_TO_OPENCV),
        np.array([[focal_x, 0, x], [0, focal_y, y], [0, 0, 1]]),
        (width, height),
        distortion,
    )


def camera_of(cameras: Sequence[CalibratedCamera], capture: Capture, path: Path) -> CalibratedCamera:
    """The camera that filmed a capture, by its name. `path` is the cameras' file, for errors.

    Raises an `EffigyError` where there is none, or it moves, or it does not fit the footage.
    """
    names = {capture.folder.stem.lower(), Path(capture.source_name).stem.lower()}
    found = [camera for camera in cameras if names & camera.names]
    if not found:
        raise EffigyError(
            f"{path} has no camera for {capture.folder}: a file_path in it has to be called "
            f"“{capture.folder.stem}” or “{Path(capture.source_name).stem}”, or lie in a folder of that name."
        )
    first, *others = found
    limit = MOST_DIFFERENCE * np.abs(first.world_to_camera).max()
    if any(np.abs(other.world_to_camera - first.world_to_camera).max() > limit for other in others):
        raise EffigyError(f"In {path} the camera of {capture.folder} moves: cameras have to stand still.")
    return first


def crop_intrinsics(camera: CalibratedCamera, capture: Capture) -> np.ndarray:
    """(3, 3) of a capture's frames. Raises an `EffigyError` where the camera's picture is not the footage's.

    A calibration of the same picture at another resolution fits.
    """
    left, top, side = capture.crop
    # The capture's own principal point is the centre of the upright source.
    width, height = 2 * (capture.intrinsics[:2, 2] * side / capture.size + (left, top))
    scale = width / camera.size[0]
    if abs(height / camera.size[1] / scale - 1) > 0.01:
        raise EffigyError(
            f"The camera of {capture.folder} is calibrated for pictures of {camera.size[0]:g} × {camera.size[1]:g}, "
            f"its footage has {width:.0f} × {height:.0f}: calibrate it with pictures of that shape."
        )
    matrix = camera.intrinsics.copy()
    matrix[:2] *= scale
    if abs(matrix[0, 0] / matrix[1, 1] - 1) > 0.01:
        raise EffigyError(f"The camera of {capture.folder} has pixels that are not square: scale its footage first.")
    corners = np.array([[left, top], [left + side, top], [left, top + side], [left + side, top + side]])
    moved = np.abs(_distorted(camera, corners, matrix) - corners).max()
    if moved > MOST_DISTORTION * side:
        raise EffigyError(
            f"The lens of {capture.folder} distorts its pictures by {moved:.0f} pixels where the head is: undistort "
            "the footage and its calibration first."
        )
    matrix[:2, 2] -= (left, top)
    matrix[:2] *= capture.size / side
    return matrix


def _distorted(camera: CalibratedCamera, pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Where points (N, 2) of an ideal picture are in the real one (OpenCV's model)."""
    x, y = ((pixels - matrix[:2, 2]) / matrix.diagonal()[:2]).T
    k1, k2, p1, p2 = camera.distortion
    squared = x * x + y * y
    radial = 1 + k1 * squared + k2 * squared**2
    moved = np.stack(
        (
            x * radial + 2 * p1 * x * y + p2 * (squared + 2 * x * x),
            y * radial + p1 * (squared + 2 * y * y) + 2 * p2 * x * y,
        ),
        1,
    )
    return moved * matrix.diagonal()[:2] + matrix[:2, 2]


def check_synchronised(captures: Sequence[Capture]) -> None:
    """Raise an `EffigyError` unless frame n of every capture is the same moment, as far as counts and times tell."""
    first, *others = captures
    for other in others:
        if other.frame_count != first.frame_count:
            raise EffigyError(
                f"{other.folder} has {other.frame_count} frames, {first.folder} {first.frame_count}. {CUT_ALIKE}"
            )
        times = [capture.frame_times - capture.frame_times[0] for capture in (first, other)]
        apart = np.abs(times[1] - times[0])
        late = np.flatnonzero(apart > 0.5 / float(first.fps))
        if len(late):
            raise EffigyError(
                f"Frame {late[0]} of {other.folder} is {1000 * apart[late[0]]:.0f} ms apart from that of "
                f"{first.folder}. {CUT_ALIKE}"
            )
