"""Where the head of a new rig stands in a scene: beside the heads that are there, so that none is inside another."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import numpy as np
from mathutils import Vector

from ..errors import EffigyError
from .data import JOINT_NAMES
from .rig_properties import Rig

STEP: Final = 0.4
"""Metres between two heads: about the width of the shoulders."""
NEAR: Final = 0.3
"""Metres below which two heads would be inside each other when they move."""


def room_beside(rig: Rig, others: Iterable[Rig]) -> float:
    """How many metres along the world's x axis the head of a new rig, which stands at the world's origin, has to be
    moved to be in none of the heads of `others` as they stand now. 0 if there is room where it is.
    """
    root = np.array(rig.armature.data.bones[JOINT_NAMES[0]].head_local)
    taken = [np.array(other.armature.matrix_world @ _root_of(other)) for other in others]
    steps = 0
    while any(np.linalg.norm(root + (steps * STEP, 0.0, 0.0) - place) < NEAR for place in taken):
        steps += 1
    return steps * STEP


def _root_of(rig: Rig) -> Vector:
    """Where the root bone of a rig begins as it is posed, in its armature's space; the origin if the bone is gone."""
    with suppress(EffigyError):
        return rig.pose_bone(JOINT_NAMES[0]).matrix.translation
    return Vector()
