"""Converts between head space and Blender space. No other module does.

Head space, in which the worker gives and takes all cameras and poses, is in metres, +Y up, +Z out of the face, +X to
the person's left. Blender is +Z up; a character faces -Y and has her left at +X. So the point (x, y, z) of head space
is (x, -z, y) in Blender. Both systems are right-handed: the conversion is one rotation, and angles keep their sign.

An OpenCV camera looks along +Z with +Y downwards, a Blender camera along -Z with +Y upwards.
"""

from __future__ import annotations

from typing import Final

import numpy as np

HEAD_TO_BLENDER: Final = np.array(((1, 0, 0, 0), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)), np.float64)
BLENDER_TO_HEAD: Final = HEAD_TO_BLENDER.T.copy()
OPENCV_AXES: Final = np.diag((1.0, -1.0, -1.0, 1.0))
"""Converts the axes of an OpenCV camera to those of a Blender camera, and back."""

UPWARDS: Final = np.eye(3)
FORWARDS: Final = np.array(((1, 0, 0), (0, 0, -1), (0, 1, 0)), np.float64)
BONE_AXES: Final = {"root": UPWARDS, "neck": UPWARDS, "jaw": FORWARDS, "eye_L": FORWARDS, "eye_R": FORWARDS}
"""Columns: the x, y and z axes of each joint's bone at rest, in head space. A bone points along its y axis: root and
neck upwards, jaw and eyes out of the face. The x axis of every bone is that of head space, so a positive rotation about
it nods the head, opens the mouth or turns an eye down."""


def points_to_blender(points: np.ndarray) -> np.ndarray:
    """(..., 3) head space -> (..., 3) Blender space."""
    return np.stack((points[..., 0], -points[..., 2], points[..., 1]), -1)


def points_to_head(points: np.ndarray) -> np.ndarray:
    """(..., 3) Blender space -> (..., 3) head space."""
    return np.stack((points[..., 0], points[..., 2], -points[..., 1]), -1)


def transform_to_head(matrix: np.ndarray) -> np.ndarray:
    """(..., 4, 4) motion in Blender's world axes -> the same motion in head-space axes."""
    return BLENDER_TO_HEAD @ matrix @ HEAD_TO_BLENDER


def world_to_camera(matrix_world: np.ndarray) -> np.ndarray:
    """(4, 4) `matrix_world` of a Blender camera -> OpenCV world-to-camera matrix (4, 4), the world in head-space axes.

    A scale of the camera object is removed, because it does not change the camera's view in Blender.
    """
    camera_to_world = BLENDER_TO_HEAD @ np.asarray(matrix_world, np.float64) @ OPENCV_AXES
    rotation = camera_to_world[:3, :3] / np.linalg.norm(camera_to_world[:3, :3], axis=0)
    result = np.eye(4)
    result[:3, :3] = rotation.T
    result[:3, 3] = -rotation.T @ camera_to_world[:3, 3]
    return result


def default_camera_pose(head_to_camera: np.ndarray) -> np.ndarray:
    """Head poses (F, 4, 4) in the footage's OpenCV camera -> camera-to-world (4, 4) for that camera in Blender's world.

    Footage does not show which way is up, so the camera is level and looks along +Y, as Blender's front view does. It
    is placed so that the median position of the performer's head is at the world's origin.
    """
    pose = np.array(((1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, 0), (0, 0, 0, 1)), np.float64)
    pose[:3, 3] = -pose[:3, :3] @ np.nanmedian(head_to_camera[:, :3, 3].astype(np.float64), axis=0)
    return pose
