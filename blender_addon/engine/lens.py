"""The opening of a camera's lens: depth of field. The formulas are those of Cycles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import bpy
import numpy as np

from .camera import WorkerCamera

LEAST: Final = 1e-5
"""Of f-stop and focus distance, as in Cycles."""


@dataclass(frozen=True)
class Lens:
    """An opening in the plane of the camera, and the distance at which all points of it see the same."""

    radius: float
    """Metres."""
    focus: float
    """Metres along the camera's axis."""
    blades: int = 0
    """Corners of the opening; a disc with fewer than 3."""
    rotation: float = 0.0
    """Radians."""
    ratio: float = 1.0
    """Height by width of the opening: more than 1 for anamorphic lenses."""

    def points(self, square: np.ndarray) -> np.ndarray:
        """Points (M, 2) of the unit square -> points (M, 2) of the opening, as evenly spread; metres to the right and
        upwards.
        """
        u, v = square.T
        if self.blades < 3:
            turn = 2 * np.pi * u
            points = np.sqrt(v)[:, None] * np.stack((np.cos(turn), np.sin(turn)), -1)
        else:
            # A triangle from the centre to each side.
            corner = np.floor(u * self.blades)
            along = u * self.blades - corner
            outwards = np.sqrt(v)[:, None]
            ends = [self.rotation + 2 * np.pi * (corner + end) / self.blades for end in (-0.5, 0.5)]
            first, second = (np.stack((np.cos(end), np.sin(end)), -1) for end in ends)
            points = outwards * (first + along[:, None] * (second - first))
        return self.radius * points / (self.ratio, 1.0)

    def through(self, view: WorkerCamera, point: np.ndarray) -> WorkerCamera:
        """The camera moved to a point (2,) of the opening, with its image shifted so that the plane in focus stays."""
        moved, intrinsics = view.world_to_camera.copy(), view.intrinsics.copy()
        # Downwards in OpenCV's axes.
        offset = np.array((point[0], -point[1]))
        moved[:2, 3] -= offset
        intrinsics[:2, 2] += np.diag(intrinsics)[:2] * offset / self.focus
        return replace(view, world_to_camera=moved, intrinsics=intrinsics)

    def blur(self, view: WorkerCamera, depths: np.ndarray) -> float:
        """Largest diameter, in pixels, of the images of points at such depths (M,), metres."""
        seen = np.maximum(depths, LEAST)
        widest = self.radius * max(1.0, 1 / self.ratio) * np.diag(view.intrinsics)[:2].max()
        return float(2 * widest * np.abs(1 / seen - 1 / self.focus).max())


def lens_of(camera: bpy.types.Object) -> Lens | None:
    """The lens of an evaluated camera; None without depth of field, and for an orthographic camera."""
    data = camera.data
    dof = data.dof
    if not dof.use_dof or data.type != "PERSP":
        return None
    return Lens(
        data.lens * 1e-3 / (2 * max(dof.aperture_fstop, LEAST)),
        max(_focus(camera, dof), LEAST),
        dof.aperture_blades,
        dof.aperture_rotation,
        dof.aperture_ratio,
    )


def _focus(camera: bpy.types.Object, dof: bpy.types.CameraDOFSettings) -> float:
    if dof.focus_object is None:
        return dof.focus_distance
    matrix = dof.focus_object.matrix_world
    if dof.focus_object.pose and (bone := dof.focus_object.pose.bones.get(dof.focus_subtarget)) is not None:
        matrix = matrix @ bone.matrix
    axis = np.array(camera.matrix_world)[:3, 2]
    return abs(float(axis / np.linalg.norm(axis) @ (np.array(matrix) - np.array(camera.matrix_world))[:3, 3]))
