"""Which columns of a frame's parameter vector hold what.

A frame has P = E + 13 parameters: expression (E), jaw (3, axis-angle), eyes (4: left x, left y, right x, right y; an
eye does not roll), head rotation (3, a left tangent of the rotation matrix) and head translation (3, metres). The first
E + 7 of them, the *face*, are what `FrameState.face` stores; the last six are the head *pose*. All slices count from
the front, so they index a face vector and a full parameter vector alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

JOINT_COUNT = 7
"""Jaw (3) and eyes (4)."""
POSE_COUNT = 6
EXTRA_COUNT = JOINT_COUNT + POSE_COUNT
"""Parameters of a frame besides expression."""


@dataclass(frozen=True)
class ParameterLayout:
    """The named columns for a head model with `expressions` (E) expression coefficients."""

    expressions: int

    @classmethod
    def of_face(cls, face: Tensor) -> ParameterLayout:
        """The layout of face vectors (..., E + 7)."""
        return cls(face.shape[-1] - JOINT_COUNT)

    @property
    def face_size(self) -> int:
        return self.expressions + JOINT_COUNT

    @property
    def size(self) -> int:
        """P."""
        return self.expressions + EXTRA_COUNT

    @property
    def expression(self) -> slice:
        return slice(0, self.expressions)

    @property
    def jaw(self) -> slice:
        return slice(self.expressions, self.expressions + 3)

    @property
    def left_eye(self) -> slice:
        return slice(self.expressions + 3, self.expressions + 5)

    @property
    def right_eye(self) -> slice:
        return slice(self.expressions + 5, self.face_size)

    @property
    def eyes(self) -> slice:
        return slice(self.expressions + 3, self.face_size)

    @property
    def face(self) -> slice:
        """Expression, jaw and eyes."""
        return slice(0, self.face_size)

    @property
    def rotation(self) -> slice:
        return slice(self.face_size, self.face_size + 3)

    @property
    def translation(self) -> slice:
        return slice(self.face_size + 3, self.size)

    @property
    def pose(self) -> slice:
        """Head rotation and translation."""
        return slice(self.face_size, self.size)
