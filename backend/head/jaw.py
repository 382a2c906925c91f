"""The jaw and the gaze: the convention for the jaw's motion, and how far both joints rotate.

Jaw convention. The jaw joint carries the opening and the sideways motion of the jaw. The expression shapes jawOpen,
jawLeft and jawRight stay at zero in a track. Both the joint and the shapes could explain an open mouth, and values that
could be split in many ways cannot be keyframed. The joint is used for three reasons:

1. FLAME heads have no opening shape, so one convention serves both kinds of head.
2. Teeth and chin travel on an arc, which only a joint gives.
3. A bone can be posed, keyframed and stored in a pose library. It can hold every value of the three sliders, while the
   sliders cannot hold every rotation.

`jaw_rotations_of_shapes` converts the three shapes to the joint's rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from ..head_motion import gaze_rotations
from .model import JAW, HeadModel
from .rigid_alignment import fit_rotation

JAW_SHAPES: Final = ("jawOpen", "jawLeft", "jawRight")

_DEGREE: Final = np.pi / 180
_DEFAULT_JAW_ROTATIONS: Final = {
    "jawOpen": (24 * _DEGREE, 0, 0),
    "jawLeft": (0, 6 * _DEGREE, 0),
    "jawRight": (0, -6 * _DEGREE, 0),
}
"""Axis-angle of the jaw joint for a shape at 1, on heads without that shape."""
_BOUND: Final = 0.9
"""Skinning weight from which on a vertex counts as moved by the jaw joint alone."""


@dataclass(frozen=True)
class JointLimits:
    """The range of the jaw and of the eyes, radians of the axis-angle's components."""

    jaw_lower: np.ndarray
    """(3,): x (opening, positive opens), y (sideways), z (tilt)"""
    jaw_upper: np.ndarray
    """(3,)"""
    gaze: np.ndarray
    """(2,): x (up and down), y (left and right); an eye turns as far in both directions and does not roll."""


GAZE_LIMITS: Final = np.radians((35.0, 45.0))
GAZE_ANGLES: Final = np.radians((25.0, 19.0))
"""Sideways, and up or down: the rotation of an eye for an eyeLook channel of 1, by regression over tracked clips."""

TRACKING_LIMITS: Final = JointLimits(
    jaw_lower=np.array((-2, -10, -8)) * _DEGREE, jaw_upper=np.array((40, 10, 8)) * _DEGREE, gaze=GAZE_LIMITS
)
"""Bounds of the tracker's solver."""

RETARGETING_LIMITS: Final = JointLimits(
    jaw_lower=np.radians((-4.0, -12.0, -8.0)), jaw_upper=np.radians((40.0, 12.0, 8.0)), gaze=GAZE_LIMITS
)
"""Where a transferred performance is clipped; beyond it the joint is out of its socket. The range is wider than the
tracker's because a transfer adds the performer's motion, scaled by up to 3, to the neutral pose of another person."""


def lips_over_open_jaw(model: HeadModel, expression: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Expressions (F, E) for rotations (F, 5, 3), with mouthClose at most as far as the jaw is open.

    ARKit's mouthClose closes the lips of an open jaw: at the value of jawOpen they meet. Beyond it the lower lip would
    pass through the upper one. Sliders are read so; a track keeps what was measured.
    """
    if "mouthClose" not in model.expression_names:
        return expression
    axis = jaw_rotations_of_shapes(model)["jawOpen"]
    opened = np.clip(rotations[:, JAW] @ axis / (axis @ axis), 0, None)
    if "jawOpen" in model.expression_names:
        opened = opened + np.clip(expression[:, model.expression_names.index("jawOpen")], 0, None)
    column, limited = model.expression_names.index("mouthClose"), expression.copy()
    limited[:, column] = np.minimum(limited[:, column], opened)
    return limited


def jaw_rotations_of_shapes(model: HeadModel) -> dict[str, np.ndarray]:
    """Axis-angle (3,) of the jaw joint that opens or shifts the chin as far as jawOpen, jawLeft or jawRight at 1.

    It is the rotation about the jaw joint that fits best how the shape moves the vertices that are bound to the jaw.
    The sliders of avatars and artists are converted to the joint's rotation by it.
    """
    rotations = {name: np.array(angle, np.float64) for name, angle in _DEFAULT_JAW_ROTATIONS.items()}
    bound = model.skinning[:, JAW] > _BOUND
    if not bound.any():
        return rotations
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    rest = model.template[bound] - joint
    for name in JAW_SHAPES:
        if name in model.expression_names:
            moved = rest + model.expression_basis[bound, :, model.expression_names.index(name)]
            rotations[name] = Rotation.from_matrix(fit_rotation(rest, moved)).as_rotvec()
    return rotations


def gaze_rotations_of_shapes() -> dict[str, tuple[int, np.ndarray]]:
    """The eye that each eyeLook channel turns (its joint), and the axis-angle (3,) at 1."""
    return gaze_rotations(*GAZE_ANGLES)
