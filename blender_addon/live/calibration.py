"""The performer's neutral face: the median of the faces of the first moment, in which the performer looks straight
ahead and rests.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import degrees
from typing import Final

import numpy as np
from mathutils import Quaternion

from ..channel_change import MAX_NEUTRAL_JAW
from ..rig.joint_limits import JAW_OPEN_AT_ONE
from .face import CHANNELS, INDEX, Face

SECONDS: Final = 0.7
FEWEST: Final = 5
"""Faces: a slow camera gives as many in half a second."""
LONGEST_GAP: Final = 1.0
"""Seconds between two faces, after which it begins anew."""


@dataclass(frozen=True)
class NeutralFace:
    """What a performer's face and head are at rest."""

    channels: np.ndarray
    """(52,)"""
    head: Quaternion


class Calibration:
    """Collects faces until they make a neutral one."""

    def __init__(self) -> None:
        self._faces: list[Face] = []
        self.neutral: NeutralFace | None = None

    def add(self, face: Face) -> None:
        if self._faces and not 0 <= face.time - self._faces[-1].time <= LONGEST_GAP:
            self._faces.clear()
        self._faces.append(face)
        if len(self._faces) >= FEWEST and face.time - self._faces[0].time >= SECONDS:
            self.neutral = neutral_of(self._faces)
            self._faces.clear()


def neutral_of(faces: list[Face]) -> NeutralFace:
    channels = np.median([face.channels for face in faces], axis=0)
    # As in retargeting: teeth meet, and a mouth that hung open all the time is no neutral one.
    jaw = INDEX["jawOpen"]
    channels[jaw] = min(channels[jaw], degrees(MAX_NEUTRAL_JAW) / JAW_OPEN_AT_ONE)
    turns = np.array([face.head for face in faces])
    turns *= np.where(turns @ turns[0] < 0, -1.0, 1.0)[:, None]
    return NeutralFace(channels, Quaternion(np.median(turns, axis=0)).normalized())


STILL: Final = NeutralFace(np.zeros(len(CHANNELS)), Quaternion())
"""Of a performer whose channels are taken as they are."""
