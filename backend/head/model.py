"""The head model: a FLAME-format rig as plain arrays.

A head model is a linear blend-skinned mesh: a template deformed by an identity (shape) basis, an expression basis and
pose correctives, then skinned to five joints (FLAME, Li et al. 2017, eq. 1-3). It holds no behaviour besides loading
and saving: `backend.head.forward` poses it, and `backend.head.formats` reads the user's FLAME files into it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

ROOT, NECK, JAW, EYE_L, EYE_R = range(5)
JOINT_NAMES = ("root", "neck", "jaw", "eye_L", "eye_R")
"""FLAME's five joints, in FLAME's order. L and R are the person's own left (+X in head space) and right."""

PARENTS = (-1, 0, 1, 1, 1)

REGION_NAMES = (
    "face",
    "scalp",
    "lips",
    "eyes",
    "lids",
    "ears",
    "neck",
    "mouth_inside",
    "boundary",
)
"""`eyes` are the eyeballs, `mouth_inside` teeth, gums, tongue and the inner mouth wall; `boundary` is the ring of
vertices at the open lower edge of the neck. A region is empty if the model has no such part."""

LANDMARK_COUNT = 478
"""Landmarks of the face detector (MediaPipe face landmarker): 468 on the surface, then 5 of each iris."""


ADDED_MOUTH: Final = "+mouth1"
"""At the end of a fingerprint. The number is that of the mouth's construction: an avatar needs the vertices on which it
was trained."""


@dataclass(frozen=True)
class HeadModel:
    """FLAME format. N vertices, F triangles, S identity and E expression components, J = 5 joints; float32, metres.

    Head space: +Y up, +Z out of the face, right-handed; the person's left is +X.
    """

    name: str
    template: np.ndarray
    """(N, 3)"""
    shape_basis: np.ndarray
    """(N, 3, S): metres per unit (one standard deviation) of the identity coefficient."""
    expression_basis: np.ndarray
    """(N, 3, E): metres per unit of the expression coefficient."""
    pose_basis: np.ndarray
    """(N, 3, 36): FLAME's pose correctives, on the flattened (R - I) of joints 1 to 4, row-major."""
    joint_regressor: np.ndarray
    """(5, N): joints from the shaped template."""
    skinning: np.ndarray
    """(N, 5): rows sum to one."""
    faces: np.ndarray
    """(F, 3) int32, counter-clockwise seen from outside."""
    uv: np.ndarray
    """(T, 2) in [0, 1], v upwards."""
    uv_faces: np.ndarray
    """(F, 3) int32 into `uv`."""
    expression_names: tuple[str, ...]
    """Length E. The 52 ARKit names on the open head; `expression_000`... on FLAME."""
    expression_range: tuple[float, float]
    """Range of the sliders: (0, 1) for ARKit-named shapes, (-10, 10) for FLAME coefficients."""
    regions: dict[str, np.ndarray]
    """Region name -> sorted int32 vertex indices; the keys are REGION_NAMES."""
    landmark_faces: np.ndarray
    """(478,) int32: the triangle of each detector landmark; -1 if the landmark does not exist on this surface."""
    landmark_barycentric: np.ndarray
    """(478, 3): barycentric coordinates in that triangle."""
    added: int = 0
    """How many of the vertices, the last ones, are a mouth that its file lacks (`backend.head.added_mouth`)."""

    @property
    def own_count(self) -> int:
        """How many vertices the model's file has."""
        return len(self.template) - self.added

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the SHA-256 of all arrays on which posing depends, as the model's file has them;
        then ADDED_MOUTH if a mouth was added.
        """
        own = self.own_count
        digest = hashlib.sha256()
        for array in (
            self.template[:own],
            self.shape_basis[:own],
            self.expression_basis[:own],
            self.pose_basis[:own],
            self.joint_regressor[:, :own],
            self.skinning[:own],
            self.faces[(self.faces < own).all(1)],
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16] + (ADDED_MOUTH if self.added else "")


def same_coefficients(fingerprint: str, other: str) -> bool:
    """Whether coefficients mean the same on two head models, of which one may have an added mouth."""
    return file_fingerprint(fingerprint) == file_fingerprint(other)


def file_fingerprint(fingerprint: str) -> str:
    """The fingerprint of a head model as its file has it, without an added mouth."""
    return fingerprint.partition("+")[0]
