"""The limbus, the border between iris and white of the eye, as surface points of the rig."""

from __future__ import annotations

import numpy as np
import torch

from ...head.eye_size import IRIS_RADIUS
from ...head.model import EYE_L, EYE_R, HeadModel
from .landmark_surface import LandmarkSurface, LinearBasis


def limbus_surface(model: HeadModel, device: torch.device | str = "cpu") -> LandmarkSurface | None:
    """Six points: for each eye the centre of the limbus and the points of its rim beside and above the centre.

    The rim lies where the eyeball, looking along +Z, is as wide as an iris (IRIS_RADIUS), and moves with the front of
    the eyeball. Returns None for a head model without eyeballs.
    """
    joints = model.joint_regressor.astype(np.float64)
    rest, shape, lever, lever_shape = [], [], [], []
    for joint in (EYE_L, EYE_R):
        centre = joints[joint] @ model.template
        joint_basis = np.tensordot(joints[joint], model.shape_basis.astype(np.float64), 1)
        eyeball = np.flatnonzero(model.skinning[:, joint] > 0.5)
        offset = model.template[eyeball] - centre
        radius = np.hypot(offset[:, 0], offset[:, 1]) / IRIS_RADIUS
        front = offset[:, 2] > 0
        near_rim = front & (radius > 0.75) & (radius < 1.25)
        if near_rim.sum() < 4:
            return None
        front_basis = model.shape_basis[eyeball[front & (radius < 1.25)]].mean(0)
        for x, y in ((0, 0), (1, 0), (0, 1)):
            from_joint = np.array((x * IRIS_RADIUS, y * IRIS_RADIUS, offset[near_rim, 2].mean()))
            rest.append(centre + from_joint)
            lever.append(from_joint)
            shape.append(front_basis)
            lever_shape.append(front_basis - joint_basis)
    count = len(rest)
    expression, corrective = torch.zeros(count, 3, model.expression_basis.shape[2]), torch.zeros(count, 3, 27)

    def linear(points: list[np.ndarray], bases: list[np.ndarray]) -> LinearBasis:
        parts = (torch.as_tensor(np.stack(values), dtype=torch.float32) for values in (points, bases))
        return LinearBasis(*(part.to(device) for part in (*parts, expression, corrective)))

    return LandmarkSurface(
        np.arange(count),
        np.ones(count, bool),
        linear(rest, shape),
        linear(lever, lever_shape),
        torch.tensor((1, 1, 1, 2, 2, 2), device=device),
        torch.ones(count, device=device),
    )
